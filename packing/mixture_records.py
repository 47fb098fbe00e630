"""Rows of tokens as one run of int32 each, so that a shard can read just its own out of what a survey kept."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.chat_tokens import offsets_of, within
from packing.kept import read_kept
from packing.plan import Inputs
from packing.token_rows import TokenRows

_BY_TOKEN = ("ids", "labels", "positions")
_BY_BLOCK = ("roles", "block_lengths", "biases")


def record_lengths(
    n_tokens: NDArray[np.int64], sequences: NDArray[np.int64], blocks: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Numbers that the record of each row has, int64 [R]."""
    return len(_BY_TOKEN) * n_tokens + sequences + len(_BY_BLOCK) * blocks


def records(rows: TokenRows) -> NDArray[np.int32]:
    """The records of all rows, end to end, int32: ids, labels, positions, sequence lengths, roles, block lengths, biases."""
    parts = [(getattr(rows, name), rows.tokens) for name in _BY_TOKEN]
    parts.append((rows.lengths, rows.sequences))
    parts += [(getattr(rows, name), rows.blocks) for name in _BY_BLOCK]
    counts = np.stack([np.diff(offsets) for _, offsets in parts])
    begin = offsets_of(counts.sum(axis=0))[:-1]
    found = np.empty(int(counts.sum()), np.int32)
    for (values, _), count in zip(parts, counts, strict=True):
        found[np.repeat(begin, count) + within(count)] = values
        begin = begin + count
    return found


def read_rows(table: pa.Table, inputs: Inputs) -> TokenRows:
    """The rows that a shard's table names, in its order; raises SourceError where a record is not what its checksum says."""

    def column(name: str) -> NDArray[np.int64]:
        return table.column(name).to_numpy().astype(np.int64)

    counts = {name: column(name) for name in ("n_tokens", "sequences", "blocks")}
    lengths = record_lengths(counts["n_tokens"], counts["sequences"], counts["blocks"])
    found = read_kept(inputs, table, lengths)
    begin, values = offsets_of(lengths)[:-1], dict[str, NDArray[np.int32]]()
    layout = [(name, counts["n_tokens"]) for name in _BY_TOKEN]
    layout += [("lengths", counts["sequences"]), *((name, counts["blocks"]) for name in _BY_BLOCK)]
    for name, count in layout:
        values[name] = found[np.repeat(begin, count) + within(count)]
        begin = begin + count
    return TokenRows(
        **values,
        tokens=offsets_of(counts["n_tokens"]),
        sequences=offsets_of(counts["sequences"]),
        blocks=offsets_of(counts["blocks"]),
        reasons=_one(table.column("reasons")),
        names=_one(table.column("source_ids")),
        index=column("row"),
    )


def _one(column: pa.ChunkedArray) -> pa.ListArray:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
