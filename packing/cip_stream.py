"""The stream of one shard: the chunks of its units in the order they are woven, with the tokens that stand around them, as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.chat_tokens import within
from packing.cip_plan import PlanSpec
from packing.draws import Draws
from packing.interleave import (
    chunk_counts,
    chunk_lengths,
    equal_cuts,
    random_cuts,
    round_of,
    scattered,
    woven,
)
from packing.kept import Kept, kept_runs
from packing.knots import Knots, labels_of
from packing.plan import Inputs


class StreamSpec(PlanSpec, Protocol):
    """What a spec says of how units become a stream."""

    @property
    def chunks(self) -> int: ...
    @property
    def cut(self) -> str: ...
    @property
    def probability(self) -> float: ...
    @property
    def knot_labels(self) -> bool: ...
    @property
    def backtrace(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """The columns of a shard's table as arrays [U]; `pool` uint16 or int32 holds the tokens of every unit from `begin` on, and behind them
    all, from `base` on, what stands around units."""

    document: NDArray[np.int64]
    piece: NDArray[np.int64]
    copy: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    last: NDArray[np.bool_]
    group: NDArray[np.int64]
    position: NDArray[np.int64]
    begin: NDArray[np.int64]
    pool: Kept
    base: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """P parts end to end from `position` int64 [P] on (holes between strata), each `length` int64 [P] tokens of `pool` from `source` on.

    `unit` int64 [P] says whose part it is; `chunk` int64 [P] the number of the chunk in the unit, -1 for what is no chunk of a document
    (its edges, marks); `within` int64 [P] where a chunk begins in its unit; `trained` bool [P].
    """

    pool: Kept
    position: NDArray[np.int64]
    source: NDArray[np.int64]
    length: NDArray[np.int64]
    unit: NDArray[np.int64]
    chunk: NDArray[np.int64]
    within: NDArray[np.int64]
    trained: NDArray[np.bool_]


def read_units(table: pa.Table, inputs: Inputs, around: NDArray[np.int32]) -> Units:
    """The units of a shard with their tokens, each checked against its checksum, and behind those the tokens that may stand `around` them;
    raises SourceError where a checksum does not hold."""

    def column(name: str) -> NDArray[np.int64]:
        return table.column(name).to_numpy().astype(np.int64)

    length = column("length")
    pool, begin = kept_runs(inputs, table, length, behind=around)
    return Units(
        document=column("document"),
        piece=column("piece"),
        copy=column("copy"),
        start=column("start"),
        length=length,
        last=table.column("last").to_numpy(zero_copy_only=False),
        group=column("group"),
        position=column("position"),
        begin=begin,
        pool=pool,
        base=len(pool) - len(around),
    )


def tied_counts(
    spec: StreamSpec, length: NDArray[np.int64], document: NDArray[np.int64], piece: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many chunks every unit is cut into, int64 [U]; under untie_knots one, but for the share that is tied."""
    if spec.order not in ("interleave", "untie_knots"):
        return np.ones(len(length), np.int64)
    counts = chunk_counts(length, spec.chunks)
    if spec.order == "interleave":
        return counts
    drawn = Draws(spec.seed, "cip/tied").uniform(document, piece)
    return np.where((drawn < spec.probability) & (counts > 1), counts, 1)


def around(bos: NDArray[np.int32], eos: NDArray[np.int32], knots: Knots | None) -> NDArray[np.int32]:
    """The tokens that may stand around units, as `stream` looks for them behind the units' own: int32."""
    return np.concatenate([bos, eos, *([knots.pool] if knots is not None else [])])


def stream(spec: StreamSpec, units: Units, *, bos: int, eos: int, knots: Knots | None) -> Stream:
    """Weave the units of a shard, with `bos` and `eos` tokens around a document; the same whatever else is in the shard, for all draws
    are keyed by document and group."""
    counts = tied_counts(spec, units.length, units.document, units.piece)
    keys = {"document": units.document, "piece": units.piece}
    if spec.cut == "equal":
        starts = equal_cuts(units.length, counts)
    else:
        starts = random_cuts(units.length, counts, **keys, copy=units.copy, draws=Draws(spec.seed, "cip/cuts"))
    lengths = chunk_lengths(units.length, counts, starts)
    unit, number = np.repeat(np.arange(len(counts)), counts), within(counts)
    first_round = round_of(counts, units.group, **keys)
    if spec.order == "untie_knots":
        order = scattered(counts, units.group, **keys, first_round=first_round, draws=Draws(spec.seed, "cip/slots"))
    else:
        order = woven(counts, units.group, first_round)
    chunks = _Chunks(unit=unit[order], number=number[order], start=starts[order], length=lengths[order])
    parts = _Parts(units, chunks)
    parts.edges(bos, eos, counts)
    if knots is not None:
        parts.marks(spec, knots, counts, base=units.base + bos + eos)
    return parts.stream()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunks:
    """C chunks in stream order: the unit of each, its number there, where it begins in the unit and its tokens, int64 [C]."""

    unit: NDArray[np.int64]
    number: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]


_BEFORE, _LABEL, _HEAD, _CHUNK, _TAIL, _LIST, _BEHIND = range(7)
"""What stands around a chunk, in order."""


class _Parts:
    """Parts gathered by what they are, each with the number of its chunk and its rank around it; sorted at the end."""

    def __init__(self, units: Units, chunks: _Chunks) -> None:
        self._units = units
        self._chunks = chunks
        every = np.arange(len(chunks.unit))
        self._found: list[dict[str, NDArray[np.int64]]] = []
        self._add(every, _CHUNK, units.begin[chunks.unit] + chunks.start, chunks.length, trained=True)

    def _add(
        self,
        chunk: NDArray[np.int64],
        rank: int,
        source: NDArray[np.int64] | int,
        length: NDArray[np.int64] | int,
        *,
        trained: bool | NDArray[np.bool_],
        step: NDArray[np.int64] | int = 0,
    ) -> None:
        def full(value: NDArray[np.int64] | NDArray[np.bool_] | int) -> NDArray[np.int64]:
            return np.broadcast_to(np.asarray(value, np.int64), chunk.shape)

        values = {"chunk": chunk, "rank": rank, "step": step, "source": source, "length": length, "trained": trained}
        self._found.append({name: full(value) for name, value in values.items()})

    def edges(self, bos: int, eos: int, counts: NDArray[np.int64]) -> None:
        """The tokens before a document's first chunk and behind its last."""
        c, u = self._chunks, self._units
        if bos:
            first = np.flatnonzero((u.piece[c.unit] == 0) & (c.number == 0))
            self._add(first, _BEFORE, u.base, bos, trained=True)
        last = np.flatnonzero(u.last[c.unit] & (c.number == counts[c.unit] - 1))
        self._add(last, _BEHIND, u.base + bos, eos, trained=True)

    def marks(self, spec: StreamSpec, knots: Knots, counts: NDArray[np.int64], *, base: int) -> None:
        """Labels, knots and closing lists of tied units."""
        c, u = self._chunks, self._units
        tied = counts[c.unit] > 1
        group = u.group[c.unit]
        opens = np.concatenate([np.zeros(0, np.int64), np.flatnonzero(np.diff(group, prepend=-1))])
        in_group = np.arange(len(group)) - opens[np.searchsorted(opens, np.arange(len(group)), side="right") - 1]
        label = labels_of(in_group, u.document[c.unit], draws=Draws(spec.seed, "cip/knots"))

        def add(chosen: NDArray[np.int64], rank: int, mark: NDArray[np.int64] | int, **more: object) -> None:
            at = np.broadcast_to(np.asarray(mark, np.int64), chosen.shape)
            self._add(chosen, rank, base + knots.start[at], knots.length[at], **{"trained": False, **more})  # pyright: ignore[reportArgumentType]

        if spec.knot_labels:
            chosen = np.flatnonzero(tied)
            add(chosen, _LABEL, knots.mark + label[chosen])
        later = np.flatnonzero(tied & (c.number > 0))
        add(later, _HEAD, knots.head + c.number[later])
        earlier = np.flatnonzero(tied & (c.number < counts[c.unit] - 1))
        add(earlier, _TAIL, knots.tail + c.number[earlier] + 1)
        if not (spec.knot_labels and spec.backtrace):
            return
        ends = np.flatnonzero(tied & (c.number == counts[c.unit] - 1))
        of_unit = np.zeros(len(counts), np.int64)
        of_unit[c.unit[ends]] = ends
        member = np.flatnonzero(tied)
        at, step = of_unit[c.unit[member]], 2 * c.number[member]
        first = c.number[member] == 0
        add(at, _LIST, np.where(first, knots.open, knots.between), step=step)
        add(at, _LIST, knots.listed + label[member], step=step + 1, trained=True)
        add(ends, _LIST, knots.close, step=2 * counts[c.unit[ends]])

    def stream(self) -> Stream:
        """All parts in order, with their places in the stream."""
        values = {name: np.concatenate([part[name] for part in self._found]) for name in self._found[0]}
        order = np.lexsort((values["step"], values["rank"], values["chunk"]))
        values = {name: value[order] for name, value in values.items()}
        c, units = self._chunks, self._units
        unit = c.unit[values["chunk"]]
        group = units.group[unit]
        ends = np.cumsum(values["length"])
        before = ends - values["length"]
        opens = np.flatnonzero(np.diff(group, prepend=-1))
        run = np.cumsum(np.diff(group, prepend=-1) != 0) - 1
        is_chunk = values["rank"] == _CHUNK
        return Stream(
            pool=units.pool,
            position=units.position[unit] + before - before[opens][run],
            source=values["source"],
            length=values["length"],
            unit=unit,
            chunk=np.where(is_chunk, c.number[values["chunk"]], -1),
            within=c.start[values["chunk"]],
            trained=values["trained"] > 0,
        )
