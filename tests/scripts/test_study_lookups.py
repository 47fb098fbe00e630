"""The lookup study's short form, its first stage: a model drawn at random tells the right row of two in tables it has never seen, by
greedy decoding. The long form goes on to 0.95 of four rows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
ASKED = 200


@pytest.mark.slow
@pytest.mark.timeout(1500)  # a model that begins to look late is trained three times as long
def test_a_tiny_model_learns_to_look_rows_up(tmp_path: Path):
    command = [sys.executable, str(ROOT / "scripts" / "study_lookups.py"), "--short", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]

    study = tmp_path / "short-lookups"
    lines = json.loads((study / "recall.json").read_text())
    assert lines[0] == ["before", {"2": 0.0}]
    assert lines[-1][1]["2"] >= 0.7  # blindly half of them; of 200 that many are six deviations from it
    assert f"| {lines[-1][0]} | {lines[-1][1]['2']:.3f} |" in done.stdout

    asked = tables(study / "data" / "asked-2")
    learnt = tables(study / "data" / "two-1")
    assert len(asked) == ASKED
    assert len(learnt) == 4000
    assert all(len(keys) == 2 and rest for keys, rest in asked)
    known = {key for keys, _ in learnt for key in keys}
    new = [keys for keys, _ in asked if not set(keys) & known]
    assert len(new) > 0.9 * ASKED  # of 900,000 keys 8,000 were seen


def tables(dataset: Path) -> list[tuple[tuple[str, ...], list[str]]]:
    """The keys of every table of a dataset, and the answers to its questions."""
    found = []
    for path in sorted((dataset / "data").glob("*.parquet")):
        for row in pq.read_table(path, columns=["messages", "answers"]).to_pylist():
            keys = re.findall(r"^(FLT-\d{6}),", row["messages"][0]["content"], flags=re.MULTILINE)
            assert all(answer.partition(", ")[0] in keys for answer in row["answers"])
            found.append((tuple(keys), row["answers"]))
    return found
