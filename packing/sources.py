"""Sources cut once into immutable pieces, so that row numbers mean the same for ever and any shard finds its rows without seeking.

A piece keeps rows as they came: lines as bytes, Parquet rows as columns. What a row means is decided by the spec, later.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from packing.dataset.errors import SourceError
from packing.runs import places

PIECE_BYTES = 8 * 1024 * 1024
READ_BYTES = 8 * 1024 * 1024
BATCH_ROWS = 256
BOM = b"\xef\xbb\xbf"
NEWLINE = 0x0A
TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst", ".tex", ".org", ".adoc")
"""Names of files that are one document each, and no lines of JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one source file may be, so that a small file cannot stand for an endless one. Bytes are uncompressed."""

    bytes: int = 64 * 1024**3
    line_bytes: int = 256 * 1024**2
    expansion: int = 1000
    columns: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A run of rows: `container` is `lines` (one column, `line`), `columns`, or `texts` (`id`, `data`); `first_row` counts from 1."""

    container: str
    first_row: int
    table: pa.Table
    bytes: int


def container_of(path: Path) -> str:
    """`parquet`, `zstd`, `gzip` or `plain`, by the first bytes: names lie."""
    with path.open("rb") as stream:
        head = stream.read(4)
    if head == b"PAR1":
        return "parquet"
    if head == b"\x28\xb5\x2f\xfd":
        return "zstd"
    return "gzip" if head[:2] == b"\x1f\x8b" else "plain"


def holds_lines(path: Path, name: str) -> bool:
    """Whether a source file is lines as they come, neither packed nor one text."""
    return container_of(path) == "plain" and not _is_text(name)


def _is_text(name: str) -> bool:
    return name.lower().endswith(TEXT_SUFFIXES)


def cut(path: Path, *, name: str, limits: Limits) -> Iterator[Cut]:
    """Cut a source file into runs of rows of at most about 8 MiB; raises SourceError where it cannot be decoded or is empty."""
    container = container_of(path)
    rows = 0
    try:
        if container == "parquet":
            found = _cut_parquet(path, name, limits)
        elif container == "plain" and _is_text(name):
            found = _cut_text(path, name, limits)
        else:
            found = _cut_lines(path, container, name, limits)
        for piece in found:
            rows += piece.table.num_rows
            yield piece
    except (pa.ArrowException, OSError, EOFError) as error:
        message = f"{name} cannot be read as {container}: it is damaged or cut short ({error})"
        raise SourceError(message, param=name) from error
    if not rows:
        raise _empty(name)


def cut_texts(files: Iterable[tuple[str, bytes]]) -> Iterator[Cut]:
    """Runs of text files, (name, bytes) each, as rows: at most about 8 MiB of them, or one that is larger."""
    names: list[str] = []
    data: list[bytes] = []
    held, row = 0, 1
    for name, text in files:
        if names and held + len(text) > PIECE_BYTES:
            yield _texts(names, data, row)
            names, data, held, row = [], [], 0, row + len(names)
        names.append(name)
        data.append(text)
        held += len(text)
    if names:
        yield _texts(names, data, row)


def _texts(names: list[str], data: list[bytes], first_row: int) -> Cut:
    table = pa.table({"id": pa.array(names, pa.string()), "data": pa.array(data, pa.large_binary())})
    return Cut(container="texts", first_row=first_row, table=table, bytes=sum(map(len, data)))


def _cut_text(path: Path, name: str, limits: Limits) -> Iterator[Cut]:
    if path.stat().st_size > limits.line_bytes:
        message = f"{name} has more than {limits.line_bytes} bytes, more than a document may"
        raise SourceError(message, param=name)
    yield from cut_texts([(name, path.read_bytes().removeprefix(BOM))] if path.stat().st_size else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of lines as it lies in a plain file: its first byte, its bytes, its rows and the number (from 1) of the first, its CRC-32."""

    start: int
    bytes: int
    first_row: int
    rows: int
    checksum: int


class _Runs:
    """Runs of lines as they are found, block by block."""

    def __init__(self) -> None:
        self.found: list[Run] = []
        self.row = 1
        self.held = 0
        self._start = self._rows = self._checksum = 0
        self._open = False

    def passed(self, count: int) -> None:
        """Pass over bytes that belong to no run."""
        self._start += count

    def take(self, part: memoryview) -> None:
        """Take bytes into the run that is open."""
        if len(part):
            self.held += len(part)
            self._checksum = zlib.crc32(part, self._checksum)
            self._rows += int(np.count_nonzero(np.frombuffer(part, np.uint8) == NEWLINE))
            self._open = part[-1] != NEWLINE

    def close(self) -> None:
        """The run ends, with its last line whether that has a newline or not."""
        rows = self._rows + self._open
        run = Run(start=self._start, bytes=self.held, first_row=self.row, rows=rows, checksum=self._checksum)
        self.found.append(run)
        self.row, self._start = self.row + rows, self._start + self.held
        self.held = self._rows = self._checksum = 0


def runs_of_lines(path: Path, *, name: str, limits: Limits) -> tuple[list[Run], str, int]:
    """Where the runs of lines that `cut` would give lie in a plain file, with the sha256 (hexadecimal) and the bytes of all of it: read
    once, nothing kept. Raises SourceError where a line is too long or there is none."""
    digest, size, runs = hashlib.sha256(), 0, _Runs()
    most = _most(path.stat().st_size, limits)
    for block in _blocks(path, "plain"):
        digest.update(block)
        mark = len(BOM) if not size and block.startswith(BOM) else 0
        runs.passed(mark)
        size += len(block)
        if size - mark > most:
            raise _grown(name, most)
        end = block.rfind(b"\n", mark) + 1
        cuts = end > 0 and runs.held + len(block) - mark >= PIECE_BYTES
        view, end = memoryview(block), end if cuts else mark
        if cuts:
            runs.take(view[mark:end])
            runs.close()
        runs.take(view[end:])
        if runs.held > limits.line_bytes:
            raise _endless(name, runs.row, limits)
    if runs.held:
        runs.close()
    if not runs.found:
        raise _empty(name)
    return runs.found, digest.hexdigest(), size


def _blocks(path: Path, container: str) -> Iterator[bytes]:
    compression = None if container == "plain" else container
    with pa.input_stream(str(path), compression=compression) as stream:
        while block := stream.read(READ_BYTES):
            yield bytes(block)


def _grown(name: str, most: int) -> SourceError:
    return SourceError(f"{name} grows to more than {most} bytes when unpacked, more than a source may", param=name)


def _endless(name: str, row: int, limits: Limits) -> SourceError:
    return SourceError(f"{name}, row {row}: a line of more than {limits.line_bytes} bytes", param=f"{name}:{row}")


def _empty(name: str) -> SourceError:
    return SourceError(f"{name} is empty: a source has at least one row", param=name)


def _cut_lines(path: Path, container: str, name: str, limits: Limits) -> Iterator[Cut]:
    most = _most(path.stat().st_size, limits)
    pending, row, total = b"", 1, 0
    for block in _blocks(path, container):
        if not total:
            block = block.removeprefix(BOM)
        total += len(block)
        if total > most:
            raise _grown(name, most)
        pending += block
        if len(pending) < PIECE_BYTES:
            continue
        end = pending.rfind(b"\n") + 1
        if end:
            piece = _lines(pending[:end], row)
            yield piece
            row, pending = row + piece.table.num_rows, pending[end:]
        if len(pending) > limits.line_bytes:
            raise _endless(name, row, limits)
    if pending:
        yield _lines(pending, row)


def _lines(data: bytes, first_row: int) -> Cut:
    return Cut(container="lines", first_row=first_row, table=lines_table(data), bytes=len(data))


def lines_table(data: bytes) -> pa.Table:
    """Lines with their newlines, as one binary column, `line`, over the very bytes that were read."""
    ends = places(np.frombuffer(data, np.uint8) == NEWLINE) + 1
    if not len(ends) or ends[-1] != len(data):
        ends = np.append(ends, len(data))
    offsets = np.concatenate([np.zeros(1, np.int64), ends.astype(np.int64)])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.table({"line": pa.Array.from_buffers(pa.large_binary(), len(ends), buffers)})


def _cut_parquet(path: Path, name: str, limits: Limits) -> Iterator[Cut]:
    parquet = pq.ParquetFile(path, page_checksum_verification=True)
    size = path.stat().st_size
    _check_footer(parquet, size, name, limits)
    row, total = 1, 0
    pending: list[pa.RecordBatch] = []
    # A dictionary lets a small file stand for a large one without its footer saying so: what is unpacked is counted as it comes.
    for batch in parquet.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
        total += batch.nbytes
        if total > _most(size, limits):
            message = f"{name} grows to more than {_most(size, limits)} bytes when unpacked, more than a file of {size} bytes may"
            raise SourceError(message, param=name)
        _check_texts(batch, name, row + sum(b.num_rows for b in pending))
        if pending and sum(b.nbytes for b in pending) + batch.nbytes > PIECE_BYTES:
            yield _columns(pending, row)
            row, pending = row + sum(b.num_rows for b in pending), []
        pending.append(batch)
    if pending:
        yield _columns(pending, row)


def _check_texts(batch: pa.RecordBatch, name: str, first_row: int) -> None:
    """Raise SourceError for a column of texts that are none: Parquet's readers believe every writer that its strings are UTF-8."""
    for field, column in zip(batch.schema, batch.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            rows = f"rows {first_row} to {first_row + batch.num_rows - 1}"
            message = f"{name}, {rows}: column {field.name!r} does not hold what its type says ({error})"
            raise SourceError(message, param=name) from error


def _columns(batches: list[pa.RecordBatch], first_row: int) -> Cut:
    table = pa.Table.from_batches(batches)
    return Cut(container="columns", first_row=first_row, table=table, bytes=table.nbytes)


def _most(size: int, limits: Limits) -> int:
    """Bytes that a file of `size` bytes may unpack to."""
    return min(limits.bytes, max(size, 4096) * limits.expansion)


def _check_footer(parquet: pq.ParquetFile, size: int, name: str, limits: Limits) -> None:
    """A footer claims how large the data is: believe no claim that a file of this size should not make."""
    metadata = parquet.metadata
    claimed = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if claimed > _most(size, limits):
        message = f"{name} claims {claimed} bytes of data, more than a file of {size} bytes may ({_most(size, limits)})"
        raise SourceError(message, param=name)
    if len(parquet.schema_arrow) > limits.columns:
        message = f"{name} has {len(parquet.schema_arrow)} columns, more than {limits.columns}"
        raise SourceError(message, param=name)
    for field in parquet.schema_arrow:
        if _has_extension(field.type):
            message = f"{name}: column {field.name!r} is of the extension type {field.type}; plain types only"
            raise SourceError(message, param=name)


def _has_extension(kind: pa.DataType) -> bool:
    children: list[Any] = [kind.field(i) for i in range(kind.num_fields)]
    return isinstance(kind, pa.BaseExtensionType) or any(_has_extension(child.type) for child in children)
