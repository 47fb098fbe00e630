"""Arrays that are runs of numbers end to end: where each begins, and copies of some of them."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)
FEW = 16_384
"""Numbers up to which numpy takes values sooner than Arrow."""


def within(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, …, c - 1 for each count c, end to end: [2, 3] gives [0, 1, 0, 1, 2]."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def offsets_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each run begins, and the end: int64 [len(counts) + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def runs_of(values: NDArray[Number], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[Number]:
    """The runs of `values` that begin at `starts` int64 [R] and are `lengths` int64 [R] long, end to end.

    Runs are hundreds of numbers long, so copying one by one beats an index for every number by far; neighbours are copied in one go.
    """
    ends = starts + lengths
    opens = np.flatnonzero(np.append(True, starts[1:] != ends[:-1])[: len(starts)])
    closes = np.append(opens[1:], len(starts))[: len(opens)] - 1
    parts = [values[a:b] for a, b in zip(starts[opens].tolist(), ends[closes].tolist(), strict=True)]
    return np.concatenate(parts) if parts else values[:0]


def places(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where `flags` bool [n] are set, int64 rising: np.flatnonzero for flags of which few are, which are looked at eight at a time."""
    whole = len(flags) // 8 * 8
    eights = np.ascontiguousarray(flags[:whole]).view(np.uint64)
    some = np.flatnonzero(eights != 0)
    found = np.flatnonzero(eights[some].view(np.bool_))
    return np.concatenate([some[found >> 3] * 8 + (found & 7), whole + np.flatnonzero(flags[whole:])])


def taken(values: NDArray[np.int32], numbers: NDArray[np.int32]) -> NDArray[np.int32]:
    """`values[numbers]`, int32 [numbers]; raises IndexError where a number is none of theirs."""
    if len(numbers) and int(numbers.view(np.uint32).max()) >= len(values):
        message = f"a number of {len(values)} values is negative or too large"
        raise IndexError(message)
    if len(numbers) < FEW:
        return values.take(numbers)
    # Arrow takes half the time of numpy, which makes eight bytes of every number before it looks; its call costs more.
    options = pc.TakeOptions(boundscheck=False)
    return pc.call_function("take", [pa.array(values), pa.array(numbers)], options).to_numpy()
