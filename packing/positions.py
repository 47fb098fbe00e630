"""Where the position ids of a conversation jump (SkipAlign, arXiv 2405.03939).

A conversation is a list of blocks x1, y1, …, xn, yn. Positions run on inside a block; block j is moved by its bias u_j = u_{j-1} +
s_j, s_j >= 0. The paper names where a skip may stand (`outer` before x2, x3, …; `inner` before y1, y2, …; `all` before every block
but the first) and not how s_j is drawn. `span` is our choice: the whole span T is uniform over 0..B, B = L - N, and the gaps split it
at uniform cuts, so that the last bias is uniform whatever the number of gaps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packing.chat_tokens import offsets_of, within
from packing.draws import Draws

REASONS = ("", "not drawn", "no gap", "too long", "zero span")
"""Why a conversation was not skipped: 0 it was; 1 the draw of `probability` said no; 2 the strategy finds no gap in it (one turn under
`outer`); 3 it fills `max_position` or more; 4 the drawn span was 0."""

SKIPPED, NOT_DRAWN, NO_GAP, TOO_LONG, ZERO_SPAN = range(5)
_CHANCE, _SPAN, _CUTS = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """`bias` int64 [B] of every block in its own sequence; `reason` int8 [R] an index into REASONS, 0 where positions jump."""

    bias: NDArray[np.int64]
    reason: NDArray[np.int8]


def eligible(strategy: str, responses: NDArray[np.bool_], block_offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Blocks before which the strategy may skip: bool [B]."""
    inside = np.ones(len(responses), bool)
    first = block_offsets[:-1]
    inside[first[np.diff(block_offsets) > 0]] = False
    if strategy == "none":
        return np.zeros(len(responses), bool)
    if strategy == "inner":
        return inside & responses
    return inside & ~responses if strategy == "outer" else inside


def place(
    *,
    strategy: str,
    probability: float,
    max_position: int,
    responses: NDArray[np.bool_],
    lengths: NDArray[np.int64],
    block_offsets: NDArray[np.int64],
    row: NDArray[np.int64],
    variant: NDArray[np.int64],
    draws: Draws,
) -> Placement:
    """Draw the biases of R conversations. `row` int64 [R] and `variant` int64 [R] key the draws; they are all that does."""
    rows = len(block_offsets) - 1
    gap = eligible(strategy, responses, block_offsets)
    block_row = np.repeat(np.arange(rows), np.diff(block_offsets))
    gaps = np.bincount(block_row[gap], minlength=rows).astype(np.int64)
    total = np.bincount(block_row, weights=lengths, minlength=rows).astype(np.int64)
    budget = max_position - total
    reason = np.zeros(rows, np.int8)
    reason[draws.uniform(row, _CHANCE, variant) >= probability] = NOT_DRAWN
    reason[budget <= 0] = TOO_LONG
    reason[gaps == 0] = NO_GAP
    span = draws.integer(np.maximum(budget, 0), row, _SPAN, variant)
    reason[(reason == SKIPPED) & (span == 0)] = ZERO_SPAN
    span[reason != SKIPPED] = 0
    after_gap = _split(span, gaps, row, variant, draws)
    # A block's bias is that of the last gap before it: 0 before the first one.
    count = np.cumsum(gap) - np.repeat(offsets_of(gaps)[:-1], np.diff(block_offsets))
    bias = np.zeros(len(lengths), np.int64)
    moved = count > 0
    bias[moved] = after_gap[(np.repeat(offsets_of(gaps)[:-1], np.diff(block_offsets)) + count - 1)[moved]]
    return Placement(bias=bias, reason=reason)


def _split(
    span: NDArray[np.int64], gaps: NDArray[np.int64], row: NDArray[np.int64], variant: NDArray[np.int64], draws: Draws
) -> NDArray[np.int64]:
    """The bias after each gap, rows end to end: sorted uniform cuts of 0..span, the last of them span itself."""
    number = within(gaps)
    of_row = np.repeat(np.arange(len(gaps)), gaps)
    cuts = draws.integer(span[of_row], row[of_row], _CUTS + number, variant[of_row])
    last = number == gaps[of_row] - 1
    cuts[last] = span[of_row][last]
    return cuts[np.lexsort((cuts, of_row))]


def position_ids(lengths: NDArray[np.int64], bias: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int32]:
    """Positions of all tokens, int32 [T], from block lengths and biases [B] and row offsets [R + 1]."""
    return (within(np.diff(offsets)) + np.repeat(bias, lengths)).astype(np.int32)
