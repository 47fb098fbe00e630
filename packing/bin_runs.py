"""Bins filled to the last token by arrays alone, where items are many, small beside a bin, and of nearly every length.

Items lie on a line as they come, and the line is cut into bins: what straddles a cut waits. Large items go first and leave room; the middle
and the small ones are laid into the rooms in the same way, so what is left of each room comes down to about as much as a small item has.
Items of those lengths were held back, so that one of exactly the length closes each bin. Every step is a few passes over arrays, where
best-fit takes a Python step for every length and room. Bins that find no such item are given up, and their items are left with those
that waited: they are few, and best-fit packs them well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Unsigned = NDArray[np.unsignedinteger[Any]]
Indices = NDArray[np.int64]

FEWEST = 20_000
"""Items below which nearly every length is not to be had."""
SAMPLE = 4096
SPARE = 0.003
"""Share of all tokens that is left over rather than have bins lack middle items."""
REACH = 1.5
"""How many times the longest small item the rooms that are left for closing may differ."""
SUPPLY, SCARCE = 1.7, 3
"""Closing items held back for each bin, of at least so many times as many that there are."""
LAID_FIRST = 0.86
"""What of a bin large items and what straddles them may take together."""
RARE = 8
"""Of so many large items one is looked at for what the third and fourth pass will be."""
LAST_PASS = 8
"""Bins below which large items are not laid once more."""
MOST_MISSED = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What was packed: `bin_of` [n] the bin of every item but those `left` int64 [k], which rise; of every bin `first` int64 [bins], its
    first item, and `counts` int64 [bins], how many it has. One that was given up has none, and n for the first."""

    bin_of: Unsigned
    first: Indices
    counts: Indices
    left: Indices


@dataclass(frozen=True, slots=True)
class _Classes:
    """Items above `large` are laid first, those up to `small` last; a bin is closed by an item of `least`..`longest`, of which every
    `stride`-th item is held back."""

    large: int
    small: int
    least: int
    longest: int
    stride: int
    middle: float
    """The mean length of what straddles a cut between middle items."""


def filled(sizes: Unsigned, capacity: int) -> Filled | None:
    """Pack items of `sizes` [n], 1..capacity, into bins of `capacity`, most of them exactly full; None where lengths or their number do
    not lend themselves to it."""
    classes = _classes(sizes, capacity) if len(sizes) >= FEWEST else None
    if classes is None:
        return None
    is_large = sizes > classes.large
    large = np.flatnonzero(is_large)
    if not len(large):
        return None
    held_back = _held_back(sizes, classes)
    total, of_large = int(sizes.sum(dtype=np.int64)), sizes[large]
    rest = total * (1 - SPARE) - int(sizes[held_back].sum(dtype=np.int64))
    span = _span(of_large, rest / (capacity - classes.least + classes.middle))
    if not 0 < span <= capacity - classes.least:
        return None
    laid = _Laid(sizes, capacity, np.min_scalar_type(4 * total // span + len(sizes) // SAMPLE))
    laid.begin(large, of_large, span)
    small = sizes <= classes.small
    middle = ~(is_large | small)
    middle[held_back] = False
    laid.waiting.append(held_back)
    for kind in (middle, small):
        laid.fill(np.flatnonzero(kind), keep=classes.least)
    return laid.close()


def _classes(sizes: Unsigned, capacity: int) -> _Classes | None:
    """Where to part the items, from a sample of them. Cuts of a line are straddled by items of E[x²]/E[x] in the mean, so the items laid
    behind must have so many tokens a bin, and more."""
    sample = np.sort(sizes[:: len(sizes) // SAMPLE]).astype(np.float64)
    tokens, squares = (
        np.append(np.cumsum(sample[::-1])[::-1], 0),
        np.append(np.cumsum(np.square(sample[::-1]))[::-1], 0),
    )
    total = tokens[0]
    straddling = squares[:-1] / tokens[:-1]
    enough = tokens[:-1] / total + straddling / capacity <= LAID_FIRST
    above = int(enough.argmax())
    if not enough[above]:
        return None
    # The same once more for what straddles cuts between middle items: small ones fill what it leaves.
    inside = np.maximum(tokens[:above] - tokens[above], 1)
    middle = (squares[:above] - squares[above]) / inside
    enough = (total - tokens[:above]) / total >= 1.2 * middle / capacity
    below = int(enough.argmax()) if above else 0
    if not above or not enough[below]:
        return None
    large, small = int(sample[above]), int(sample[below])
    least, longest = small + small // 8, small + small // 8 + int(REACH * small)
    able = np.searchsorted(sample, longest, side="right") - np.searchsorted(sample, least)
    needed = SUPPLY * total / capacity
    if able < SCARCE * needed:
        return None
    return _Classes(large, small, least, longest, int(able / needed), float(middle[below]))


def _held_back(sizes: Unsigned, classes: _Classes) -> Indices:
    """The items that are to close bins, int64 [k]."""
    some = sizes[:: classes.stride]
    return np.flatnonzero((some >= classes.least) & (some <= classes.longest)) * classes.stride


def _span(sizes: Unsigned, bins: float) -> int:
    """How long the pieces are into which a line of large items of these `sizes` is cut, so that they, and what straddles, fill so many
    bins."""
    laid = sizes.astype(np.float32)
    tokens, some = int(laid.sum()), laid[::RARE].astype(np.float64)
    # What straddles is laid again, and again: shares of the line that fall like a series. The later ones weigh little.
    first = float(np.square(laid).sum()) / tokens
    powers = [some * some]
    powers += [powers[0] * some, powers[0] * powers[0]]
    second, third = (float(high.sum() / low.sum()) for low, high in pairwise(powers))
    span = tokens / bins
    for _ in range(4):
        span = tokens / bins * (1 + first / span * (1 + second / span * (1 + third / span)))
    return int(span)


@dataclass(frozen=True, slots=True)
class _Runs:
    """Of a line of `items`, those that each bin from `base` on has: items[first:last]."""

    base: int
    items: Indices
    first: Indices
    last: Indices


class _Laid:
    """Bins as they fill."""

    def __init__(self, sizes: Unsigned, capacity: int, kind: np.dtype[Any]) -> None:
        self._sizes, self._capacity = sizes, capacity
        self._bin_of = np.empty(len(sizes), kind)
        self._wide = np.int32 if len(sizes) * int(sizes.max()) < 2**31 else np.int64
        self._runs: list[_Runs] = []
        self.waiting: list[Indices] = []
        self._first = self._counts = self._room = np.zeros(0, np.int64)

    def begin(self, items: Indices, sizes: Unsigned, span: int) -> None:
        """Cut a line of items of these `sizes` into new bins, and then what straddled the cuts, until it is little."""
        contents: list[Indices] = []
        bins = int(sizes.sum(dtype=np.int64)) // span
        base = 0
        while bins >= LAST_PASS and (not contents or bins <= len(contents[-1]) // 2):
            content, items = self._cut(items, sizes, np.arange(1, bins + 1, dtype=np.int64) * span, base)
            contents.append(content)
            base += bins
            sizes = self._sizes[items]
            bins = int(sizes.sum(dtype=np.int64)) // span
        self.waiting.append(items)
        if contents:
            self._room = self._capacity - np.concatenate(contents)
            self._counts = np.concatenate([run.last - run.first for run in self._runs])
            begins = np.concatenate([run.items.take(run.first, mode="clip") for run in self._runs])
            # A bin in which nothing begins has no first item yet.
            self._first = np.where(self._counts > 0, begins, len(self._sizes))

    def fill(self, items: Indices, *, keep: int) -> None:
        """Lay a line of items into the rooms of all bins, less what is kept of each."""
        if not len(items):
            return
        content, left = self._cut(items, self._sizes[items], np.cumsum(np.maximum(self._room - keep, 0)), 0)
        self._room -= content
        run = self._runs[-1]
        some = np.flatnonzero(run.last > run.first)
        self._first[some] = np.minimum(self._first[some], items[run.first[some]])
        self._counts += run.last - run.first
        self.waiting.append(left)

    def _cut(self, items: Indices, sizes: Unsigned, ends: Indices, base: int) -> tuple[Indices, Indices]:
        """Cut a line of items of these `sizes` at `ends` int64 [bins] into bins from `base` on; returns how many tokens each has got, int64
        [bins], and the items that straddle a cut or lie behind the last."""
        line = np.zeros(len(items) + 1, self._wide)
        np.cumsum(sizes, out=line[1:], dtype=self._wide)
        last = np.searchsorted(line[1:], np.minimum(ends, line[-1]).astype(self._wide), side="right")
        until = line[last]
        straddled = (until < ends) & (last < len(items))
        first = np.zeros_like(last)
        first[1:] = np.minimum(last[:-1] + straddled[:-1], last[1:])
        bins = np.arange(base, base + len(ends)).astype(self._bin_of.dtype)
        counts = last.copy()
        counts[1:] -= last[:-1]
        self._bin_of[items[: last[-1]]] = np.repeat(bins, counts)
        self._runs.append(_Runs(base, items, first, last))
        cut = last[straddled]
        cut = cut[np.diff(cut, prepend=-1) > 0]  # one may straddle several cuts
        behind = int(last[-1]) + int(straddled[-1])
        return (until - line[first]).astype(np.int64), np.concatenate([items[cut], items[behind:]])

    def close(self) -> Filled | None:
        """Close every bin by an item of exactly its room, and give up those for which there is none."""
        waiting = np.concatenate(self.waiting)
        order = np.argsort(self._sizes[waiting], kind="stable")
        ranked = waiting[order]
        room = self._room.astype(self._sizes.dtype)
        by_room = np.argsort(room, kind="stable")
        room, sizes = room[by_room], self._sizes[ranked]
        # The n-th of the bins with one room takes the n-th of the items of that size.
        taken = np.searchsorted(sizes, room) + np.arange(len(room)) - np.searchsorted(room, room)
        found = taken < len(sizes)
        found &= sizes[np.minimum(taken, len(sizes) - 1)] == room
        closed, closers = by_room[found], ranked[taken[found]]
        self._bin_of[closers] = closed
        self._first[closed] = np.minimum(self._first[closed], closers)
        self._counts[closed] += 1
        missed = by_room[~found & (room > 0)]
        if len(missed) > MOST_MISSED * len(room):
            return None
        unused = np.ones(len(ranked), bool)
        unused[taken[found]] = False
        left = np.sort(np.concatenate([ranked[unused], *self._given_up(missed)]))
        self._first[missed], self._counts[missed] = len(self._sizes), 0
        return Filled(bin_of=self._bin_of, first=self._first, counts=self._counts, left=left)

    def _given_up(self, bins: Indices) -> Iterator[Indices]:
        """The items of some bins."""
        for run in self._runs:
            here = bins[(bins >= run.base) & (bins < run.base + len(run.first))] - run.base
            for first, last in zip(run.first[here].tolist(), run.last[here].tolist(), strict=True):
                yield run.items[first:last]
