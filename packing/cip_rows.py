"""Rows of the cip schema: cut from a shard's stream, and held to their invariants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.chat_tokens import offsets_of, within
from packing.cip_stream import Stream, Units
from packing.dataset import schema
from packing.dataset.writer import group_ends
from packing.runs import runs_of
from packing.skipalign_rows import flat_list, lists, require

IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A stream cut at the ends of rows: P parts, those of a row end to end. `row` int64 [P] counts from the shard's first row, `start`
    int64 [P] is the place in the row; the rest is as in Stream, `within` moved along where a row's end has cut a part."""

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    source: NDArray[np.int64]
    length: NDArray[np.int64]
    unit: NDArray[np.int64]
    chunk: NDArray[np.int64]
    within: NDArray[np.int64]
    trained: NDArray[np.bool_]

    def rows(self, first: int, end: int) -> Cut:
        """The parts of rows `first` to `end`."""
        span = slice(*np.searchsorted(self.row, [first, end]))
        return Cut(**{name: getattr(self, name)[span] for name in self.__slots__})


def cut_rows(stream: Stream, *, first: int, rows: int, size: int) -> Cut:
    """Cut a stream at multiples of `size`, and keep rows `first` to `first + rows`."""
    ends = stream.position + stream.length
    before, after = stream.position // size, (ends - 1) // size
    counts = np.where(stream.length > 0, after - before + 1, 0)
    part = np.repeat(np.arange(len(counts)), counts)
    number = before[part] + within(counts)
    begin = np.maximum(stream.position[part], number * size)
    end = np.minimum(ends[part], (number + 1) * size)
    moved = begin - stream.position[part]
    kept = (number >= first) & (number < first + rows)
    part, number, begin, end, moved = part[kept], number[kept], begin[kept], end[kept], moved[kept]
    return Cut(
        row=number - first,
        start=begin - number * size,
        source=stream.source[part] + moved,
        length=end - begin,
        unit=stream.unit[part],
        chunk=stream.chunk[part],
        within=stream.within[part] + moved,
        trained=stream.trained[part],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """The segments of some rows, [S]: the row, the unit, the chunk's number in its document, where it begins in document and row, its
    tokens. Parts of one chunk that lie end to end are one segment."""

    row: NDArray[np.int64]
    unit: NDArray[np.int64]
    chunk: NDArray[np.int64]
    source_start: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]


def segments_of(cut: Cut, units: Units, *, chunks: int) -> Segments:
    """The segments of a cut. `chunks` is how many chunks a whole unit has: the pieces of a long document count on; with 0 a document is one
    chunk, whatever it was cut into."""
    is_chunk = np.flatnonzero(cut.chunk >= 0)
    row, unit = cut.row[is_chunk], cut.unit[is_chunk]
    chunk = units.piece[unit] * chunks + cut.chunk[is_chunk] if chunks else np.zeros(len(unit), np.int64)
    source, start, length = units.start[unit] + cut.within[is_chunk], cut.start[is_chunk], cut.length[is_chunk]
    document, copy = units.document[unit], units.copy[unit]
    opens = np.ones(len(is_chunk), bool)
    joins = (np.diff(row) == 0) & (np.diff(document) == 0) & (np.diff(copy) == 0) & (np.diff(chunk) == 0)
    joins &= (start[:-1] + length[:-1] == start[1:]) & (source[:-1] + length[:-1] == source[1:])
    opens[1:] = ~joins
    at = np.flatnonzero(opens)
    total = np.add.reduceat(length, at) if len(at) else length
    return Segments(row=row[at], unit=unit[at], chunk=chunk[at], source_start=source[at], start=start[at], length=total)


def batches(
    cut: Cut, stream: Stream, units: Units, ids: pa.ChunkedArray, *, apart: bool, chunks: int, chosen: NDArray[np.int64]
) -> Iterator[tuple[pa.RecordBatch, Segments]]:
    """The rows `chosen` int64 (rising) as record batches, with their segments (rows counted within the batch). A batch is what makes a
    row group, so that the writer puts it down as it lies.

    `apart`: every document's run is a sequence of its own. `ids` are the units' names.
    """
    sizes = np.bincount(cut.row, weights=cut.length, minlength=int(chosen[-1]) + 1 if len(chosen) else 0)[chosen]
    for begin, end in pairwise([0, *group_ends(sizes.astype(np.int64))]):
        rows = chosen[begin:end]
        part = cut.rows(int(rows[0]), int(rows[-1]) + 1)
        if len(rows) != int(rows[-1]) - int(rows[0]) + 1:
            kept = np.isin(part.row, rows)
            part = Cut(**{name: getattr(part, name)[kept] for name in part.__slots__})
        dense = Cut(
            **{name: getattr(part, name) for name in part.__slots__ if name != "row"},
            row=np.searchsorted(rows, part.row),
        )
        yield _batch(dense, stream, units, ids, rows=len(rows), apart=apart, chunks=chunks)


def _batch(
    cut: Cut, stream: Stream, units: Units, ids: pa.ChunkedArray, *, rows: int, apart: bool, chunks: int
) -> tuple[pa.RecordBatch, Segments]:
    tokens = offsets_of(np.bincount(cut.row, weights=cut.length, minlength=rows).astype(np.int64))
    input_ids = runs_of(stream.pool, cut.source, cut.length).astype(np.int32, copy=False)
    opens = tokens[:-1] if not apart else _document_opens(cut, units)
    labels = input_ids.copy()
    if not cut.trained.all():
        labels[np.repeat(~cut.trained, cut.length)] = IGNORED
    labels[opens] = IGNORED
    sequence_row = np.searchsorted(tokens, opens, side="right") - 1
    found = segments_of(cut, units, chunks=chunks)
    segments = offsets_of(np.bincount(found.row, minlength=rows))
    columns = [
        ids.take(pa.array(found.unit)).combine_chunks(),
        *(pa.array(a.astype(np.int32)) for a in (found.chunk, found.source_start, found.start, found.length)),
    ]
    structs = pa.StructArray.from_arrays(columns, fields=list(schema.SEGMENT))
    batch = pa.RecordBatch.from_arrays(
        [
            lists(tokens, pa.array(input_ids), schema.TOKENS),
            lists(tokens, pa.array(labels), schema.TOKENS),
            lists(
                offsets_of(np.bincount(sequence_row, minlength=rows)),
                pa.array(np.diff(np.append(opens, tokens[-1])).astype(np.int32)),
                schema.TOKENS,
            ),
            lists(segments, structs, schema.list_of(schema.SEGMENT)),
            lists(segments, pa.array(units.document[found.unit]), schema.list_of(pa.int64())),
            pa.array(np.diff(tokens).astype(np.int32)),
        ],
        schema=schema.CIP,
    )
    return batch, found


def _document_opens(cut: Cut, units: Units) -> NDArray[np.int64]:
    """The first token of every run of one document, in tokens of the batch: int64."""
    at = offsets_of(cut.length)[:-1]
    same = (np.diff(cut.row) == 0) & (np.diff(units.document[cut.unit]) == 0) & (np.diff(units.copy[cut.unit]) == 0)
    return at[np.append(True, ~same)]


def check(batch: pa.RecordBatch, *, sequence_length: int, marked: bool, repeats: bool) -> None:
    """Raise DatasetError, naming the row of the batch, unless every row keeps every invariant:

    lists of one length, `n_tokens` of it and at most `sequence_length`; sequences fill the row; a label is its own id or -100, -100 at a
    sequence's first token and nowhere else, but for `marked` rows; segments lie in the row in order, without overlap, with at most two
    tokens (a document's end and the next one's beginning) between them but in `marked` rows; the segments of a document are in its
    order, unless documents come more than once (`repeats`).
    """
    if not batch.num_rows:
        return
    flat = _Flat(batch)
    counts = np.diff(flat.tokens)
    every = np.arange(batch.num_rows)
    same = (
        (np.diff(flat.label_offsets) == counts) & (flat.n_tokens == counts) & (counts > 0) & (counts <= sequence_length)
    )
    require(same, every, f"input_ids, labels and n_tokens differ in length, or are not 1 to {sequence_length}")
    sequence_row = np.repeat(every, np.diff(flat.sequence_offsets))
    filled = np.bincount(sequence_row, weights=flat.sequence_lengths, minlength=len(counts)) == counts
    require(filled & (np.diff(flat.sequence_offsets) > 0), every, "seq_lengths do not add up to the row")
    require(flat.sequence_lengths > 0, sequence_row, "a sequence without tokens")
    _check_labels(flat, marked=marked)
    _check_segments(flat, counts, marked=marked, repeats=repeats)


class _Flat:
    """The columns of a batch as flat arrays."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        flat = partial(flat_list, batch)
        self.tokens, ids = flat("input_ids")
        self.label_offsets, labels = flat("labels")
        self.sequence_offsets, lengths = flat("seq_lengths")
        self.segment_offsets, segments = flat("segments")
        self.source_offsets, sources = flat("source_rows")
        self.ids, self.labels = ids.to_numpy(), labels.to_numpy()
        self.sequence_lengths, self.source_rows = lengths.to_numpy().astype(np.int64), sources.to_numpy()
        _, *numbers = segments.flatten()
        self.chunk, self.source_start, self.start, self.length = (a.to_numpy().astype(np.int64) for a in numbers)
        self.n_tokens = batch.column("n_tokens").to_numpy().astype(np.int64)


def _check_labels(flat: _Flat, *, marked: bool) -> None:
    """Labels are told by the few places where they are not the ids: first tokens of sequences, and marks."""
    ignored = np.flatnonzero(flat.labels != flat.ids)
    first = offsets_of(flat.sequence_lengths)[:-1]

    def at(token: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(flat.tokens, token, side="right") - 1

    below = np.flatnonzero(flat.ids < 0) if flat.ids.min() < 0 else ignored[:0]
    wrong = np.concatenate([below, ignored[flat.labels[ignored] != IGNORED]])
    require(np.zeros(len(wrong), bool), at(np.sort(wrong)), "a label is neither its own id nor -100")
    require(flat.labels[first] == IGNORED, at(first), "the first token of a sequence has a label")
    if not marked and len(ignored) > len(first):
        alone = np.setdiff1d(ignored, first)
        require(np.zeros(len(alone), bool), at(alone), "a token has no label, and none of its own accord")


def _check_segments(flat: _Flat, counts: NDArray[np.int64], *, marked: bool, repeats: bool) -> None:
    row = np.repeat(np.arange(len(counts)), np.diff(flat.segment_offsets))
    require(
        np.diff(flat.source_offsets) == np.diff(flat.segment_offsets),
        np.arange(len(counts)),
        "not one source row a segment",
    )
    inside = (flat.start >= 0) & (flat.length > 0) & (flat.start + flat.length <= counts[row])
    require(inside & (flat.chunk >= 0) & (flat.source_start >= 0), row, "a segment lies outside its row, or is empty")
    opens = np.diff(row, prepend=-1) > 0
    ends = flat.start + flat.length
    gap = flat.start - np.where(opens, 0, np.append(0, ends[:-1]))
    require(gap >= 0, row, "segments overlap, or are out of order")
    if not marked:
        closing = np.zeros(len(counts), np.int64)
        closing[row] = counts[row] - ends  # the last segment of a row is the last to write
        require((gap <= 2) & (closing[row] <= 2), row, "more than the ends of documents between segments")
    if repeats or not len(row):
        return
    order = np.lexsort((np.arange(len(row)), flat.source_rows, row))
    same = (np.diff(row[order]) == 0) & (np.diff(flat.source_rows[order]) == 0)
    on = flat.source_start[order][1:] >= (flat.source_start + flat.length)[order][:-1]
    on &= np.diff(flat.chunk[order]) >= 0
    require(on | ~same, row[order][1:], "the segments of a document are out of order")
