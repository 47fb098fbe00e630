"""Rows of the skipalign schema: putting them together from flat arrays, and holding them to their invariants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from packing.chat_tokens import offsets_of
from packing.dataset import schema
from packing.dataset.errors import DatasetError
from packing.positions import REASONS, SKIPPED, Placement

IGNORED = -100
_TO_HIGHEST = np.array(np.iinfo(np.int32).max - IGNORED).astype(np.int32)
"""What lies between IGNORED and the largest number; int32 wraps around."""


def lists(offsets: NDArray[np.int64], values: pa.Array, kind: pa.DataType) -> pa.Array:
    """A list column of `kind` from flat values and offsets int64 [R + 1]."""
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, type=kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How tokens make rows, as offsets: `tokens` int64 [S + 1] of S samples, `units` int64 [U + 1] into samples, `rows` int64 [R + 1] into
    units, and `sequences` int64 [A + 1] into samples: what attention keeps apart. A sequence lies within a unit."""

    tokens: NDArray[np.int64]
    units: NDArray[np.int64]
    rows: NDArray[np.int64]
    sequences: NDArray[np.int64]


def assemble(
    *,
    ids: NDArray[np.int32],
    trained: NDArray[np.bool_],
    layout: Layout,
    placement: Placement,
    source_ids: Sequence[str],
    trained_role: str,
) -> pa.RecordBatch:
    """Rows from flat arrays: tokens [T], their layout, the placement of its units, the samples' names. Blocks that are no prompt have
    the role `trained_role`: `assistant`, or `text` where rows are documents."""
    row_samples = layout.units[layout.rows]
    row_tokens = layout.tokens[row_samples]
    sequence_tokens = layout.tokens[layout.sequences]
    row_sequences = np.searchsorted(sequence_tokens, row_tokens)
    unit_of_sequence = np.searchsorted(layout.units, layout.sequences[:-1], side="right") - 1
    labels = labels_of(ids, trained)
    row_blocks = placement.sequences.offsets[layout.rows]
    first, lengths = offsets_of(placement.sequences.lengths)[:-1], placement.sequences.lengths
    start = first - np.repeat(row_tokens[:-1], np.diff(row_blocks))
    own = sequence_tokens[np.searchsorted(sequence_tokens, first, side="right") - 1]
    bias = placement.positions[first].astype(np.int64) - (first - own)
    roles = pa.DictionaryArray.from_arrays(
        pa.array(placement.sequences.responses.astype(np.int8)), pa.array(["user", trained_role])
    )
    columns = [roles.cast(pa.string()), *(pa.array(a.astype(np.int32)) for a in (start, lengths, bias))]
    blocks = pa.StructArray.from_arrays(columns, fields=list(schema.BLOCK))
    skipped = np.add.reduceat(placement.reason == SKIPPED, layout.rows[:-1]) > 0
    reasons = pa.DictionaryArray.from_arrays(pa.array(placement.reason[unit_of_sequence]), pa.array(list(REASONS)))
    texts = schema.list_of(pa.string())
    return pa.RecordBatch.from_arrays(
        [
            lists(row_tokens, pa.array(ids), schema.TOKENS),
            lists(row_tokens, pa.array(labels), schema.TOKENS),
            lists(row_tokens, pa.array(placement.positions), schema.TOKENS),
            lists(row_sequences, pa.array(np.diff(sequence_tokens).astype(np.int32)), schema.TOKENS),
            lists(row_blocks, blocks, schema.list_of(schema.BLOCK)),
            pa.array(skipped),
            lists(row_sequences, reasons.cast(pa.string()), texts),
            lists(row_samples, pa.array(list(source_ids), pa.string()), texts),
            pa.array(np.diff(row_tokens).astype(np.int32)),
        ],
        schema=schema.SKIPALIGN,
    )


def labels_of(ids: NDArray[np.int32], trained: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The ids of what is trained, and IGNORED elsewhere: int32 [T]."""
    # A choice for every token takes numpy twice as long as arithmetic: the lesser of the id and the largest number, or of it and IGNORED.
    labels = trained.astype(np.int32)
    labels *= _TO_HIGHEST
    labels += np.int32(IGNORED)
    return np.minimum(labels, ids, out=labels)


def flat_list(batch: pa.RecordBatch, name: str) -> tuple[NDArray[np.int64], pa.Array]:
    """The offsets int64 [R + 1] of a list column, from 0, and its values end to end."""
    column = batch.column(name)
    # offsets of a slice do not begin at 0, its flattened values do
    offsets = column.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], column.flatten()


def _equal(texts: pa.Array, text: str) -> NDArray[np.bool_]:
    """Which texts are this one, bool [n], without a Python object for each."""
    return (
        pc.call_function("equal", [texts, pa.scalar(text)]).fill_null(fill_value=False).to_numpy(zero_copy_only=False)
    )


class _Rows:
    """The columns of a batch as flat arrays; sequences and blocks are numbered over all rows."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        flat = partial(flat_list, batch)
        self.tokens, ids = flat("input_ids")
        self.ids = ids.to_numpy()
        self.label_offsets, labels = flat("labels")
        self.labels = labels.to_numpy()
        self.position_offsets, positions = flat("position_ids")
        self.positions = positions.to_numpy()
        self.sequences, lengths = flat("seq_lengths")
        self.sequence_lengths = lengths.to_numpy().astype(np.int64)
        self.blocks, blocks = flat("blocks")
        role, start, length, bias = blocks.flatten()
        self.responses = ~_equal(role, "user")
        self.block_start, self.block_length, self.bias = (a.to_numpy().astype(np.int64) for a in (start, length, bias))
        self.reason_offsets, reasons = flat("reasons")
        self.said_to_jump = _equal(reasons, "")
        self.id_offsets, _ = flat("source_ids")
        self.skipped = batch.column("skipped").to_numpy(zero_copy_only=False)
        self.n_tokens = batch.column("n_tokens").to_numpy().astype(np.int64)


def check(batch: pa.RecordBatch, *, strategy: str, max_position: int, groups_apart: bool) -> None:
    """Raise DatasetError, naming the row of the batch, unless every row keeps every invariant:

    lists of one length; sequences fill the row; blocks lie end to end and none crosses a sequence; positions start at 0 in every
    sequence, increase, run on inside a block (but under `random`) and are moved by its bias, which rises only at gaps of the strategy;
    positions of a sequence that jumps stay below `max_position`; a label is its own id or -100, -100 at a sequence's first token, set
    only in responses and somewhere in the row; `skipped` and `reasons` say what the positions do.
    """
    if batch.num_rows:
        rows = _Rows(batch)
        _check_shape(rows)
        _check_positions(rows, strategy=strategy, max_position=max_position, groups_apart=groups_apart)
        _check_labels(rows)


def require(holds: NDArray[np.bool_], row: NDArray[np.int64], what: str) -> None:
    """Raise DatasetError naming the first `row` int64 [n] of the batch for which `holds` bool [n] is false."""
    if not holds.all():
        message = f"row {int(row[np.flatnonzero(~holds)[0]])} of the batch: {what}"
        raise DatasetError(message)


def _require_tokens(holds: NDArray[np.bool_], r: _Rows, what: str) -> None:
    """The same for tokens: `holds` bool [T]."""
    if not holds.all():
        wrong = int(np.argmin(holds))
        require(np.zeros(1, bool), np.searchsorted(r.tokens, [wrong], side="right") - 1, what)


def _rows_of(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _check_shape(r: _Rows) -> None:
    counts = np.diff(r.tokens)
    every = np.arange(len(counts))
    same = (np.diff(r.label_offsets) == counts) & (np.diff(r.position_offsets) == counts) & (r.n_tokens == counts)
    require(same & (counts > 0), every, "input_ids, labels, position_ids and n_tokens differ in length, or are empty")
    sequences = _rows_of(r.sequences)
    require(r.sequence_lengths > 0, sequences, "a sequence without tokens")
    filled = np.bincount(sequences, weights=r.sequence_lengths, minlength=len(counts)) == counts
    require(filled, every, "seq_lengths do not add up to the row")
    each = np.diff(r.sequences)
    named = (np.diff(r.reason_offsets) == each) & (np.diff(r.id_offsets) >= each)
    require(named, every, "not one reason a sequence, or fewer source ids than sequences")
    blocks = _rows_of(r.blocks)
    require(r.block_length > 0, blocks, "an empty block")
    laid = np.bincount(blocks, weights=r.block_length, minlength=len(counts)) == counts
    require(laid, every, "blocks do not add up to the row")
    require(r.block_start == offsets_of(r.block_length)[:-1] - r.tokens[blocks], blocks, "blocks do not lie end to end")
    first_tokens, borders = offsets_of(r.sequence_lengths)[:-1], offsets_of(r.block_length)
    own = borders[np.searchsorted(borders, first_tokens, side="right") - 1] == first_tokens
    require(own, sequences, "a sequence begins inside a block")


def _check_positions(r: _Rows, *, strategy: str, max_position: int, groups_apart: bool) -> None:
    first, blocks = offsets_of(r.sequence_lengths), offsets_of(r.block_length)[:-1]
    block_row, sequence_row = _rows_of(r.blocks), _rows_of(r.sequences)
    # A conversation is what is placed as one: a sequence, or the sequences of a group, which count on from the first.
    opens = r.positions[first[:-1]] == 0
    opens |= np.diff(sequence_row, prepend=-1) > 0
    require(opens | groups_apart, sequence_row, "a sequence does not start at position 0")
    require((r.positions[first[:-1]] == 0) | ~opens, sequence_row, "a row does not start at position 0")
    rising = np.ones(len(r.positions), bool)
    np.greater(r.positions[1:], r.positions[:-1], out=rising[1:])
    rising[first[:-1][opens]] = True
    _require_tokens(rising, r, "position_ids do not increase inside a sequence")
    place = r.positions[blocks].astype(np.int64)
    own = first[np.searchsorted(first, blocks, side="right") - 1]
    require(place - (blocks - own) == r.bias, block_row, "a bias is not its block's")
    if strategy != "random":
        # What rises by one inside a block, and begins where its bias says, is what the blocks say.
        runs = np.ones(len(r.positions), bool)
        np.equal(r.positions[1:] - r.positions[:-1], 1, out=runs[1:])
        runs[blocks] = True
        _require_tokens(runs, r, "position_ids are not what the blocks and their biases say")
    rise = place - r.positions[blocks - 1] - 1  # the very first block has none before it, and opens a sequence
    rise[np.searchsorted(blocks, first[:-1][opens])] = 0
    every = np.ones(len(rise), bool)
    allowed = {"outer": ~r.responses, "inner": r.responses, "none": ~every}.get(strategy, every)
    require((rise == 0) | allowed, block_row, f"a gap where strategy {strategy} has none")
    _check_reasons(r, opens, max_position)


def _check_reasons(r: _Rows, opens: NDArray[np.bool_], max_position: int) -> None:
    first, sequence_row = offsets_of(r.sequence_lengths), _rows_of(r.sequences)
    conversation = np.cumsum(opens) - 1
    size = np.bincount(conversation, weights=r.sequence_lengths).astype(np.int64)
    last = np.zeros(len(size), np.int64)
    np.maximum.at(last, conversation, r.positions[first[1:] - 1])
    jumps = (last > size - 1)[conversation]
    require(
        ~jumps | (last < max_position)[conversation], sequence_row, f"a position reaches max_position ({max_position})"
    )
    require(jumps == r.said_to_jump, sequence_row, "reasons do not say which sequences are skipped")
    any_jump = np.bincount(sequence_row, weights=jumps, minlength=len(r.skipped)) > 0
    require(any_jump == r.skipped, np.arange(len(r.skipped)), "skipped does not say whether positions jump")


def _check_labels(r: _Rows) -> None:
    trained = r.labels != IGNORED
    own = r.labels == r.ids
    known = not len(r.ids) or int(r.ids.min()) >= 0
    if not known or np.count_nonzero(own) + len(own) - np.count_nonzero(trained) != len(own):
        _require_tokens((own | ~trained) & (r.ids >= 0), r, "a label is neither its own id nor -100")
    first = offsets_of(r.sequence_lengths)[:-1]
    require(
        ~trained[first],
        _rows_of(r.sequences),
        "the first token of a sequence has a label, and nothing that predicts it",
    )
    of_block = np.logical_or.reduceat(trained, offsets_of(r.block_length)[:-1])
    require(~of_block | r.responses, _rows_of(r.blocks), "a label outside the responses")
    of_row = np.logical_or.reduceat(of_block, r.blocks[:-1])
    require(of_row, np.arange(len(of_row)), "no label: nothing to train on")
