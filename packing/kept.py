"""Runs of numbers that surveys kept, read back by any shard and checked."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.dataset.errors import SourceError
from packing.plan import Inputs
from packing.runs import offsets_of


def checksums(values: NDArray[np.int32], lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The CRC-32 of every run of `values` int32, end to end and `lengths` int64 [R] long: uint32 [R]."""
    edge = offsets_of(lengths).tolist()
    return np.array([zlib.crc32(values[a:b].data) for a, b in itertools.pairwise(edge)], np.uint32)


def read_kept(inputs: Inputs, table: pa.Table, lengths: NDArray[np.int64]) -> NDArray[np.int32]:
    """The runs that the rows of `table` name, end to end in its order, int32: by `survey`, `offset` there, and `checksum`.

    Raises SourceError where a run is not what its checksum says.
    """
    offset, survey = (table.column(name).to_numpy().astype(np.int64) for name in ("offset", "survey"))
    edge = offsets_of(lengths)
    found = np.empty(int(edge[-1]), np.int32)
    for number in np.unique(survey).tolist():
        of = np.flatnonzero(survey == number)
        of = of[np.argsort(offset[of], kind="stable")]
        kept = inputs.kept(number, np.stack([offset[of], offset[of] + lengths[of]], axis=1))
        places = zip(edge[of].tolist(), offsets_of(lengths[of]).tolist(), lengths[of].tolist(), strict=False)
        for place, start, length in places:
            found[place : place + length] = kept[start : start + length]
    if not np.array_equal(checksums(found, lengths), table.column("checksum").to_numpy()):
        message = "what was kept of the source while it was surveyed is damaged in the store"
        raise SourceError(message)
    return found
