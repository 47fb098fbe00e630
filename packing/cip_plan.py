"""Composing the rows of a whole corpus before any is built: which units are woven together, and where rows are cut from their stream.

Units in their order make groups; the chunks of a group, woven, make a run of the stream, and runs lie end to end. Row r is what lies
between r and r + 1 times the sequence length. So a row is full but for the last, and what a row's end cuts off goes on in the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.bins import best_fit
from packing.chat_tokens import offsets_of, within
from packing.cip_units import UnitSpec, domain_numbers
from packing.dataset.errors import InputError
from packing.draws import Draws
from packing.plan import Plan

SHARD_TOKENS = 8 * 1024 * 1024
"""Tokens of a shard where the spec says nothing."""
WINDOW_TOKENS = 64 * 1024 * 1024
"""Tokens that best_fit packs together: a shard reads its units from a window, not from the whole corpus."""
WINDOW_ROWS = 256
PLANNED = (
    "survey",
    "offset",
    "document",
    "piece",
    "start",
    "length",
    "last",
    "checksum",
    "id",
    "copy",
    "group",
    "position",
)
"""Columns of a shard's table: a unit's place in what surveys kept, what it is (packing.cip_units), its copy, its group, and where its
group begins in the stream."""


class PlanSpec(UnitSpec, Protocol):
    """What a spec says of how units become rows."""

    @property
    def documents_per_sequence(self) -> str | int: ...
    @property
    def drop_remainder(self) -> bool: ...
    @property
    def shard_rows(self) -> int | None: ...
    @property
    def shard_tokens(self) -> int | None: ...
    @property
    def long_tokens(self) -> int | None: ...
    @property
    def upsample(self) -> float: ...
    @property
    def domain_weights(self) -> Mapping[str, float] | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Ordered units with their `group` int64 [U] (rising) and the groups' `position` int64 [G] in the stream; `count` rows."""

    group: NDArray[np.int64]
    position: NDArray[np.int64]
    count: int
    short: bool


def plan(spec: PlanSpec, surveys: Sequence[pa.Table], sizes: NDArray[np.int64] | None, *, bos: int, eos: int) -> Plan:
    """The plan of a corpus from the surveys of its pieces. `sizes` int64 is what marks add to each unit (untie_knots), unit by unit as the
    surveys have them. Raises InputError where no row can be made."""
    table = _all_units(surveys)
    counts: dict[str, int] = {}
    extra = np.zeros(table.num_rows, np.int64) if sizes is None else sizes
    table = table.append_column("extra", pa.array(extra))
    if spec.deduplicate:
        table = _without_duplicates(table, counts)
    copies = _copies(spec, table, counts) if spec.order == "upsample" else None
    order, copy = _order(spec, table, copies)
    table = table.take(pa.array(order)).append_column("copy", pa.array(copy.astype(np.int32)))
    if not table.num_rows:
        # What there was to say about the rows stands in the tally: conclude says it.
        return Plan(shards=(), counts=counts)
    streamed = _stream_lengths(table, bos, eos)
    strata = _strata(spec, table)
    if spec.order == "best_fit":
        table, rows = _packed(spec, table, streamed, strata)
    else:
        rows = _streamed(spec, streamed, strata)
    work, tables = _shards(spec, table, rows)
    return Plan.of_work(work, tables=tables, counts=counts)


def _all_units(surveys: Sequence[pa.Table]) -> pa.Table:
    """Every survey's units with their place in what it kept."""
    found: list[pa.Table] = []
    for number, survey in enumerate(surveys):
        offset = offsets_of(survey.column("length").to_numpy().astype(np.int64))[:-1]
        numbered = survey.replace_schema_metadata(None).append_column("offset", pa.array(offset))
        found.append(numbered.append_column("survey", pa.array(np.full(len(offset), number, np.int32))))
    return pa.concat_tables(found).combine_chunks()


def _column(table: pa.Table, name: str) -> NDArray[np.int64]:
    return table.column(name).to_numpy().astype(np.int64)


def _without_duplicates(table: pa.Table, counts: dict[str, int]) -> pa.Table:
    """The first of every set of equal documents."""
    digest = table.column("digest").combine_chunks().dictionary_encode()
    content = digest.indices.to_numpy().astype(np.int64)
    document = _column(table, "document")
    first = np.full(len(digest.dictionary), np.iinfo(np.int64).max)
    np.minimum.at(first, content, document)
    kept = first[content] == document
    counts["duplicate_documents"] = len(np.unique(document[~kept]))
    counts["duplicate_tokens"] = int(_column(table, "length")[~kept].sum())
    return table.filter(pa.array(kept))


def _copies(spec: PlanSpec, table: pa.Table, counts: dict[str, int]) -> NDArray[np.int64]:
    """How often every unit comes, int64 [U]: long documents `upsample` times for each time a short one does, domains by their weights, and
    about as many tokens in all as the corpus has. (Fu et al., arXiv 2402.10171: per source; ProLong, arXiv 2410.02660: by domain.)"""
    length, document = _column(table, "length"), _column(table, "document")
    _, of = np.unique(document, return_inverse=True)
    tokens = np.bincount(of, weights=length)
    weight = np.where(tokens >= (spec.long_tokens or spec.sequence_length), spec.upsample, 1.0)
    names = table.column("domain").combine_chunks().dictionary_encode()
    domain = np.zeros(len(tokens), np.int64)
    domain[of] = names.indices.to_numpy()
    labels = names.dictionary.to_pylist()
    have = np.bincount(domain, weights=tokens, minlength=len(labels))
    weighted = np.bincount(domain, weights=tokens * weight, minlength=len(labels))
    wanted = _wanted(spec, labels, have)
    expected = weight * (wanted / np.maximum(weighted, 1))[domain]
    numbers = np.unique(document)
    drawn = Draws(spec.seed, "cip/copies").uniform(numbers)
    copies = np.floor(expected).astype(np.int64) + (drawn < expected - np.floor(expected))
    counts["documents_left_out"] = int((copies == 0).sum())
    counts["documents_repeated"] = int((copies > 1).sum())
    counts["upsampled_tokens"] = int((tokens * copies).sum())
    return copies[of]


def _wanted(spec: PlanSpec, labels: Sequence[str], have: NDArray[Any]) -> NDArray[np.float64]:
    """Tokens wanted of every domain, float64."""
    if spec.domain_weights is None:
        return have
    unknown = sorted(set(spec.domain_weights) - set(labels))
    if unknown:
        message = f"domain_weights names {', '.join(unknown)}, the corpus has {', '.join(sorted(map(repr, labels)))}"
        raise InputError(message, param="/domain_weights")
    share = np.array([spec.domain_weights.get(label, 0.0) for label in labels])
    return share / share.sum() * have.sum()


def _order(
    spec: PlanSpec, table: pa.Table, copies: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The units in their order, int64, and which copy each is: by domain where strata are kept apart, then by the drawn key."""
    unit = np.arange(table.num_rows) if copies is None else np.repeat(np.arange(table.num_rows), copies)
    copy = np.zeros(len(unit), np.int64) if copies is None else within(copies)
    document, piece = _column(table, "document")[unit], _column(table, "piece")[unit]
    key = table.column("key").to_numpy()[unit]
    again = copy > 0
    key[again] = Draws(spec.seed, "cip/order").uniform(document[again], 0, copy[again])
    stratum = domain_numbers(table)[unit] if spec.strata else np.zeros(len(unit), np.int64)
    order = np.lexsort((piece, copy, document, key, stratum))
    return unit[order], copy[order]


def _strata(spec: PlanSpec, table: pa.Table) -> NDArray[np.int64]:
    """Where each stratum begins among the ordered units, and the end: int64."""
    if not spec.strata:
        return np.array([0, table.num_rows])
    number = domain_numbers(table)
    return np.concatenate([[0], np.flatnonzero(np.diff(number)) + 1, [len(number)]])


def _stream_lengths(table: pa.Table, bos: int, eos: int) -> NDArray[np.int64]:
    """Tokens of every unit in the stream, int64 [U], with all that stands around it."""
    first, last = _column(table, "piece") == 0, table.column("last").to_numpy(zero_copy_only=False)
    return _column(table, "length") + bos * first + eos * last + _column(table, "extra")


def _streamed(spec: PlanSpec, lengths: NDArray[np.int64], strata: NDArray[np.int64]) -> _Rows:
    """Groups and rows of every stratum's stream; a stratum begins with a row of its own."""
    size = spec.sequence_length
    groups: list[NDArray[np.int64]] = []
    positions: list[NDArray[np.int64]] = []
    made = count = 0
    short = False
    for a, b in zip(strata[:-1].tolist(), strata[1:].tolist(), strict=True):
        firsts = _group_firsts(spec, lengths[a:b])
        ends = offsets_of(lengths[a:b])
        groups.append(made + np.repeat(np.arange(len(firsts)), np.diff(np.append(firsts, b - a))))
        positions.append(count * size + ends[firsts])
        made += len(firsts)
        count += -(-int(ends[-1]) // size)
        short = bool(ends[-1] % size)
    return _Rows(group=np.concatenate(groups), position=np.concatenate(positions), count=count, short=short)


def _group_firsts(spec: PlanSpec, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first unit of every group, int64 [G]."""
    if spec.order not in ("interleave", "untie_knots"):
        return np.arange(len(lengths))
    if spec.documents_per_sequence != "auto":
        return np.arange(0, len(lengths), int(spec.documents_per_sequence))
    ends = np.cumsum(lengths)
    firsts = [0]
    # A group takes units until they and what the last one left over fill a row.
    for row in range(1, int(ends[-1]) // spec.sequence_length + 1):
        following = int(np.searchsorted(ends, row * spec.sequence_length)) + 1
        if following >= len(lengths):
            break
        if following > firsts[-1]:
            firsts.append(following)
    return np.array(firsts, np.int64)


def _packed(
    spec: PlanSpec, table: pa.Table, lengths: NDArray[np.int64], strata: NDArray[np.int64]
) -> tuple[pa.Table, _Rows]:
    """Units packed whole, window by window: the units in the order of their rows, each row a group that begins at its own place."""
    window = max(WINDOW_TOKENS, WINDOW_ROWS * spec.sequence_length)
    chosen: list[NDArray[np.int64]] = []
    row: list[NDArray[np.int64]] = []
    count = 0
    for a, b in zip(strata[:-1].tolist(), strata[1:].tolist(), strict=True):
        of = (np.cumsum(lengths[a:b]) - 1) // window
        for first, end in zip(*_runs(of), strict=True):
            items, bins = best_fit(lengths[a + first : a + end], spec.sequence_length)
            chosen.append(a + first + items)
            row.append(count + np.repeat(np.arange(len(bins) - 1), np.diff(bins)))
            count += len(bins) - 1
    group = np.concatenate(row)
    position = np.arange(count) * spec.sequence_length
    return table.take(pa.array(np.concatenate(chosen))), _Rows(group=group, position=position, count=count, short=False)


def _runs(values: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """First and end of every run of equal values."""
    firsts = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1])
    return firsts.tolist(), [*firsts[1:].tolist(), len(values)]


def _shards(spec: PlanSpec, table: pa.Table, rows: _Rows) -> tuple[list[dict[str, int]], list[pa.Table]]:
    """Runs of rows, each with the units of the groups that reach into it."""
    size = spec.sequence_length
    each = spec.shard_rows or max(1, (spec.shard_tokens or SHARD_TOKENS) // size)
    firsts = list(range(0, rows.count, each))
    if spec.drop_remainder and rows.short and len(firsts) > 1 and firsts[-1] == rows.count - 1:
        firsts.pop()  # a shard of nothing but the row that is dropped would be an empty file
    table = table.append_column("group", pa.array(rows.group)).append_column(
        "position", pa.array(rows.position[rows.group])
    )
    table = table.select(list(PLANNED)).combine_chunks()
    unit = offsets_of(np.bincount(rows.group, minlength=len(rows.position)))
    work: list[dict[str, int]] = []
    tables: list[pa.Table] = []
    for first, end in zip(firsts, [*firsts[1:], rows.count], strict=True):
        a = int(np.searchsorted(rows.position, first * size, side="right")) - 1
        b = int(np.searchsorted(rows.position, end * size))
        work.append({"first": first, "rows": end - first})
        tables.append(table.slice(unit[a], unit[b] - unit[a]))
    return work, tables
