"""Tab-separated values, quoted as CSV is where a field holds a tab or a quotation mark."""

from __future__ import annotations

from synth.tables.render.csv import separated

TSV = separated("tsv", "\t")
