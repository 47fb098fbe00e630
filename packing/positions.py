"""Where the position ids of a conversation jump.

SkipAlign (arXiv 2405.03939): a conversation is a list of blocks x1, y1, …, xn, yn; positions run on inside a block, and block j is moved
by its bias u_j = u_{j-1} + s_j, s_j >= 0. The paper names where a skip may stand (`outer` before x2, x3, …; `inner` before y1, y2, …;
`all` before every block but the first) and not how s_j is drawn: `span` is our choice, `chain` and `slots` are the other readings.

The relatives it is compared with place tokens without regard to turns. `pose` (arXiv 2309.10400; as published in its code): two chunks,
cut at a uniform place in the first half, the second moved by U{0..B}. `random` (RandPos, Ruoss et al. 2023): a sorted random sample of
0..L-1, of which we fix the first to 0. `cream` (arXiv 2406.07138): a short head at the start, a short tail at the end of the range, the
middle moved by a truncated Gaussian around half of it; its constants are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from packing.chat_tokens import offsets_of, within
from packing.draws import Draws

REASONS = ("", "not drawn", "no gap", "too long", "zero span")
"""Why a sequence was not skipped: 0 it was; 1 the draw of `probability` said no; 2 the strategy finds no gap in it (one turn under
`outer`); 3 it fills `max_position` or more; 4 the drawn span was 0."""

SKIPPED, NOT_DRAWN, NO_GAP, TOO_LONG, ZERO_SPAN = range(5)
BY_TURNS = frozenset({"outer", "inner", "all", "none"})
EDGE = 32
"""Tokens of CREAM's head and of its tail, or a third of the row where that is less."""
_CHANCE, _SPAN, _CUTS = 0, 1, 2
_CUT_BITS = 31
"""Positions are int32, so a cut has no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """R sequences as blocks: `responses` bool [B], `lengths` int64 [B], `offsets` int64 [R + 1] into them; `row` int64 [R] and `variant`
    int64 [R] key the draws, and they are all that does."""

    responses: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    offsets: NDArray[np.int64]
    row: NDArray[np.int64]
    variant: NDArray[np.int64]

    @property
    def of_block(self) -> NDArray[np.int64]:
        """The sequence of every block, int64 [B]."""
        return np.repeat(np.arange(len(self.row)), np.diff(self.offsets))

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Tokens of every sequence, int64 [R]."""
        return np.bincount(self.of_block, weights=self.lengths, minlength=len(self.row)).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """`sequences` as given, or with blocks split where a strategy cuts inside them; `bias` int64 [B] of every block in its sequence;
    `reason` int8 [R] an index into REASONS, 0 where positions jump; `positions` int32 [T] of all tokens, one apart inside a block where
    they are `running`."""

    sequences: Sequences
    bias: NDArray[np.int64]
    reason: NDArray[np.int8]
    positions: NDArray[np.int32]
    running: bool = True

    @property
    def runs(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Runs of positions one apart: where each starts, how long it is and of which block, int64 [runs]."""
        lengths = self.sequences.lengths
        block = np.arange(len(lengths))
        if self.running:
            return self.positions[offsets_of(lengths)[:-1]].astype(np.int64), lengths, block
        return self.positions.astype(np.int64), np.ones(len(self.positions), np.int64), np.repeat(block, lengths)


def eligible(strategy: str, responses: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Blocks before which a strategy by turns may skip: bool [B]."""
    inside = np.ones(len(responses), bool)
    inside[offsets[:-1][np.diff(offsets) > 0]] = False
    if strategy == "none":
        return np.zeros(len(responses), bool)
    if strategy == "inner":
        return inside & responses
    return inside & ~responses if strategy == "outer" else inside


def place(
    sequences: Sequences, *, strategy: str, probability: float, max_position: int, draw: str, draws: Draws
) -> Placement:
    """Draw the positions of R sequences; `draw` says how a strategy by turns spreads its skips: `span`, `chain` or `slots`."""
    budget = max_position - sequences.tokens
    by_turns = strategy in BY_TURNS
    gap = eligible(strategy, sequences.responses, sequences.offsets) if by_turns else np.zeros(0, bool)
    least = {"pose": 2, "random": 2, "cream": 3}.get(strategy, 0)
    possible = (
        np.bincount(sequences.of_block[gap], minlength=len(budget)) > 0 if by_turns else sequences.tokens >= least
    )
    reason = np.zeros(len(budget), np.int8)
    reason[draws.uniform(sequences.row, _CHANCE, sequences.variant) >= probability] = NOT_DRAWN
    reason[budget <= 0] = TOO_LONG
    reason[~possible] = NO_GAP
    budget = np.where(reason == SKIPPED, np.maximum(budget, 0), 0)
    if by_turns:
        bias = _by_turns(sequences, gap, budget, draw, draws)
    elif strategy == "random":
        return _random(sequences, reason, max_position, draws)
    else:
        cut = _pose if strategy == "pose" else _cream
        sequences, bias = cut(sequences, reason == SKIPPED, budget, draws)
    last = bias[sequences.offsets[1:] - 1]
    reason[(reason == SKIPPED) & (last == 0)] = ZERO_SPAN
    positions = position_ids(sequences, bias)
    return Placement(sequences=sequences, bias=bias, reason=reason, positions=positions)


def position_ids(sequences: Sequences, bias: NDArray[np.int64]) -> NDArray[np.int32]:
    """Positions of all tokens, int32 [T], from the biases of blocks int64 [B]."""
    lengths = sequences.lengths
    # What a block's first position is more than its number among all tokens, every other of the block is too.
    opens = offsets_of(lengths)[sequences.offsets[:-1]]
    moved = np.repeat((bias - opens[sequences.of_block]).astype(np.int32), lengths)
    moved += np.arange(len(moved), dtype=np.int32)
    return moved


def _by_turns(
    sequences: Sequences, gap: NDArray[np.bool_], budget: NDArray[np.int64], draw: str, draws: Draws
) -> NDArray[np.int64]:
    """The bias of every block: that of the last gap before it, 0 before the first."""
    gaps = np.bincount(sequences.of_block[gap], minlength=len(budget)).astype(np.int64)
    after_gap = {"span": _span, "chain": _chain, "slots": _slots}[draw](budget, gaps, sequences, draws)
    before = np.repeat(offsets_of(gaps)[:-1], np.diff(sequences.offsets))
    passed = np.cumsum(gap) - before
    bias = np.zeros(len(gap), np.int64)
    bias[passed > 0] = after_gap[(before + passed - 1)[passed > 0]]
    return bias


def _span(budget: NDArray[np.int64], gaps: NDArray[np.int64], sequences: Sequences, draws: Draws) -> NDArray[np.int64]:
    """The bias after each gap, sequences end to end: the whole span is U{0..B}, split at sorted uniform cuts. So the last bias is uniform
    whatever the number of gaps, which is the aim that LOGO (arXiv 2410.18533, 3.1) ascribes to SkipAlign."""
    span = draws.integer(budget, sequences.row, _SPAN, sequences.variant)
    number, of = within(gaps), np.repeat(np.arange(len(gaps)), gaps)
    cuts = draws.integer(span[of], sequences.row[of], _CUTS + number, sequences.variant[of])
    cuts[number == gaps[of] - 1] = span[of][number == gaps[of] - 1]
    # Sorted within every sequence: as one number, the sequence above and the cut below, for a sort by two keys takes ten times as long.
    return np.sort((of << _CUT_BITS) | cuts) & ((1 << _CUT_BITS) - 1)


def _chain(budget: NDArray[np.int64], gaps: NDArray[np.int64], sequences: Sequences, draws: Draws) -> NDArray[np.int64]:
    """Each bias U{u_{j-1}..B}, as PoSE chains its chunks: with many gaps nearly all of the span is used up early."""
    after = np.zeros(int(gaps.sum()), np.int64)
    first, reached = offsets_of(gaps)[:-1], np.zeros(len(gaps), np.int64)
    for number in range(int(gaps.max(initial=0))):
        on = np.flatnonzero(gaps > number)
        step = draws.integer(budget[on] - reached[on], sequences.row[on], _CUTS + number, sequences.variant[on])
        reached[on] += step
        after[first[on] + number] = reached[on]
    return after


def _slots(budget: NDArray[np.int64], gaps: NDArray[np.int64], sequences: Sequences, draws: Draws) -> NDArray[np.int64]:
    """Each skip U{0..B/g}: equal slots for g gaps, so that the last bias gathers around B/2."""
    number, of = within(gaps), np.repeat(np.arange(len(gaps)), gaps)
    steps = draws.integer(budget[of] // gaps[of], sequences.row[of], _CUTS + number, sequences.variant[of])
    total = np.cumsum(steps)
    return total - np.repeat(np.append(0, total)[offsets_of(gaps)[:-1]], gaps)


def _pose(
    sequences: Sequences, chosen: NDArray[np.bool_], budget: NDArray[np.int64], draws: Draws
) -> tuple[Sequences, NDArray[np.int64]]:
    """Two chunks: the first has U{1..(N+1)/2} tokens (less than all of them), the second is moved by U{0..B}."""
    tokens = sequences.tokens
    largest = np.maximum(np.minimum((tokens + 1) // 2, tokens - 1), 1)
    first = 1 + draws.integer(largest - 1, sequences.row, _CUTS, sequences.variant)
    moved = draws.integer(budget, sequences.row, _SPAN, sequences.variant)
    cuts = np.where(chosen, first, tokens)
    return _moved_from(sequences, [cuts], [moved])


def _cream(
    sequences: Sequences, chosen: NDArray[np.bool_], budget: NDArray[np.int64], draws: Draws
) -> tuple[Sequences, NDArray[np.int64]]:
    """Head at the start, tail moved by all of B, the middle by a Gaussian of mean B/2 and deviation B/6, cut off at 0 and B."""
    tokens = sequences.tokens
    edge = np.minimum(EDGE, tokens // 3)
    normal = NormalDist()
    low, high = normal.cdf(-3), normal.cdf(3)
    drawn = low + (high - low) * draws.uniform(sequences.row, _SPAN, sequences.variant)
    score = np.fromiter((normal.inv_cdf(u) for u in drawn.tolist()), np.float64, count=len(drawn))
    middle = np.clip(np.rint(budget * (0.5 + score / 6)), 0, budget).astype(np.int64)
    cuts = [np.where(chosen, edge, tokens), np.where(chosen, tokens - edge, tokens)]
    return _moved_from(sequences, cuts, [middle, budget])


def _moved_from(
    sequences: Sequences, cuts: list[NDArray[np.int64]], moves: list[NDArray[np.int64]]
) -> tuple[Sequences, NDArray[np.int64]]:
    """Split blocks at token `cuts` [R] (rising; a sequence's end: no cut) and move what lies behind each by its `moves` [R]."""
    base = offsets_of(sequences.tokens)
    starts, of = offsets_of(sequences.lengths)[:-1], sequences.of_block
    extra = [(base[:-1] + cut)[cut < sequences.tokens] for cut in cuts]
    points = np.unique(np.concatenate([starts, *extra]))
    block = np.searchsorted(starts, points, side="right") - 1
    row = of[block]
    bias = np.zeros(len(points), np.int64)
    for cut, move in zip(cuts, moves, strict=True):
        behind = points - base[row] >= cut[row]
        bias[behind] = move[row][behind]
    split = replace(
        sequences,
        responses=sequences.responses[block],
        lengths=np.diff(np.append(points, base[-1])),
        offsets=offsets_of(np.bincount(row, minlength=len(sequences.row))),
    )
    return split, bias


def _random(sequences: Sequences, reason: NDArray[np.int8], max_position: int, draws: Draws) -> Placement:
    """Positions 0 and a sorted sample without replacement of 1..L-1; a block's bias is that of its first token."""
    tokens = sequences.tokens
    offsets = offsets_of(tokens)
    positions = within(tokens)
    for i in np.flatnonzero(reason == SKIPPED):
        sample = _sample(int(tokens[i]) - 1, max_position - 1, int(sequences.row[i]), int(sequences.variant[i]), draws)
        positions[offsets[i] + 1 : offsets[i + 1]] = 1 + sample
    first = offsets_of(sequences.lengths)[:-1]
    bias = positions[first] - (first - offsets[:-1][sequences.of_block])
    reason[(reason == SKIPPED) & (positions[offsets[1:] - 1] == tokens - 1)] = ZERO_SPAN
    return Placement(sequences=sequences, bias=bias, reason=reason, positions=positions.astype(np.int32), running=False)


def _sample(count: int, of: int, row: int, variant: int, draws: Draws) -> NDArray[np.int64]:
    """A sorted uniform sample of `count` different numbers of 0..of-1: draws in order, repeats passed over."""
    if count > of // 2:
        left_out = _sample(of - count, of, row, variant, draws)
        return np.setdiff1d(np.arange(of), left_out, assume_unique=True)
    found, drawn = np.zeros(0, np.int64), 0
    while len(found) < count:
        more = draws.integer(of - 1, row, _CUTS + drawn + np.arange(2 * count), variant)
        drawn += 2 * count
        both = np.concatenate([found, more])
        _, first = np.unique(both, return_index=True)
        found = both[np.sort(first)][:count]
    return np.sort(found)
