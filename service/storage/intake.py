"""Taking a source in: a file or folder is read once, cut into immutable pieces, and known from then on by digests."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from packing.dataset import manifest as manifests
from packing.dataset.errors import SourceError
from packing.dataset.reader import check_file, file_digest, read_manifest
from packing.plan import FIRST_REASONS, Piece
from packing.records import unusable
from packing.sources import Cut, Limits, cut
from service.storage.objects import Objects

SOURCE_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """A source that was taken in. `digest` is sha256 of its raw bytes; `problems` counts rows that are neither conversation nor
    document by the usual column names, with the first reasons: a report, not a judgement, since a spec may name other columns."""

    digest: str
    name: str
    bytes: int
    rows: int
    prefix: str
    pieces: tuple[Piece, ...]
    problems: Mapping[str, Any] = field(default_factory=lambda: {"count": 0, "first": []})

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SourceRecord:
        """The inverse of `to_json`."""
        fields: dict[str, Any] = dict(value)
        fields["pieces"] = tuple(Piece(**piece) for piece in value["pieces"])
        return cls(**fields)


def piece_path(prefix: str, digest: str) -> str:
    """Where a piece is kept below the prefix of its source."""
    return f"{prefix}/{digest}.parquet" if prefix else f"{digest}.parquet"


def take_in(local: Path, *, name: str, objects: Objects, prefix: str, limits: Limits | None = None) -> SourceRecord:
    """Cut one file (JSONL plain, .gz or .zst, or Parquet) into pieces below `prefix`; raises SourceError where it cannot be decoded."""
    with local.open("rb") as stream:
        digest, size = file_digest(stream)
    pieces: list[Piece] = []
    problems: dict[str, Any] = {"count": 0, "first": []}
    rows = 0
    for part in cut(local, name=name, limits=limits or Limits()):
        pieces.append(_keep(part, name=name, first_index=rows, objects=objects, prefix=prefix))
        rows += part.table.num_rows
        for bad in unusable(part.table, container=part.container, name=name, first_row=part.first_row):
            problems["count"] += 1
            if len(problems["first"]) < FIRST_REASONS:
                problems["first"].append({"row": bad.row, "reason": bad.reason})
    return SourceRecord(
        digest=digest, name=name, bytes=size, rows=rows, prefix=prefix, pieces=tuple(pieces), problems=problems
    )


def take_in_path(path: Path, *, objects: Objects, prefix: str, limits: Limits | None = None) -> SourceRecord:
    """Take in a file, every source file of a folder in the order of their names, or the files of a dataset; raises SourceError."""
    if not path.exists():
        message = f"{path} does not exist"
        raise SourceError(message, param=str(path))
    if not path.is_dir():
        return take_in(path, name=path.name, objects=objects, prefix=prefix, limits=limits)
    files = _files_of(path.resolve())
    whole = hashlib.sha256()
    records: list[SourceRecord] = []
    pieces: list[Piece] = []
    for file in files:
        name = file.relative_to(path.resolve()).as_posix()
        record = take_in(file, name=name, objects=objects, prefix=prefix, limits=limits)
        whole.update(f"{name} {record.digest}\n".encode())
        rows = sum(r.rows for r in records)
        pieces += [replace(piece, first_index=piece.first_index + rows) for piece in record.pieces]
        records.append(record)
    problems = {
        "count": sum(r.problems["count"] for r in records),
        "first": [{"file": r.name, **reason} for r in records for reason in r.problems["first"]][:FIRST_REASONS],
    }
    return SourceRecord(
        digest=whole.hexdigest(),
        name=path.name,
        bytes=sum(r.bytes for r in records),
        rows=sum(r.rows for r in records),
        prefix=prefix,
        pieces=tuple(pieces),
        problems=problems,
    )


def first_piece(path: Path, *, objects: Objects, prefix: str) -> SourceRecord:
    """Only the first piece of a file or folder, for a preview that need not wait for the rest."""
    if not path.exists():
        message = f"{path} does not exist"
        raise SourceError(message, param=str(path))
    file = _files_of(path)[0] if path.is_dir() else path
    part = next(iter(cut(file, name=file.name, limits=Limits())))
    piece = _keep(part, name=file.name, first_index=0, objects=objects, prefix=prefix)
    return SourceRecord(
        digest=piece.digest, name=file.name, bytes=part.bytes, rows=piece.rows, prefix=prefix, pieces=(piece,)
    )


def _files_of(folder: Path) -> list[Path]:
    """The source files of a folder by name; of a dataset's directory, the files its manifest names, checked."""
    if (folder / manifests.NAME).is_file():
        return [check_file(folder, f.path, f.bytes, f.sha256) for f in read_manifest(folder).files]
    files = sorted(
        (file for file in folder.rglob("*") if file.is_file() and file.name.lower().endswith(SOURCE_SUFFIXES)),
        key=lambda file: file.relative_to(folder).as_posix(),
    )
    if not files:
        message = f"{folder} holds no source files ({', '.join(SOURCE_SUFFIXES)})"
        raise SourceError(message, param=str(folder))
    return files


def _keep(part: Cut, *, name: str, first_index: int, objects: Objects, prefix: str) -> Piece:
    sink = io.BytesIO()
    pq.write_table(
        part.table, sink, compression="zstd", write_page_checksum=True, use_dictionary=False, write_statistics=False
    )
    data = sink.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    path = piece_path(prefix, digest)
    if objects.size(path) != len(data):
        objects.write(path, data)
    return Piece(
        digest=digest,
        container=part.container,
        field="",
        name=name,
        first_row=part.first_row,
        first_index=first_index,
        rows=part.table.num_rows,
        bytes=part.bytes,
    )
