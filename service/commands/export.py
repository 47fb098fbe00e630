"""`longweave export DIR --format F --out OUT`: probes, or conversations, in the shapes of the peers' files."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from packing.dataset.errors import DatasetError
from packing.dataset.reader import open_parquet
from service.datasets import dataset_rows, open_dataset
from synth.needles.export import COLUMNS, FORMATS

OPEN_FILES = 64


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("dataset", type=Path, help="the dataset's directory")
    parser.add_argument("--format", required=True, choices=list(FORMATS), help="whose files to write")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty directory")


def run(options: argparse.Namespace) -> int:
    """Write the files and say how many."""
    counts = export(options.dataset, options.format, options.out)
    if options.json:
        print(json.dumps({"out": str(options.out), "files": counts}))
    else:
        print(f"{options.out}: {sum(counts.values()):,} records in {len(counts)} files")
    return 0


def export(folder: Path, form: str, out: Path) -> dict[str, int]:
    """Write a dataset in another form; returns the records of each file. Raises DatasetError where the dataset has not what it takes."""
    manifest = open_dataset(folder, kinds=None if form == "messages" else ["needle"])
    if form == "messages":
        _require_messages(folder, manifest.files[0].path if manifest.files else "")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        message = f"{out} is not empty: name a new directory"
        raise DatasetError(message, param="--out")
    counts: dict[str, int] = {}
    files: dict[str, IO[str]] = {}
    with ExitStack() as stack:
        for path, record in FORMATS[form](dataset_rows(folder, manifest, COLUMNS[form])):
            if path not in files:
                if len(files) >= OPEN_FILES:
                    stack.close()
                    files.clear()
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                files[path] = stack.enter_context((out / path).open("a", encoding="utf-8"))
            files[path].write(json.dumps(record, ensure_ascii=False) + "\n")
            counts[path] = counts.get(path, 0) + 1
    return counts


def _require_messages(folder: Path, first: str) -> None:
    if first:
        with open_parquet(folder / first, name=first) as parquet:
            if "messages" in parquet.schema_arrow.names:
                return
    message = f"the rows of {folder} have no messages: needle and SynL datasets do"
    raise DatasetError(message, param=str(folder))
