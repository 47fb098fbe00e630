"""Lengths in tokens: how long a conversation is to be, how long it is, and which rows make it so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from packing.chat import ChatTemplate
from packing.chat_layout import Joined
from packing.draws import Draws
from packing.template_wording import is_tried
from packing.tokenizers import Encoded, Tokenizer, utf8_length
from synth.needles.units import Measure
from synth.tables.render.format import Format

EXACT_FROM = 4096
WIDE, NARROW = 0.93, 0.99
"""A conversation has at least this share of its target: 93% below EXACT_FROM tokens, 99% from there on. Never more than all of it."""
NEAR = 96
"""How many chosen and spare rows are looked at to exchange one for another."""
EXCHANGES = 24
MOST_BORDERS = 1 << 14
"""Borders between rows of which it is remembered what the tokenizer makes."""
FIRST, LAST = itemgetter(0), itemgetter(-1)


_measured: WeakKeyDictionary[Tokenizer, dict[tuple[str, ...], float]] = WeakKeyDictionary()
"""What was measured with each tokenizer that is still in use: functions of the tokenizer and the key alone, so a memory and no state."""
_borders: WeakKeyDictionary[Tokenizer, dict[tuple[str, str], bool]] = WeakKeyDictionary()
"""Likewise, whether what ends and what begins on the two sides of a border are tokenised each for itself."""


def shortest(target: int) -> int:
    """The fewest tokens that a conversation of `target` tokens may have."""
    return math.ceil(target * (NARROW if target >= EXACT_FROM else WIDE))


def targets(
    lengths: Sequence[int] | tuple[int, int, Literal["uniform", "log_uniform"]], *, seed: int, rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How long each row is to be, int64 [n]: one of a list, or from a least to a largest length, each as likely as any other
    (`uniform`) or each doubling as likely as any other (`log_uniform`)."""
    u = Draws(seed, "synl/length").uniform(rows)
    if isinstance(lengths, tuple) and len(lengths) == 3 and isinstance(lengths[2], str):
        least, most, draw = lengths
        spread = least + u * (most - least) if draw == "uniform" else least * (most / least) ** u
        return np.clip(np.rint(spread).astype(np.int64), least, most)
    listed = np.array(lengths, np.int64)
    return listed[np.minimum((u * len(listed)).astype(np.int64), len(listed) - 1)]


class TokenCounter:
    """What the tokenizer says of texts and of whole conversations."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self._tokenizer, self._template = tokenizer, template
        self.disagreed = 0
        """Texts at which the tokenizer's faster engine was caught; they were counted by the reference."""
        self.template_disagreed = 0
        """Conversations that the template was found to write otherwise than it seemed to; they were rendered."""
        self.remembered = _measured.setdefault(tokenizer, {})
        """Means per row, sizes of smallest tables: functions of their keys and the tokenizer, which every shard and preview asks for."""
        self._measure = Measure(tokenizer)
        self._borders = _borders.setdefault(tokenizer, {})

    def lines(self, lines: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text by itself, int64 [n]."""
        return np.diff(self._encoded(lines).offsets)

    def rows(self, rows: Sequence[str], form: Format) -> NDArray[np.int64]:
        """Tokens of each row by itself with what stands between rows behind it, int64 [n]. They are one text to the tokenizer where it
        sees no further than their borders."""
        if not self._apart(rows, form):
            return self.lines([row + form.between for row in rows])
        text = form.between.join(rows) + form.between
        sizes = map(len if text.isascii() else utf8_length, rows)
        ends = np.cumsum(np.fromiter(sizes, np.int64, count=len(rows)) + len(form.between))
        before = np.searchsorted(self._encoded([text]).starts, ends)
        before[1:] -= before[:-1].copy()
        return before

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Tokens of a conversation rendered by the chat template, everything included."""
        joined = self._joined(messages)
        if (
            joined is not None
            and is_tried(messages[-1]["content"])
            and self._template.disagreements([(messages, joined.text)])
        ):
            self.template_disagreed += 1
            joined = None
        return self._length(self._template.text(messages) if joined is None else joined.text)

    def draft(self, messages: Sequence[Mapping[str, str]]) -> int:
        """The same of a conversation that is not yet what it will be: whether the template wrote it as it seems to is not tried."""
        joined = self._joined(messages)
        return self._length(self._template.text(messages) if joined is None else joined.text)

    def _joined(self, messages: Sequence[Mapping[str, str]]) -> Joined | None:
        roles = tuple([message["role"] for message in messages])
        return self._template.joined(roles, [message["content"] for message in messages], train_on="all", spelled=True)

    def _length(self, text: str) -> int:
        return len(self._encoded([text]).ids)

    def _apart(self, rows: Sequence[str], form: Format) -> bool:
        """Whether the tokens of rows, each with what stands between them behind it, add up."""
        if not self._tokenizer.cuts_at_words or len(rows) < 2:
            return False
        if form.alike:
            return self._cuts(rows[0][-2:] + form.between, rows[1][:3])
        # cells neither begin nor end with a space, so one sign says what stands at a border
        pairs = set(zip(map(LAST, rows[:-1]), map(FIRST, rows[1:]), strict=True))
        return all(self._cuts(last + form.between, first) for last, first in pairs)

    def _cuts(self, left: str, right: str) -> bool:
        key = (left, right)
        if key not in self._borders:
            if len(self._borders) >= MOST_BORDERS:
                self._borders.clear()
            self._borders[key] = self._measure.apart(left, right)
        return self._borders[key]

    def _encoded(self, texts: Sequence[str]) -> Encoded:
        encoded = self._tokenizer.encode(texts)
        self.disagreed += encoded.disagreed
        return encoded


def adjusted(
    chosen: NDArray[np.int64], counts: NDArray[np.int64], shortage: int, tolerance: int
) -> NDArray[np.int64] | None:
    """Rows whose tokens add up to `shortage` more than those of `chosen`, to within `tolerance` where that can be had.

    `counts` int64 [candidates] are the tokens of every candidate row, `chosen` int64 [n] the ones that are in. Rows are added from
    the spare ones or dropped at the end, then single rows are exchanged for longer or shorter ones. None where candidates run out.
    """
    taken = np.zeros(len(counts), bool)
    taken[chosen] = True
    rows, spare = chosen.tolist(), np.flatnonzero(~taken).tolist()
    spare.reverse()
    while rows and shortage < 0 and abs(shortage + counts[rows[-1]]) < abs(shortage):
        shortage += int(counts[rows[-1]])
        rows.pop()
    while shortage > 0 and spare and abs(shortage - counts[spare[-1]]) < abs(shortage):
        shortage -= int(counts[spare[-1]])
        rows.append(spare.pop())
    if not rows or (shortage > tolerance and not spare):
        return None
    return _exchanged(np.array(rows, np.int64), np.array(spare[::-1], np.int64), counts, shortage, tolerance)


def _exchanged(
    rows: NDArray[np.int64], spare: NDArray[np.int64], counts: NDArray[np.int64], shortage: int, tolerance: int
) -> NDArray[np.int64]:
    near, others = rows[-NEAR:], spare[:NEAR].copy()
    for _ in range(EXCHANGES):
        if abs(shortage) <= tolerance or not len(others):
            break
        gains = counts[others][None, :] - counts[near][:, None]
        place = int(np.argmin(np.abs(gains - shortage)))
        i, j = divmod(place, len(others))
        gain = int(gains[i, j])
        if abs(shortage - gain) >= abs(shortage):
            break
        near[i], others[j] = others[j], near[i]
        shortage -= gain
    return rows
