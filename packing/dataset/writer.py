"""The one canonical Parquet writer: the same rows give the same bytes, however they arrive in batches.

Bytes depend on how rows meet row groups, so the groups are cut here and nowhere else: a group closes after `GROUP_ROWS` rows or with
the row that reaches `GROUP_TOKENS` tokens. zstd, page checksums on (without them 60 of 60 flipped bits were read as if right), no
dictionary on token columns, nothing of the clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from packing.dataset.digest import ContentDigest
from packing.dataset.schema import SPLIT_COLUMNS

GROUP_ROWS = 1024
GROUP_TOKENS = 4 * 1024 * 1024
ZSTD_LEVEL = 1
"""Level 3 takes 35% longer for 4% less; ids are what they are."""
POSITIONS_LEVEL = 5
"""The first that finds what repeats in positions: a quarter less than level 1, for a third more of a column that is cheap."""
PAGE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a finished shard is known by."""

    rows: int
    tokens: int
    bytes: int
    sha256: str
    content_sha256: str


class _HashingStream:
    """A binary stream that hashes and counts what passes on to `sink`."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._sha256 = hashlib.sha256()
        self.bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._sha256.update(view)
        self.bytes += view.nbytes
        self._sink.write(view)
        return view.nbytes

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        self._sink.flush()

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def leaf_paths(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Parquet's path of every leaf column, with its Arrow type."""
    leaves: dict[str, pa.DataType] = {}

    def descend(path: str, kind: pa.DataType) -> None:
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            descend(f"{path}.list.element", kind.value_type)
        elif pa.types.is_struct(kind):
            for child in kind:
                descend(f"{path}.{child.name}", child.type)
        else:
            leaves[path] = kind

    for field in schema:
        descend(field.name, field.type)
    return leaves


def encodings(schema: pa.Schema) -> dict[str, Any]:
    """How the columns of a schema lie on disk, as pyarrow's writer wants it told: dictionary for strings only, tokens byte by byte."""
    leaves = leaf_paths(schema)
    split = [path for path in leaves if path.split(".")[0] in SPLIT_COLUMNS]
    levels = {path: POSITIONS_LEVEL if path.startswith("position_ids.") else ZSTD_LEVEL for path in leaves}
    return {
        "compression": "zstd",
        "compression_level": levels,
        "data_page_size": PAGE_BYTES,
        "use_dictionary": [path for path, kind in leaves.items() if pa.types.is_string(kind)],
        "column_encoding": dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
    }


def write_shard(batches: Iterable[pa.RecordBatch], schema: pa.Schema, sink: IO[bytes]) -> Written:
    """Write `batches` as one Parquet file to the binary stream `sink`, hashing while writing.

    Rows keep their order. A column `n_tokens` (int32), where there is one, counts the tokens and bounds the row groups.
    """
    stream = _HashingStream(sink)
    content = ContentDigest(schema)
    rows = tokens = 0
    options = encodings(schema)
    with pq.ParquetWriter(
        pa.PythonFile(stream, mode="w"),
        schema,
        write_page_checksum=True,
        write_statistics=True,
        **options,
    ) as writer:
        for group in row_groups(batches, schema):
            writer.write_table(group, row_group_size=max(1, group.num_rows))
            for batch in group.to_batches():
                content.update(batch)
            rows += group.num_rows
            tokens += int(_row_tokens(group).sum())
    return Written(
        rows=rows, tokens=tokens, bytes=stream.bytes, sha256=stream.hexdigest(), content_sha256=content.hexdigest()
    )


def _row_tokens(table: pa.Table | pa.RecordBatch) -> NDArray[np.int64]:
    if "n_tokens" not in table.schema.names:
        return np.zeros(table.num_rows, np.int64)
    return table.column("n_tokens").to_numpy().astype(np.int64)


def group_ends(tokens: NDArray[np.int64]) -> list[int]:
    """Where row groups end among rows of so many `tokens` int64 [R], the first of which begins a group; the last end is R."""
    ends = [0]
    while ends[-1] < len(tokens):
        ends.append(ends[-1] + _fitting(tokens[ends[-1] : ends[-1] + GROUP_ROWS], 0, 0))
    return ends[1:]


def closed_rows(tokens: NDArray[np.int64]) -> int:
    """How many of the rows of so many `tokens` int64 [R], the first of which begins a group, are of groups that take no further row."""
    ends = [0, *group_ends(tokens)]
    last = tokens[ends[-2] :] if len(ends) > 1 else tokens
    return ends[-1] if len(last) == GROUP_ROWS or int(last.sum()) >= GROUP_TOKENS else ends[max(0, len(ends) - 2)]


def _fitting(tokens: NDArray[np.int64], rows: int, held: int) -> int:
    """How many of the rows at hand, of so many `tokens` int64 [R] each, go into a group that has `rows` rows and `held` tokens."""
    fits = int(np.searchsorted(np.cumsum(tokens) + held, GROUP_TOKENS, side="left")) + 1
    return min(fits, GROUP_ROWS - rows, len(tokens))


def row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterable[pa.Table]:
    """Cut a stream of batches into tables of one row group each; where batches end leaves no trace."""
    pending: list[pa.RecordBatch] = []
    pending_rows = pending_tokens = 0
    for batch in batches:
        sizes = _row_tokens(batch)
        start = 0
        while start < batch.num_rows:
            take = _fitting(sizes[start:], pending_rows, pending_tokens)
            pending.append(batch.slice(start, take))
            pending_rows += take
            pending_tokens += int(sizes[start : start + take].sum())
            start += take
            if pending_rows >= GROUP_ROWS or pending_tokens >= GROUP_TOKENS:
                yield pa.Table.from_batches(pending, schema).combine_chunks()
                pending, pending_rows, pending_tokens = [], 0, 0
    if pending:
        yield pa.Table.from_batches(pending, schema).combine_chunks()
