"""A probe before it is fitted, and its context once it is: what stands before and behind, the units between, the needles among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from synth.needles.chance import Chance
from synth.needles.units import Measure, Units

STARTS = 64
"""Places at which a run of units may begin that are compared for how well they fill the context."""
CLOSE = 1
"""Tokens that a run may fall short of and still be taken at once."""


class TooSmallError(Exception):
    """A context has no room for what must stand in it; `tokens` is how many it needs."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


class TooShortError(Exception):
    """The haystack has fewer tokens than the context takes."""

    def __init__(self, has: int, needs: int) -> None:
        super().__init__(has, needs)
        self.has = has
        self.needs = needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A context: its pieces in order with the tokens of each, int64 [n], which of them hold the answers (in the order
    of the answers), whether all tokens add up, and what of the answer is known only now."""

    pieces: Sequence[str]
    tokens: NDArray[np.int64]
    needles: Sequence[int]
    apart: bool
    more: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A probe that still has no length. `lay` gives a context of at most so many tokens, ending with a line's end; raises TooSmallError.

    `others` are wrong answers that stand in the context. `say` makes a whole sentence of the outputs; without it they follow the prefix.
    """

    head: str
    tail: str
    answer_prefix: str
    outputs: Sequence[str]
    lay: Callable[[int], Body]
    others: Sequence[str] = ()
    say: Callable[[Sequence[str]], str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Contexts that are a run of units with needles between them: at `depths`, shares of the run in 0..1, rising.

    `told` are those of the needles that answer, in the order of the answers (all, unless it says otherwise). `label(i)` is the text
    before the i-th item of the context (from 0), needles counted, for items that are numbered. `last` mends the last piece.
    """

    units: Units
    measure: Measure
    chance: Chance
    needles: Sequence[str]
    depths: Sequence[float]
    told: Sequence[int] | None = None
    spaced: bool = True
    label: Callable[[int], str] | None = None
    last: Callable[[str], str] = field(default=lambda text: text)

    def __call__(self, room: int) -> Body:
        """Lay out a context of at most `room` tokens."""
        middle, own = (self.measure.counts([form(n) for n in self.needles]) for form in (self._inline, self._own_line))
        needed = int(np.maximum(middle, own).sum())
        before, openers = self.units.before, self.units.openers
        labels = self._labels(room)
        free = room - needed - int(labels[len(self.needles)]) - 1
        if free < int(self.units.tokens[:8].max()):
            raise TooSmallError(room - free + int(self.units.tokens[:8].max()))
        first, end = self._run(free, before, openers, labels)
        return self._laid(first, end, (middle, own))

    def _labels(self, room: int) -> NDArray[np.int64]:
        """Tokens of the first labels together, int64 [n + 1]; zeros where there are none."""
        most = len(self.units.texts) + len(self.needles) + 1
        if self.label is None:
            return np.zeros(most + 1, np.int64)
        # A room below nothing, which a large answer_budget leaves, has a first label too: the sentence about it comes later.
        wanted = max(1, min(most, room // max(1, int(self.units.tokens.min())) + len(self.needles) + 2))
        counts = self.measure.counts([self.label(i) for i in range(wanted)])
        counts = np.concatenate([counts, np.full(most - wanted, counts.max())])
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])

    def _run(
        self, free: int, before: NDArray[np.int64], openers: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> tuple[int, int]:
        """The best filled of some runs that begin with a line, from `first` to `end` (not included)."""
        whole = int(before[-1])
        if whole < free:
            raise TooShortError(whole, free)
        latest = int(np.searchsorted(before, whole - free, side="right"))
        starts = openers[openers < max(1, latest)] if self.spaced else np.arange(max(1, latest))
        if len(starts) > STARTS:
            starts = starts[(self.chance.numbers(STARTS) * len(starts)).astype(np.int64)]
        if self.label is None:
            ends = np.searchsorted(before, before[starts] + free, side="right") - 1
            sizes = before[ends] - before[starts]
        else:
            ends, sizes = self._labelled_ends(starts, free, before, labels)
        short = free - sizes
        good = np.flatnonzero(short <= max(CLOSE, int(short.min())))
        best = int(good[0])
        return int(starts[best]), int(ends[best])

    def _labelled_ends(
        self, starts: NDArray[np.int64], free: int, before: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        offset = len(self.needles)
        ends, sizes = np.zeros_like(starts), np.zeros_like(starts)
        for i, start in enumerate(starts.tolist()):
            cost = before[start:] - before[start]
            cost = cost + labels[offset : offset + len(cost)] - labels[offset]
            fits = int(np.searchsorted(cost, free, side="right")) - 1
            ends[i], sizes[i] = start + fits, cost[fits]
        return ends, sizes

    def _laid(self, first: int, end: int, sizes: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Body:
        """The pieces of a run with its needles at the unit borders nearest to their depths."""
        texts = list(self.units.texts[first:end])
        tokens = self.units.tokens[first:end].tolist()
        run = self.units.before[first : end + 1] - self.units.before[first]
        places = [_nearest(run, depth * float(run[-1])) for depth in self.depths]
        pieces: list[str] = []
        counts: list[int] = []
        needles: list[int] = []
        at = 0
        for number, place in enumerate(places):
            pieces += texts[at:place]
            counts += tokens[at:place]
            opens = not pieces or pieces[-1].endswith("\n") or not self.spaced
            needles.append(len(pieces))
            pieces.append((self._own_line if opens else self._inline)(self.needles[number]))
            counts.append(int(sizes[1 if opens else 0][number]))
            at = place
        pieces += texts[at:]
        counts += tokens[at:]
        return self._closed(pieces, counts, needles)

    def _closed(self, pieces: list[str], counts: list[int], needles: list[int]) -> Body:
        """Label the items, end the last line, and say whether the tokens of all pieces add up."""
        closing = self.last(pieces[-1])
        pieces[-1] = closing if closing.endswith("\n") else closing + "\n"
        counts[-1] = self.measure.count(pieces[-1])
        apart = self.units.apart
        if self.label is not None:
            labels = [self.label(i) for i in range(len(pieces))]
            counts = (np.array(counts) + self.measure.counts(labels)).tolist()
            apart = apart and all(self.measure.apart(a, b) for a, b in zip(labels[:9], pieces[:9], strict=False))
            apart = apart and all(self.measure.apart(a, b) for a, b in zip(pieces[:9], labels[1:10], strict=False))
            pieces = [label + piece for label, piece in zip(labels, pieces, strict=True)]
        near = {i for n in needles for i in (n - 1, n)} | {len(pieces) - 2}
        splices = [(pieces[i], pieces[i + 1]) for i in sorted(near) if 0 <= i < len(pieces) - 1]
        apart = apart and all(self.measure.apart(left, right) for left, right in splices)
        told = needles if self.told is None else [needles[i] for i in self.told]
        return Body(pieces=pieces, tokens=np.array(counts, np.int64), needles=told, apart=apart)

    def _inline(self, needle: str) -> str:
        return f" {needle}" if self.spaced else self._own_line(needle)

    def _own_line(self, needle: str) -> str:
        return f"{needle}\n" if self.spaced else needle


def _nearest(run: NDArray[np.int64], place: float) -> int:
    """The border nearest to a place."""
    above = int(np.searchsorted(run, place))
    if above >= len(run):
        return len(run) - 1
    return above if above == 0 or run[above] - place <= place - run[above - 1] else above - 1
