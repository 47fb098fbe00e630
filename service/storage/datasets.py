"""Datasets as sources of other datasets: their files are read where they are, a row group at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from packing.dataset import manifest as manifests
from packing.dataset.errors import SourceError
from packing.dataset.manifest import DataFile, Manifest
from packing.dataset.reader import open_parquet
from packing.plan import Piece
from service.storage.object_file import ObjectFile
from service.storage.objects import Objects
from service.storage.source_record import SourceRecord

TOKEN_COLUMN = "input_ids"  # noqa: S105 (a column)


def split_files(manifest: Manifest, split: str | None, *, name: str) -> Sequence[DataFile]:
    """The files of one split of a dataset: the one named, else train, else the only one; raises SourceError where that names none."""
    splits = sorted({file.split for file in manifest.files if file.rows})
    chosen = split or ("train" if "train" in splits or len(splits) != 1 else splits[0])
    files = [file for file in manifest.files if file.split == chosen and file.rows]
    if not files:
        message = f"the dataset {name} has no rows in a split {chosen!r}; it has {', '.join(splits) or 'none'}"
        raise SourceError(message, param="split")
    return files


def files_digest(files: Sequence[DataFile]) -> str:
    """What a source made of these files is known by: the same for a dataset of the service and for its copy on a disk."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.path} {file.sha256}\n".encode())
    return whole.hexdigest()


def dataset_source(objects: Objects, folder: str, *, name: str, split: str | None = None) -> SourceRecord:
    """The dataset below `folder` of the store as a source, one piece a row group; raises SourceError where it has no such split."""
    where = f"{folder}/{manifests.NAME}"
    manifest = Manifest.from_bytes(objects.read(where), where=where)
    files = split_files(manifest, split, name=name)
    pieces: list[Piece] = []
    rows, of_tokens = 0, False
    for file in files:
        path = f"{folder}/{file.path}"
        first = 1
        with ObjectFile(objects, path, file.bytes) as stream, open_parquet(stream, name=file.path) as parquet:
            of_tokens = TOKEN_COLUMN in parquet.schema_arrow.names
            for number in range(parquet.metadata.num_row_groups):
                group = parquet.metadata.row_group(number)
                pieces.append(
                    Piece(
                        digest=file.sha256,
                        container="columns",
                        field="",
                        name=file.path,
                        first_row=first,
                        first_index=rows,
                        rows=group.num_rows,
                        bytes=group.total_byte_size,
                        path=path,
                        group=number,
                    )
                )
                first, rows = first + group.num_rows, rows + group.num_rows
    return SourceRecord(
        digest=files_digest(files),
        name=name,
        bytes=sum(file.bytes for file in files),
        rows=rows,
        prefix="",
        pieces=tuple(pieces),
        tokens_by=str(manifest.tokenizer.get("sha256", "")) if of_tokens else "",
    )
