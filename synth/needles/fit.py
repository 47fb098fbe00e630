"""The exact fit: a draft and a length make a probe whose tokens are counted, with the span of every needle.

Counts come from pieces that were tokenised once. Where pre-tokens end at every border they add up for certain, and the whole text is
tokenised for a sample only; other tokenizers look at the whole text every time, and what they find corrects the fit, a few times at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from packing.tokenizers import utf8_length
from synth.needles.body import Body, Draft
from synth.needles.units import Measure, Units

ATTEMPTS = 6
OPENING = 6
"""Sentences that may stand before the task where items are too coarse to fill a context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Where a needle stands: tokens start..end of the input, and how deep in the context, 0 to 100."""

    start: int
    end: int
    depth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A probe's text at its length. `n_tokens` counts input and answer prefix; `more` is what
    of the answer was known only with the context, `whole` says that the whole text was tokenised, `adds_up` that its pieces'
    tokens are the text's."""

    input: str
    n_tokens: int
    needles: tuple[Span, ...]
    more: tuple[str, ...]
    whole: bool
    adds_up: bool


class NoFitError(Exception):
    """No text within the bounds was found in a few attempts; `nearest` is the count that came closest."""

    def __init__(self, nearest: int) -> None:
        super().__init__(nearest)
        self.nearest = nearest


def least_fill(length: int) -> int:
    """The fewest tokens, answer budget included, that a probe of this length may have: 99%, or 97% under 4,096."""
    return -(-length * (97 if length < 4096 else 99) // 100)


def fit(draft: Draft, *, length: int, budget: int, measure: Measure, fillers: Units, whole: bool) -> Fitted:
    """Fill a draft to `length` tokens less its answer budget. Raises what `draft.lay` raises, and NoFitError.

    `whole` asks for the whole text to be tokenised even where counts add up.
    """
    behind = draft.tail + draft.answer_prefix
    fixed = measure.count(draft.head) + int(measure.counts([behind])[0])
    correction, nearest = 0, 0
    for _ in range(ATTEMPTS):
        room = length - budget - fixed - correction
        body = draft.lay(room)
        gap = room - int(body.tokens.sum())
        opening = _opening(gap, length - least_fill(length), fillers)
        made = _counted(draft, body, opening, fillers, behind, measure, whole=whole)
        if least_fill(length) <= made.n_tokens + budget <= length:
            return made
        nearest = made.n_tokens + budget
        over = nearest - length
        correction += over if over > 0 else over + (length - least_fill(length)) // 4
    raise NoFitError(nearest)


def _opening(gap: int, slack: int, fillers: Units) -> list[int]:
    """Lines to put before the task: as few as bring the gap within half of the slack."""
    chosen: list[int] = []
    order = np.argsort(fillers.tokens, kind="stable")
    sizes = fillers.tokens[order]
    while gap > slack // 2 and len(chosen) < OPENING:
        place = int(np.searchsorted(sizes, gap, side="right")) - 1
        while place >= 0 and int(order[place]) in chosen:
            place -= 1
        if place < 0:
            break
        chosen.append(int(order[place]))
        gap -= int(sizes[place])
    return chosen


def _counted(
    draft: Draft, body: Body, opening: Sequence[int], fillers: Units, behind: str, measure: Measure, *, whole: bool
) -> Fitted:
    """Put the text together and count it, by pieces or whole."""
    front = [*(fillers.texts[i] for i in opening), draft.head]
    texts = [*front, *body.pieces, draft.tail]
    text = "".join(texts)
    seams = [*pairwise(front), (draft.head, body.pieces[0]), (body.pieces[-1], behind)]
    adds_up = body.apart and fillers.apart and all(measure.apart(left, right) for left, right in seams if left)
    lead = sum(int(fillers.tokens[i]) for i in opening) + measure.count(draft.head)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(body.tokens)]) + lead
    if adds_up and not whole:
        spans = _spans_by_piece(body, starts, measure)
        total = int(starts[-1]) + int(measure.counts([behind])[0])
        return Fitted(
            input=text, n_tokens=total, needles=_depths(spans, starts), more=(*body.more,), whole=False, adds_up=True
        )
    encoded = measure.tokenizer.encode([text + draft.answer_prefix])
    edges = np.cumsum([0, *map(utf8_length, texts)])[len(front) :]
    spans = [_span(encoded.starts, int(edges[i]), body.pieces[i]) for i in body.needles]
    found = np.searchsorted(encoded.starts, edges[:-1])
    total = len(encoded.ids)
    adds_up = adds_up and total == int(starts[-1]) + int(measure.counts([behind])[0])
    return Fitted(
        input=text, n_tokens=total, needles=_depths(spans, found), more=(*body.more,), whole=True, adds_up=adds_up
    )


def _spans_by_piece(body: Body, starts: NDArray[np.int64], measure: Measure) -> list[tuple[int, int]]:
    """The same spans as in the whole text: a needle's tokens are those of its piece by itself, less those of space around it."""
    pieces = [body.pieces[i] for i in body.needles]
    if not pieces:
        return []
    alone = measure.tokenizer.encode(pieces)
    found: list[tuple[int, int]] = []
    for number, (place, piece) in enumerate(zip(body.needles, pieces, strict=True)):
        begin, end = _span(alone.starts[alone.offsets[number] : alone.offsets[number + 1]], 0, piece)
        found.append((int(starts[place]) + begin, int(starts[place]) + end))
    return found


def _span(starts: NDArray[np.int64], first: int, piece: str) -> tuple[int, int]:
    """The tokens that hold a needle, from the one its first letter is in to the one its last letter is in."""
    begin = first + utf8_length(piece[: len(piece) - len(piece.lstrip())])
    end = first + utf8_length(piece.rstrip())
    # Tokens of the bytes of one character all begin where it does: the first of them is meant.
    holding = starts[int(np.searchsorted(starts, begin, side="right")) - 1]
    return int(np.searchsorted(starts, holding, side="left")), int(np.searchsorted(starts, end, side="left"))


def _depths(spans: Sequence[tuple[int, int]], starts: NDArray[np.int64]) -> tuple[Span, ...]:
    """Spans with their depths: the share of the context's other tokens that stands before each needle."""
    context = int(starts[-1] - starts[0]) - sum(end - start for start, end in spans)
    found: list[Span] = []
    for start, end in spans:
        passed = sum(other_end - other for other, other_end in spans if other < start)
        depth = (start - int(starts[0]) - passed) / max(1, context)
        found.append(Span(start=start, end=end, depth=round(100 * min(1.0, max(0.0, depth)), 3)))
    return tuple(found)
