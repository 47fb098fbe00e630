"""Rows by number across the pieces of a source: rows are counted from 0 over all pieces, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.plan import Inputs, Piece

SHARD_BYTES = 8 * 1024 * 1024
"""Source bytes of a shard: some seconds' work with the reference tokenizer."""
MOST_ROWS = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSpan:
    """Some rows of one piece: their numbers in its file (`row`, from 1) and over all pieces (`index`, from 0), int64 [n]."""

    piece: Piece
    row: NDArray[np.int64]
    index: NDArray[np.int64]
    table: pa.Table


def total_rows(pieces: Sequence[Piece]) -> int:
    """Rows of all pieces."""
    return sum(piece.rows for piece in pieces)


def rows_per_shard(pieces: Sequence[Piece]) -> int:
    """How many rows of this source make a shard of about SHARD_BYTES: a function of the source alone."""
    rows, size = total_rows(pieces), sum(piece.bytes for piece in pieces)
    return max(1, min(MOST_ROWS, SHARD_BYTES * rows // max(size, 1)))


def rows_at(
    inputs: Inputs, index: NDArray[np.int64], *, most: int, first: int | None = None, most_bytes: int | None = None
) -> Iterator[RowSpan]:
    """The source rows `index` int64 [n] (rising, from 0 over all pieces), at most `most` at a time and `first` of them at first, each
    span within one piece; about `most_bytes` at most where rows are as long as the piece's are on average."""
    wanted = most
    first = most if first is None else first
    for piece in inputs.pieces:
        most = wanted if most_bytes is None else min(wanted, 1 + most_bytes * piece.rows // max(piece.bytes, 1))
        begin, end = np.searchsorted(index, [piece.first_index, piece.first_index + piece.rows])
        if begin == end:
            continue
        table = inputs.read(piece)
        starts = [begin, *range(begin + min(first, most), end, most)] if begin == 0 else range(begin, end, most)
        for start, stop in pairwise([*starts, end]):
            chosen = index[start:stop]
            local = chosen - piece.first_index
            together = int(local[-1] - local[0]) == len(local) - 1
            part = table.slice(int(local[0]), len(local)) if together else table.take(pa.array(local))
            yield RowSpan(piece=piece, row=piece.first_row + local, index=chosen, table=part)
