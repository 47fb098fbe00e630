"""The study's short form: a model drawn at random finds the pass keys of probes it has never seen, after 280 steps of the
worker, or twice or three times as many: when it begins to look is chance."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

ROOT = Path(__file__).parents[2]
STEPS = 280


@pytest.mark.slow
@pytest.mark.timeout(1500)  # a model that begins to look late is trained three times as long
def test_a_tiny_model_learns_to_find_pass_keys(tmp_path: Path):
    command = [sys.executable, str(ROOT / "scripts" / "study.py"), "--short", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]

    study = tmp_path / "short"

    def report(run: str, step: int) -> dict[float, dict]:
        found = json.loads((study / f"runs/{run}/evaluations/step-{step:08d}/needles.json").read_text())
        return {cell["depth"]: cell for cell in found["cells"]}

    last = sorted(path.name for path in (study / "runs").iterdir())[-1]
    before, after = report("short-1", 0), report(last, STEPS)
    assert list(before) == list(after) == [0.0, 25.0, 50.0, 75.0, 100.0]
    assert all(cell["count"] == 20 and cell["recall"] == 0.0 for cell in before.values())
    assert sum(cell["recall"] for cell in after.values()) / len(after) >= 0.95
    assert f"| {last}: {STEPS} steps on probes of 112 tokens |" in done.stdout

    asked = {row["outputs"][0] for row in rows(study / "data" / "probes", "outputs")}
    tokenizer = Tokenizer.from_file(str(study / "tokenizer" / "tokenizer.json"))
    texts = tokenizer.decode_batch([row["input_ids"] for row in rows(study / "data" / "short", "input_ids")])
    learnt = {key for text in texts for key in re.findall(r"The pass key is (\d{5})\.", text)}
    assert len(asked) > 90
    assert len(learnt) > 2500
    assert not asked & learnt


def rows(dataset: Path, column: str) -> list[dict]:
    """One column of all rows of a dataset."""
    return [
        row
        for path in sorted((dataset / "data").glob("*.parquet"))
        for row in pq.read_table(path, columns=[column]).to_pylist()
    ]
