"""Composing rows of a whole dataset before any is built: groups of single turns, variants, packing; and cutting them into shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packing.bins import best_fit
from packing.chat_tokens import offsets_of, within


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """Rows of a dataset as planned. `source` int64 [S]: source rows, unit by unit and row by row; `samples` int64 [U]: how many make each
    unit (a unit is placed as one conversation); `variant` int64 [U]; `units` int64 [R]: how many make each row; `tokens` int64 [R]."""

    source: NDArray[np.int64]
    samples: NDArray[np.int64]
    variant: NDArray[np.int64]
    units: NDArray[np.int64]
    tokens: NDArray[np.int64]


def compose(
    lengths: NDArray[np.int64],
    turns: NDArray[np.int64],
    *,
    group: int,
    variants: int,
    capacity: int,
    packed: bool,
) -> Composed:
    """Plan rows from every source row's tokens int64 [N] (0: it gives none) and turns int64 [N].

    Units keep the source's order, variants behind each other; rows do too unless `packed`, when best-fit-decreasing fills rows of
    `capacity` tokens with whole units.
    """
    whole = np.flatnonzero(lengths)
    samples = grouped(lengths[whole], turns[whole], group=group, capacity=capacity)
    firsts = offsets_of(samples)
    size = np.add.reduceat(lengths[whole], firsts[:-1]) if len(samples) else np.zeros(0, np.int64)
    unit = np.repeat(np.arange(len(samples)), variants)
    variant = np.tile(np.arange(variants), len(samples))
    order, offsets = (
        best_fit(size[unit], capacity) if packed else (np.arange(len(unit)), np.arange(len(unit) + 1, dtype=np.int64))
    )
    unit, variant = unit[order], variant[order]
    each = samples[unit]
    filled = np.append(0, np.cumsum(size[unit]))
    return Composed(
        source=whole[np.repeat(firsts[unit], each) + within(each)],
        samples=each,
        variant=variant,
        units=np.diff(offsets),
        tokens=np.diff(filled[offsets]),
    )


def grouped(lengths: NDArray[np.int64], turns: NDArray[np.int64], *, group: int, capacity: int) -> NDArray[np.int64]:
    """How many consecutive rows make each unit, int64: up to `group` rows of a single turn that together have at most `capacity`
    tokens; a row of several turns is a unit of its own."""
    if group == 1:
        return np.ones(len(lengths), np.int64)
    sizes: list[int] = []
    held = total = 0
    for length, single in zip(lengths.tolist(), (turns == 1).tolist(), strict=True):
        if held and (not single or held == group or total + length > capacity):
            sizes.append(held)
            held = total = 0
        if single:
            held, total = held + 1, total + length
        else:
            sizes.append(1)
    if held:
        sizes.append(held)
    return np.array(sizes, np.int64)


def shards_of(composed: Composed, *, rows: int | None, tokens: int) -> list[dict[str, Any]]:
    """The work of every shard, as plain JSON: `rows` composed rows each, or as many as hold at most `tokens` tokens."""
    count = len(composed.units)
    firsts = np.arange(0, count, rows) if rows else cut_by_tokens(composed.tokens, tokens)
    parts = runs(firsts, count) or [(0, 0)]
    unit, sample = offsets_of(composed.units), offsets_of(composed.samples)
    work: list[dict[str, Any]] = []
    for a, b in parts:
        units = slice(unit[a], unit[b])
        work.append(
            {
                "rows": composed.source[sample[unit[a]] : sample[unit[b]]].tolist(),
                "samples": composed.samples[units].tolist(),
                "variants": composed.variant[units].tolist(),
                "units": composed.units[a:b].tolist(),
            }
        )
    return work


def runs(firsts: NDArray[np.int64], end: int) -> list[tuple[int, int]]:
    """(first, one past the last) of consecutive runs that begin at `firsts` and end at `end`."""
    return list(zip(firsts.tolist(), [*firsts[1:].tolist(), end], strict=True)) if len(firsts) else []


def cut_by_tokens(lengths: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """First rows of shards of at most `most` tokens each; a row larger than that has a shard of its own."""
    ends = np.cumsum(lengths)
    firsts = [0] if len(lengths) else []
    while firsts:
        before = int(ends[firsts[-1] - 1]) if firsts[-1] else 0
        following = max(int(np.searchsorted(ends, before + most, side="right")), firsts[-1] + 1)
        if following >= len(lengths):
            break
        firsts.append(following)
    return np.array(firsts, np.int64)
