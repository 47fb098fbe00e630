"""Datasets as the commands and the API read them: some columns of all rows, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from packing.dataset.errors import DatasetError
from packing.dataset.manifest import Manifest
from packing.dataset.reader import inside, open_parquet, read_manifest
from synth.needles.scoring import Key

KEY_COLUMNS = ("id", "task", "length", "depth", "outputs", "distractors")
ROWS_AT_ONCE = 32


def open_dataset(folder: Path, *, kinds: Sequence[str] | None = None) -> Manifest:
    """The manifest of a dataset; raises DatasetError where there is none, or the dataset is of another kind."""
    manifest = read_manifest(folder)
    if kinds is not None and manifest.kind not in kinds:
        message = f"{folder} is a dataset of kind {manifest.kind}; this needs one of kind {' or '.join(kinds)}"
        raise DatasetError(message, param=str(folder))
    return manifest


def dataset_rows(folder: Path, manifest: Manifest, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """All rows with those of the columns that the dataset has; raises DatasetError for damage."""
    for file in manifest.files:
        with open_parquet(inside(folder, file.path), name=file.path) as parquet:
            yield from some_columns(parquet, columns, name=file.path)


def some_columns(parquet: pq.ParquetFile, columns: Sequence[str], *, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a file with those of the columns that it has, a few in memory at a time; raises DatasetError for damage."""
    present = [column for column in columns if column in parquet.schema_arrow.names]
    try:
        for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE, columns=present, use_threads=False):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        message = f"{name} is damaged ({error})"
        raise DatasetError(message, param=name) from error


def key_of(row: dict[str, Any]) -> Key:
    """What the answer to a probe is held against, of its row."""
    return Key(
        id=row["id"],
        task=row["task"],
        length=row["length"],
        depth=row["depth"],
        outputs=tuple(row["outputs"]),
        distractors=tuple(row.get("distractors") or ()),
    )
