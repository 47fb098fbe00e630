"""Needle datasets for the tests of what is done with them, and answers to their probes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from service.cli import main

FIELDS: dict[str, Any] = {
    "kind": "needle",
    "tasks": ["passkey", "kv", "niah_multikey", "niah_multivalue"],
    "lengths": [1024, 2048],
    "depths": [0, 100],
    "repeats": 3,
}
ROWS = 2 * 3 * (3 * 2 + 1)


def build(folder: Path, **fields: Any) -> Path:
    """A small dataset of probes, built at the command line."""
    spec, out = folder / "spec.yaml", folder / "dataset"
    spec.write_text(yaml.safe_dump(FIELDS | fields), encoding="utf-8")
    assert main(["build", str(spec), "--out", str(out), "--json"]) == 0
    return out


def rows_of(dataset: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(dataset.glob("data/*.parquet")) for row in pq.read_table(path).to_pylist()]


def right(row: dict[str, Any]) -> str:
    return ", ".join(row["outputs"])


def write_answers(path: Path, rows: list[dict[str, Any]], answer=right) -> Path:
    lines = [json.dumps({"id": row["id"], "prediction": answer(row)}) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
