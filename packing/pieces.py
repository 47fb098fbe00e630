"""Rows by number across the pieces of a source: rows are counted from 0 over all pieces, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa

from packing.plan import Inputs, Piece

SHARD_BYTES = 8 * 1024 * 1024
"""Source bytes of a shard: some seconds' work with the reference tokenizer."""
MOST_ROWS = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSpan:
    """Consecutive rows of one piece: `first_row` in its file (from 1), `first_index` over all pieces (from 0)."""

    piece: Piece
    first_row: int
    first_index: int
    table: pa.Table


def total_rows(pieces: Sequence[Piece]) -> int:
    """Rows of all pieces."""
    return sum(piece.rows for piece in pieces)


def rows_per_shard(pieces: Sequence[Piece]) -> int:
    """How many rows of this source make a shard of about SHARD_BYTES: a function of the source alone."""
    rows, size = total_rows(pieces), sum(piece.bytes for piece in pieces)
    return max(1, min(MOST_ROWS, SHARD_BYTES * rows // max(size, 1)))


def rows_between(inputs: Inputs, first: int, rows: int, *, most: int) -> Iterator[RowSpan]:
    """Source rows first..first + rows, at most `most` at a time, each span within one piece."""
    ends = list(accumulate(piece.rows for piece in inputs.pieces))
    for piece, end in zip(inputs.pieces, ends, strict=True):
        begin = end - piece.rows
        low, high = max(first, begin), min(first + rows, end)
        if low >= high:
            continue
        table = inputs.read(piece)
        for start in range(low, high, most):
            count = min(most, high - start)
            yield RowSpan(
                piece=piece,
                first_row=piece.first_row + start - begin,
                first_index=start,
                table=table.slice(start - begin, count),
            )
