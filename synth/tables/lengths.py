"""Lengths in tokens: how long a conversation is to be, how long it is, and which rows make it so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from packing.chat import ChatTemplate
from packing.draws import Draws
from packing.tokenizers import Encoded, Tokenizer

EXACT_FROM = 4096
WIDE, NARROW = 0.93, 0.99
"""A conversation has at least this share of its target: 93% below EXACT_FROM tokens, 99% from there on. Never more than all of it."""
NEAR = 96
"""How many chosen and spare rows are looked at to exchange one for another."""
EXCHANGES = 24


_measured: WeakKeyDictionary[Tokenizer, dict[tuple[str, ...], float]] = WeakKeyDictionary()
"""What was measured with each tokenizer that is still in use: functions of the tokenizer and the key alone, so a memory and no state."""


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
        self.remembered = _measured.setdefault(tokenizer, {})
        """Means per row, sizes of smallest tables: functions of their keys and the tokenizer, which every shard and preview asks for."""

    def lines(self, lines: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text by itself, int64 [n]."""
        return np.diff(self._encoded(lines).offsets)

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Tokens of a conversation rendered by the chat template, everything included."""
        return len(self._encoded([self._template.text(messages)]).ids)

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
