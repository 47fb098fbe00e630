"""Taking a source in: a file or folder is read once, cut into immutable pieces, and known from then on by digests."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from packing.dataset import manifest as manifests
from packing.dataset.errors import SourceError
from packing.dataset.reader import check_file, file_digest, read_manifest
from packing.plan import FIRST_REASONS, Piece
from packing.records import unusable
from packing.sources import TEXT_SUFFIXES, Cut, Limits, cut, cut_texts, holds_lines, runs_of_lines
from service.storage.datasets import TOKEN_COLUMN, files_digest, split_files
from service.storage.objects import Objects
from service.storage.source_record import SourceRecord, piece_path

KEPT_BEHIND = 2
"""Pieces that are packed and written while the next is cut: what does so, and what digests the whole, holds no lock of Python's."""
SOURCE_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".parquet")


def take_in(
    local: Path, *, name: str, objects: Objects, prefix: str, limits: Limits | None = None, passing: bool = False
) -> SourceRecord:
    """Cut one file (JSONL plain, .gz or .zst, or Parquet) into pieces below `prefix`; raises SourceError where it cannot be decoded.

    A source in `passing` goes with the build it is for: its pieces are not packed, lines of a plain file stay where they are, and nobody
    asks what rows of it are of no use before the build says so.
    """
    if passing and holds_lines(local, name):
        return _left_in_place(local, name=name, prefix=prefix, limits=limits or Limits())
    pieces: list[Piece] = []
    problems: dict[str, Any] = {"count": 0, "first": []}
    rows = 0
    keep = partial(_keep, name=name, objects=objects, prefix=prefix, passing=passing)
    with ThreadPoolExecutor(1 + KEPT_BEHIND, thread_name_prefix="intake") as behind:
        digesting = behind.submit(_digest, local)
        waiting: deque[Future[Piece]] = deque()
        for part in cut(local, name=name, limits=limits or Limits()):
            waiting.append(behind.submit(keep, part, first_index=rows))
            if len(waiting) > KEPT_BEHIND:
                pieces.append(waiting.popleft().result())
            rows += part.table.num_rows
            if passing:
                continue
            for bad in unusable(part.table, container=part.container, name=name, first_row=part.first_row):
                problems["count"] += 1
                if len(problems["first"]) < FIRST_REASONS:
                    problems["first"].append({"row": bad.row, "reason": bad.reason})
        pieces.extend(kept.result() for kept in waiting)
        digest, size = digesting.result()
    return SourceRecord(
        digest=digest, name=name, bytes=size, rows=rows, prefix=prefix, pieces=tuple(pieces), problems=problems
    )


def _digest(local: Path) -> tuple[str, int]:
    with local.open("rb") as stream:
        return file_digest(stream)


def _left_in_place(local: Path, *, name: str, prefix: str, limits: Limits) -> SourceRecord:
    """A plain file of lines, read through once to know where its pieces lie; builds read them there."""
    file = str(local.resolve())
    runs, digest, size = runs_of_lines(local, name=name, limits=limits)
    pieces = tuple(
        Piece(
            digest=f"{run.checksum:08x}",
            container="lines",
            field="",
            name=name,
            first_row=run.first_row,
            first_index=run.first_row - 1,
            rows=run.rows,
            bytes=run.bytes,
            file=file,
            start=run.start,
        )
        for run in runs
    )
    rows = sum(run.rows for run in runs)
    return SourceRecord(digest=digest, name=name, bytes=size, rows=rows, prefix=prefix, pieces=pieces)


def take_in_path(
    path: Path, *, objects: Objects, prefix: str, limits: Limits | None = None, split: str | None = None
) -> SourceRecord:
    """Take in a file, every source file of a folder in the order of their names, or a split of a dataset, for one build; raises
    SourceError.

    A folder without JSONL and Parquet is one of texts: every file of it is a document.
    """
    _check_place(path)
    folder = path.resolve()
    if not path.is_dir():
        if split is not None:
            message = f"{path} is a file and has no splits: split goes with a dataset"
            raise SourceError(message, param=str(path))
        return take_in(path, name=path.name, objects=objects, prefix=prefix, limits=limits, passing=True)
    if (folder / manifests.NAME).is_file():
        manifest = read_manifest(folder)
        files = split_files(manifest, split, name=path.name)
        parts = [(f.path, check_file(folder, f.path, f.bytes, f.sha256)) for f in files]
        record = _joined(path.name, parts, objects=objects, prefix=prefix, limits=limits)
        of_tokens = TOKEN_COLUMN in pq.read_schema(parts[0][1]).names
        by = str(manifest.tokenizer.get("sha256", "")) if of_tokens else ""
        return replace(record, digest=files_digest(files), tokens_by=by)
    named = _files_of(folder, SOURCE_SUFFIXES)
    if named:
        return _joined(path.name, named, objects=objects, prefix=prefix, limits=limits)
    return _take_in_texts(folder, objects=objects, prefix=prefix, limits=limits or Limits())


def _check_place(path: Path) -> None:
    """Raise SourceError unless a file or folder stands there: what is read twice can be no pipe, and a device may never end."""
    if not path.exists():
        message = f"{path} does not exist"
        raise SourceError(message, param=str(path))
    if not (path.is_file() or path.is_dir()):
        message = f"{path} is neither a file nor a folder: write what comes out of a pipe or device to a file first"
        raise SourceError(message, param=str(path))


def _files_of(folder: Path, suffixes: tuple[str, ...]) -> list[tuple[str, Path]]:
    """The files of a folder with such names, by name; hidden ones and those reached through links out of it are left out."""
    found = (
        (file.relative_to(folder).as_posix(), file)
        for file in folder.rglob("*")
        if file.is_file() and file.name.lower().endswith(suffixes) and file.resolve().is_relative_to(folder)
    )
    return sorted((name, file) for name, file in found if not any(step.startswith(".") for step in name.split("/")))


def _joined(
    name: str, files: Sequence[tuple[str, Path]], *, objects: Objects, prefix: str, limits: Limits | None
) -> SourceRecord:
    """Several files as one source."""
    whole = hashlib.sha256()
    records: list[SourceRecord] = []
    pieces: list[Piece] = []
    rows = 0
    for part, file in files:
        record = take_in(file, name=part, objects=objects, prefix=prefix, limits=limits, passing=True)
        whole.update(f"{part} {record.digest}\n".encode())
        pieces += [replace(piece, first_index=piece.first_index + rows) for piece in record.pieces]
        rows += record.rows
        records.append(record)
    return SourceRecord(
        digest=whole.hexdigest(),
        name=name,
        bytes=sum(r.bytes for r in records),
        rows=rows,
        prefix=prefix,
        pieces=tuple(pieces),
    )


def _take_in_texts(folder: Path, *, objects: Objects, prefix: str, limits: Limits) -> SourceRecord:
    files = _files_of(folder, TEXT_SUFFIXES)
    if not files:
        message = f"{folder} holds no source files ({', '.join(SOURCE_SUFFIXES)}; or texts: {', '.join(TEXT_SUFFIXES)})"
        raise SourceError(message, param=str(folder))
    whole = hashlib.sha256()

    def texts() -> Iterator[tuple[str, bytes]]:
        for name, file in files:
            if file.stat().st_size > limits.line_bytes:
                message = f"{name} has more than {limits.line_bytes} bytes"
                raise SourceError(message, param=name)
            data = file.read_bytes()
            whole.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
            yield name, data

    pieces = [
        _keep(part, name=folder.name, first_index=part.first_row - 1, objects=objects, prefix=prefix, passing=True)
        for part in cut_texts(texts())
    ]
    return SourceRecord(
        digest=whole.hexdigest(),
        name=folder.name,
        bytes=sum(piece.bytes for piece in pieces),
        rows=len(files),
        prefix=prefix,
        pieces=tuple(pieces),
    )


def first_piece(path: Path, *, objects: Objects, prefix: str, split: str | None = None) -> SourceRecord:
    """Only the first piece of a file or folder, for a preview that need not wait for the rest."""
    _check_place(path)
    file, name = path, path.name
    if path.is_dir():
        if (path / manifests.NAME).is_file():
            chosen = split_files(read_manifest(path), split, name=path.name)[0]
            files = [(chosen.path, check_file(path, chosen.path, chosen.bytes, chosen.sha256))]
        else:
            files = _files_of(path.resolve(), SOURCE_SUFFIXES)
        if not files:
            return take_in_path(path, objects=objects, prefix=prefix)
        name, file = files[0]
    part = next(iter(cut(file, name=name, limits=Limits())))
    piece = _keep(part, name=name, first_index=0, objects=objects, prefix=prefix, passing=True)
    return SourceRecord(
        digest=piece.digest, name=path.name, bytes=part.bytes, rows=piece.rows, prefix=prefix, pieces=(piece,)
    )


def _keep(part: Cut, *, name: str, first_index: int, objects: Objects, prefix: str, passing: bool) -> Piece:
    sink = io.BytesIO()
    pq.write_table(
        part.table,
        sink,
        compression="none" if passing else "zstd",
        write_page_checksum=True,
        use_dictionary=False,
        write_statistics=False,
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
