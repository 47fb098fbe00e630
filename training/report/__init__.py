"""What a run was and what came of it, in one folder: report.md to read, report.json to compute with, report.png to see."""
