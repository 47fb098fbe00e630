"""Runs of numbers that surveys kept, read back by any shard and checked."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.dataset.errors import SourceError
from packing.plan import Inputs
from packing.runs import offsets_of, runs_of

Kept = NDArray[np.uint16 | np.int32]


def narrowed(values: NDArray[np.int32]) -> Kept:
    """Numbers as they are kept: in two bytes where all of them fit, as ids of vocabularies up to 65,536 do."""
    fit = not len(values) or (int(values.min()) >= 0 and int(values.max()) < 2**16)
    return values.astype(np.uint16) if fit else values


def checksums(values: Kept, lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The CRC-32 of every run of `values` (as they are kept), end to end and `lengths` int64 [R] long: uint32 [R]."""
    edge = offsets_of(lengths).tolist()
    return np.array([zlib.crc32(values[a:b].data) for a, b in itertools.pairwise(edge)], np.uint32)


def kept_runs(
    inputs: Inputs, table: pa.Table, lengths: NDArray[np.int64], *, behind: NDArray[np.int32] | None = None
) -> tuple[Kept, NDArray[np.int64]]:
    """The runs that the rows of `table` name by `survey`, `offset` there, and `checksum`: numbers as they were kept, in no order, then
    those of `behind`; and where every run begins, int64 [R].

    Raises SourceError where a run is not what its checksum says.
    """
    offset, survey = (table.column(name).to_numpy().astype(np.int64) for name in ("offset", "survey"))
    expected = table.column("checksum").to_numpy()
    starts, found, end = np.zeros(len(lengths), np.int64), list[Kept](), 0
    for number in np.unique(survey).tolist():
        of = np.flatnonzero(survey == number)
        of = of[np.argsort(offset[of], kind="stable")]
        kept = inputs.kept(number, np.stack([offset[of], offset[of] + lengths[of]], axis=1))
        if not np.array_equal(checksums(kept, lengths[of]), expected[of]):
            message = "what was kept of the source while it was surveyed is damaged in the store"
            raise SourceError(message)
        starts[of] = end + offsets_of(lengths[of])[:-1]
        found.append(kept)
        end += len(kept)
    if behind is not None or not found:
        found.append(narrowed(np.zeros(0, np.int32) if behind is None else behind))
    return found[0] if len(found) == 1 else np.concatenate(found), starts


def read_kept(inputs: Inputs, table: pa.Table, lengths: NDArray[np.int64]) -> NDArray[np.int32]:
    """The same runs end to end in the table's order, int32."""
    values, starts = kept_runs(inputs, table, lengths)
    return runs_of(values, starts, lengths).astype(np.int32, copy=False)
