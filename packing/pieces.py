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
    inputs: Inputs, index: NDArray[np.int64], *, most: int, most_bytes: int | None = None, multiple: int = 1
) -> Iterator[RowSpan]:
    """The source rows `index` int64 [n] (rising, from 0 over all pieces), about `most` at a time, each span within one piece; about
    `most_bytes` where rows are as long as the piece's are on average. But where pieces meet, spans begin at multiples of one number, which
    divides `multiple` or is a multiple of it."""
    for piece in inputs.pieces:
        begin, end = np.searchsorted(index, [piece.first_index, piece.first_index + piece.rows]).tolist()
        if begin == end:
            continue
        table = inputs.read(piece)
        fit = most if most_bytes is None else min(most, 1 + most_bytes * piece.rows // max(piece.bytes, 1))
        for start, stop in pairwise(_cuts(begin, end, _rounded(fit, multiple))):
            chosen = index[start:stop]
            local = chosen - piece.first_index
            together = int(local[-1] - local[0]) == len(local) - 1
            part = table.slice(int(local[0]), len(local)) if together else table.take(pa.array(local))
            yield RowSpan(piece=piece, row=piece.first_row + local, index=chosen, table=part)


def _rounded(step: int, multiple: int) -> int:
    """About `step`: a multiple of the number, or a part of it."""
    return step // multiple * multiple if step >= multiple else -(-multiple // -(-multiple // step))


def _cuts(begin: int, end: int, step: int) -> list[int]:
    """Where spans of rows between `begin` and `end` meet: at multiples of `step`, unless a quarter of that or less would be left before or
    behind, for a batch has its price."""
    few = step // 4
    return [
        begin,
        *(at for at in range(begin // step * step + step, end, step) if at - begin > few and end - at > few),
        end,
    ]
