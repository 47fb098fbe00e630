"""Rows of tokens of any of our kinds, or of somebody else's, as rows of the skipalign schema, so that a trainer sees one schema.

`input_ids` is needed. `labels` default to the ids, `seq_lengths` to one sequence, `position_ids` to contiguous ones; blocks are the runs of
contiguous positions, of role `text`, where a row does not say what its blocks are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.chat_tokens import offsets_of, within
from packing.dataset.errors import InputError
from packing.positions import NO_GAP, REASONS

IGNORED = -100
ROLES = ("user", "assistant", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRows:
    """R rows as flat arrays: `ids`, `labels`, `positions` int32 [T] by `tokens` int64 [R + 1]; `lengths` int32 by `sequences` int64
    [R + 1]; blocks by `blocks` int64 [R + 1], `roles` int32 (numbers of ROLES), `block_lengths` and `biases` int32; `reasons` and `names`
    are lists of strings, one list a row; `index` int64 [R] the row in its source."""

    ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    positions: NDArray[np.int32]
    tokens: NDArray[np.int64]
    lengths: NDArray[np.int32]
    sequences: NDArray[np.int64]
    roles: NDArray[np.int32]
    block_lengths: NDArray[np.int32]
    biases: NDArray[np.int32]
    blocks: NDArray[np.int64]
    reasons: pa.ListArray
    names: pa.ListArray
    index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)


def has_tokens(table: pa.Table, container: str) -> bool:
    """Whether the rows of a piece are tokens already."""
    return container == "columns" and "input_ids" in table.column_names


def from_table(table: pa.Table, index: NDArray[np.int64], *, name: str, vocab_size: int) -> TokenRows:
    """The rows of a table of tokens; raises InputError naming the column that cannot be what it should be."""
    table = table.combine_chunks()
    read = _Reader(table, name)
    ids, tokens = read.numbers("input_ids")
    if len(ids) and (ids.min() < 0 or ids.max() >= vocab_size):
        message = f"{name} holds token {int(ids.max())}, the tokenizer has {vocab_size}: another one made it"
        raise InputError(message, param=name)
    if read.has("seq_lengths"):
        lengths, sequences = read.numbers("seq_lengths")
    else:
        lengths, sequences = np.diff(tokens).astype(np.int32), np.arange(table.num_rows + 1)
    ends = offsets_of(lengths.astype(np.int64))
    if (lengths < 1).any() or not np.array_equal(ends[sequences], tokens):
        message = f"{name}: seq_lengths do not add up to the tokens of every row"
        raise InputError(message, param=name)
    labels = read.numbers("labels", like=tokens)[0].copy() if read.has("labels") else ids.copy()
    labels[ends[:-1]] = IGNORED  # nothing predicts the first token of a sequence
    plain = within(lengths.astype(np.int64)).astype(np.int32)
    positions = read.numbers("position_ids", like=tokens)[0] if read.has("position_ids") else plain
    rows = TokenRows(
        ids=ids,
        labels=labels,
        positions=positions,
        tokens=tokens,
        lengths=lengths,
        sequences=sequences,
        **(read.blocks() if read.has("blocks") else _runs(positions, plain, lengths, ends, tokens)),  # pyright: ignore[reportArgumentType]
        reasons=_no_strings(table.num_rows),
        names=read.names(index),
        index=index,
    )
    return replace(rows, reasons=read.strings("reasons") if read.has("reasons") else reasons_of(rows))


class _Reader:
    """The columns of a table of tokens as flat arrays."""

    def __init__(self, table: pa.Table, name: str) -> None:
        self._table = table
        self._name = name

    def has(self, column: str) -> bool:
        return column in self._table.column_names

    def _array(self, column: str) -> pa.Array:
        array = self._table.column(column).combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
        kind = array.type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or array.null_count:
            message = f"{self._name}: column {column!r} holds {kind}, not a list in every row"
            raise InputError(message, param=self._name)
        return array

    def numbers(
        self, column: str, *, like: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The values int32 and offsets int64 of a column; where it has to be as long as the tokens, that is checked."""
        array = self._array(column)
        values = array.flatten()
        if not pa.types.is_integer(values.type) or values.null_count:
            message = f"{self._name}: column {column!r} holds {array.type}, not lists of whole numbers"
            raise InputError(message, param=self._name)
        offsets = array.offsets.to_numpy().astype(np.int64)
        offsets = offsets - offsets[0]
        if like is not None and not np.array_equal(offsets, like):
            message = f"{self._name}: {column} and input_ids differ in length"
            raise InputError(message, param=self._name)
        return values.to_numpy().astype(np.int32, copy=False), offsets

    def blocks(self) -> dict[str, NDArray[np.int32] | NDArray[np.int64]]:
        array = self._array("blocks")
        offsets = array.offsets.to_numpy().astype(np.int64)
        role, _, length, bias = array.flatten().flatten()
        roles = role.dictionary_encode()
        known = np.array(
            [ROLES.index(text) if text in ROLES else -1 for text in roles.dictionary.to_pylist()], np.int32
        )
        if (known < 0).any():
            message = f"{self._name}: blocks have roles {roles.dictionary.to_pylist()}, not of {', '.join(ROLES)}"
            raise InputError(message, param=self._name)
        return {
            "roles": known[roles.indices.to_numpy()] if len(role) else np.zeros(0, np.int32),
            "block_lengths": length.to_numpy().astype(np.int32),
            "biases": bias.to_numpy().astype(np.int32),
            "blocks": offsets - offsets[0],
        }

    def strings(self, column: str) -> pa.ListArray:
        return self._array(column).cast(pa.list_(pa.string()))

    def names(self, index: NDArray[np.int64]) -> pa.ListArray:
        """What the samples of every row are called: its source ids, the documents of its segments, its id, or else its number from 1."""
        if self.has("source_ids"):
            return self.strings("source_ids")
        if self.has("segments"):
            array = self._array("segments")
            offsets = array.offsets.to_numpy() - array.offsets[0].as_py()
            return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), array.flatten().field("document"))
        ids = self._table.column("id").to_pylist() if self.has("id") else (index + 1).tolist()
        return pa.array([[str(value)] for value in ids], pa.list_(pa.string()))


def _no_strings(rows: int) -> pa.ListArray:
    return pa.array([[]] * rows, pa.list_(pa.string()))


def _runs(
    positions: NDArray[np.int32],
    plain: NDArray[np.int32],
    lengths: NDArray[np.int32],
    ends: NDArray[np.int64],
    tokens: NDArray[np.int64],
) -> dict[str, NDArray[np.int32] | NDArray[np.int64]]:
    """Blocks where there are none: the runs of contiguous positions in every sequence."""
    bias = positions - plain
    opens = np.zeros(len(positions), bool)
    opens[ends[:-1][lengths > 0]] = True
    opens[1:] |= np.diff(bias) != 0
    first = np.flatnonzero(opens)
    return {
        "roles": np.full(len(first), ROLES.index("text"), np.int32),
        "block_lengths": np.diff(np.append(first, len(positions))).astype(np.int32),
        "biases": bias[first].astype(np.int32),
        "blocks": np.searchsorted(first, tokens),
    }


def jumps(rows: TokenRows) -> NDArray[np.bool_]:
    """Whether positions jump in the conversation that each sequence is of: bool [sequences]. A conversation is a sequence that starts at
    position 0, and those behind it in the row that count on."""
    ends = offsets_of(rows.lengths.astype(np.int64))
    opens = rows.positions[ends[:-1]] == 0
    opens[rows.sequences[:-1][np.diff(rows.sequences) > 0]] = True
    conversation = np.cumsum(opens) - 1
    size = np.bincount(conversation, weights=rows.lengths).astype(np.int64)
    last = np.zeros(len(size), np.int64)
    np.maximum.at(last, conversation, rows.positions[ends[1:] - 1])
    return (last > size - 1)[conversation]


def reasons_of(rows: TokenRows) -> pa.ListArray:
    """Why each sequence is not skipped, where nothing else is known: it has no gap; empty where it is."""
    texts = pa.array(list(REASONS)).take(pa.array(np.where(jumps(rows), 0, NO_GAP)))
    return pa.ListArray.from_arrays(pa.array(rows.sequences.astype(np.int32)), texts)


def truncated(rows: TokenRows, most: int) -> TokenRows:
    """The first `most` tokens of every row; sequences and blocks are cut with them, and those behind the cut vanish."""
    counts = np.diff(rows.tokens)
    if not (counts > most).any():
        return rows
    kept = within(counts) < most

    def cut(
        lengths: NDArray[np.int32], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
        row = np.repeat(np.arange(len(rows)), np.diff(offsets))
        start = offsets_of(lengths.astype(np.int64))[:-1] - rows.tokens[row]
        left = np.clip(most - start, 0, lengths)
        there = left > 0
        return left[there].astype(np.int32), offsets_of(np.bincount(row[there], minlength=len(rows))), there

    lengths, sequences, stays = cut(rows.lengths, rows.sequences)
    block_lengths, blocks, there = cut(rows.block_lengths, rows.blocks)
    short = replace(
        rows,
        ids=rows.ids[kept],
        labels=rows.labels[kept],
        positions=rows.positions[kept],
        tokens=offsets_of(np.minimum(counts, most)),
        lengths=lengths,
        sequences=sequences,
        roles=rows.roles[there],
        block_lengths=block_lengths,
        biases=rows.biases[there],
        blocks=blocks,
    )
    # A jump may have been cut off with what lay behind it.
    before = rows.reasons.flatten().filter(pa.array(stays))
    texts = [
        "" if jumped else (reason or REASONS[NO_GAP])
        for reason, jumped in zip(before.to_pylist(), jumps(short).tolist(), strict=True)
    ]
    reasons = pa.ListArray.from_arrays(pa.array(sequences.astype(np.int32)), pa.array(texts, pa.string()))
    return replace(short, reasons=reasons)


def selected(rows: TokenRows, chosen: NDArray[np.int64]) -> TokenRows:
    """The rows `chosen` in that order."""

    def take(offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        counts = np.diff(offsets)[chosen]
        return np.repeat(offsets[:-1][chosen], counts) + within(counts), offsets_of(counts)

    token, tokens = take(rows.tokens)
    sequence, sequences = take(rows.sequences)
    block, blocks = take(rows.blocks)
    picked = pa.array(chosen)
    return TokenRows(
        ids=rows.ids[token],
        labels=rows.labels[token],
        positions=rows.positions[token],
        tokens=tokens,
        lengths=rows.lengths[sequence],
        sequences=sequences,
        roles=rows.roles[block],
        block_lengths=rows.block_lengths[block],
        biases=rows.biases[block],
        blocks=blocks,
        reasons=rows.reasons.take(picked),
        names=rows.names.take(picked),
        index=rows.index[chosen],
    )


def joined(parts: Sequence[TokenRows]) -> TokenRows:
    """Rows end to end; at least one part."""

    def values(name: str) -> NDArray[np.int32]:
        return np.concatenate([getattr(part, name) for part in parts])

    def offsets(name: str) -> NDArray[np.int64]:
        return offsets_of(np.concatenate([np.diff(getattr(part, name)) for part in parts]))

    return TokenRows(
        ids=values("ids"),
        labels=values("labels"),
        positions=values("positions"),
        tokens=offsets("tokens"),
        lengths=values("lengths"),
        sequences=offsets("sequences"),
        roles=values("roles"),
        block_lengths=values("block_lengths"),
        biases=values("biases"),
        blocks=offsets("blocks"),
        reasons=pa.concat_arrays([part.reasons for part in parts]),
        names=pa.concat_arrays([part.names for part in parts]),
        index=np.concatenate([part.index for part in parts]),
    )
