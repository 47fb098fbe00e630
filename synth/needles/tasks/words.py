"""RULER's aggregation tasks (arXiv 2404.06654, common_words_extraction.py, freq_words_extraction.py), filled to the last words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from synth.needles import vocabulary
from synth.needles.body import Body, Draft, TooSmallError
from synth.needles.chance import Chance
from synth.needles.setting import Setting
from synth.needles.units import Measure

COMMON = 10
OFTEN, SELDOM = 30, 3
ALPHA = 2.0
ASKED = 3
LETTERS = 6
VOCABULARY_SHARE = 50
"""Tokens of context for each word of the coded vocabulary."""
DOTS = "...."


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Words with a space before each, their tokens int64 [n], and whether tokens of one behind another add up."""

    words: list[str]
    tokens: NDArray[np.int64]
    apart: bool


@lru_cache(maxsize=8)
def _sized(locale: str, split: str, count: int, measure: Measure) -> _Sizes:
    words = [f" {word}" for word in vocabulary.plain_words(locale, split, count)]
    return _Sizes(words, measure.along(words), measure.all_apart(words[:512]))


@lru_cache(maxsize=4)
def _labels(count: int, measure: Measure) -> NDArray[np.int64]:
    """Tokens of the numbers " 1.", " 2.", … together: int64 [count + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(measure.counts([f" {i}." for i in range(1, count + 1)]))])


def common(setting: Setting) -> Draft:
    """A numbered list in which ten words stand thirty times and all others three times; a rest of the room takes one more, less often."""
    count = setting.length // (SELDOM * 3) + 60
    sizes = _sized(setting.locale, setting.split, count, setting.measure)
    order = np.argsort(setting.chance.numbers(len(sizes.words)), kind="stable")
    chosen, rest = order[:COMMON], order[COMMON:]
    asking = setting.wording.common
    words = [sizes.words[i].strip() for i in chosen.tolist()]

    def lay(room: int) -> Body:
        labels = _labels(setting.length // 3 + 400, setting.measure)
        base = COMMON * OFTEN
        spent = OFTEN * int(sizes.tokens[chosen].sum())
        climbing = np.concatenate([np.zeros(1, np.int64), np.cumsum(SELDOM * sizes.tokens[rest])])
        numbers = np.minimum(base + SELDOM * np.arange(len(climbing)), len(labels) - 1)
        totals = spent + climbing + labels[numbers]
        fits = int(np.searchsorted(totals, room - 2, side="right")) - 1
        if fits < COMMON:
            raise TooSmallError(int(totals[COMMON]) + 2)
        fits = min(fits, len(rest) - 1)
        each = [np.repeat(chosen, OFTEN), np.repeat(rest[:fits], SELDOM)]
        left, number = room - 2 - int(totals[fits]), int(numbers[fits])
        size = int(sizes.tokens[rest[fits]])
        extra = [int(rest[fits])] * min(SELDOM - 1, left // (size + int(labels[number + 1] - labels[number]) + 1))
        return _list(np.concatenate([*each, np.array(extra, np.int64)]), sizes, labels, setting)

    return Draft(
        head=asking.head,
        tail=asking.tail.format(count=COMMON),
        answer_prefix=asking.prefix.format(count=COMMON),
        outputs=words,
        lay=lay,
        others=[sizes.words[i].strip() for i in rest[:20].tolist()],
    )


def _list(items: NDArray[np.int64], sizes: _Sizes, labels: NDArray[np.int64], setting: Setting) -> Body:
    """Items in an order of chance, numbered, on one line."""
    order = np.argsort(setting.chance.numbers(len(items)), kind="stable")
    mixed = items[order]
    pieces = [f" {i}.{sizes.words[w]}" for i, w in enumerate(mixed.tolist(), 1)]
    tokens = sizes.tokens[mixed] + np.diff(labels[: len(mixed) + 1])
    return _closed(pieces, tokens, setting.measure, apart=sizes.apart and setting.measure.apart(" 12.", " word"))


def _closed(pieces: list[str], tokens: NDArray[np.int64], measure: Measure, *, apart: bool) -> Body:
    """A line of pieces: no space before the first, a line's end behind the last."""
    pieces[0], pieces[-1] = pieces[0].lstrip(), pieces[-1] + "\n"
    tokens[0], tokens[-1] = measure.counts([pieces[0], pieces[-1]])
    apart = apart and measure.tokenizer.cuts_at_words and measure.all_apart(pieces[:40])
    return Body(pieces=pieces, tokens=tokens, needles=(), apart=apart)


def frequent(setting: Setting) -> Draft:
    """Coded words drawn by Zipf's law with an exponent of 2.0; the commonest are dots, the next three are asked for."""
    words = [DOTS, *_coded(setting.chance, setting.split, max(60, setting.length // VOCABULARY_SHARE))]
    sizes = setting.measure.along([f" {word}" for word in words])
    share = np.arange(1, len(words) + 1, dtype=np.float64) ** -ALPHA
    share /= share.sum()

    def counts(number: int) -> NDArray[np.int64]:
        return np.floor(share * number).astype(np.int64)

    def lay(room: int) -> Body:
        low = _largest(lambda number: int((counts(number) * sizes).sum()) <= room - 3, room)
        times = counts(low)
        if not times[ASKED] > times[ASKED + 1]:
            raise TooSmallError(_needed(counts, sizes) + 3)
        left = room - 3 - int((times * sizes).sum())
        for i in range(len(words) - 1, ASKED + 1, -1):
            if left < sizes[i] or times[i] + 1 >= times[ASKED]:
                break
            times[i] += 1
            left -= int(sizes[i])
        items = np.repeat(np.arange(len(words)), times)
        mixed = items[np.argsort(setting.chance.numbers(len(items)), kind="stable")]
        pieces = [f" {words[i]}" for i in mixed.tolist()]
        return _closed(pieces, sizes[mixed], setting.measure, apart=True)

    asking = setting.wording.frequent
    return Draft(
        head=asking.head,
        tail=asking.tail,
        answer_prefix=asking.prefix,
        outputs=words[1 : ASKED + 1],
        lay=lay,
        others=words[ASKED + 1 : ASKED + 20],
    )


def _coded(chance: Chance, split: str, count: int) -> list[str]:
    """Different words of six letters that mean nothing; their last letter belongs to the split."""
    letters = (chance.numbers(2 * count * LETTERS) * 26).astype(np.int64).reshape(-1, LETTERS)
    letters[:, -1] += vocabulary.SPLITS.index(split) - letters[:, -1] % 2
    made = {"".join(chr(97 + letter) for letter in row): None for row in letters.tolist()}
    return list(made)[:count]


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, where all smaller ones do too."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _needed(counts: Callable[[int], NDArray[np.int64]], sizes: NDArray[np.int64]) -> int:
    """Tokens of the smallest text in which three words are commoner than all others."""
    number = next(n for n in range(1, 10_000) if counts(n)[ASKED] > counts(n)[ASKED + 1])
    return int((counts(number) * sizes).sum())
