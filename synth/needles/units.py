"""Units of context: the sentences or lines that a context is made of, tokenised once, and the runs that are taken of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from packing.tokenizers import Tokenizer, utf8_length

Item = TypeVar("Item")
KEPT = 6
"""Pools that a measure keeps: the last few that were asked for."""
CHUNK = 256
"""Units that are tokenised as one text, so that each is counted among its neighbours."""


class Measure:
    """Counts tokens of texts, and knows of two texts whether their tokens add up (packing.tokenizers.Tokenizer.apart)."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._apart: dict[tuple[str, str], bool] = {}
        self._counts: dict[str, int] = {}
        self._kept: dict[Hashable, Any] = {}

    def count(self, text: str) -> int:
        """Tokens of a text that will be asked for again."""
        found = self._counts.get(text)
        if found is None:
            if len(self._counts) > 4096:
                self._counts.clear()
            found = self._counts[text] = len(self.tokenizer.encode([text]).ids)
        return found

    def counts(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text by itself, int64 [n]."""
        return np.diff(self.tokenizer.encode(texts).offsets) if texts else np.zeros(0, np.int64)

    def along(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens that begin in each of the texts when they stand one behind another, int64 [n]."""
        found: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        for first in range(0, len(texts), CHUNK):
            part = texts[first : first + CHUNK]
            edges = np.cumsum([0, *map(utf8_length, part)])
            starts = self.tokenizer.encode(["".join(part)]).starts
            found.append(np.diff(np.searchsorted(starts, edges, side="left")))
        return np.concatenate(found)

    def apart(self, left: str, right: str) -> bool:
        """Whether the tokens of the two add up: decided by the classes of the characters at their border, remembered for each pair."""
        key = (_classes(left[-3:]), _classes(right[:3]))
        found = self._apart.get(key)
        if found is None:
            found = self._apart[key] = self.tokenizer.apart(left, right)
        return found

    def joined(self, texts: Sequence[str]) -> list[str]:
        """The texts, with those put together whose tokens would not add up; as they are where no tokens ever do for certain."""
        if not self.tokenizer.cuts_at_words:
            return list(texts)
        found: list[str] = []
        for text in texts:
            if found and not self.apart(found[-1], text):
                found[-1] += text
            else:
                found.append(text)
        return found

    def keep(self, key: Hashable, make: Callable[[], Item]) -> Item:
        """What `make` makes, or made the last time for this key; a few are kept."""
        if key not in self._kept:
            if len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = make()
        return self._kept[key]

    def all_apart(self, texts: Iterable[str]) -> bool:
        """Whether the tokens of a row of texts add up."""
        return all(self.apart(left, right) for left, right in pairwise(texts))


def _classes(text: str) -> str:
    return "".join(c if not c.isalnum() else category(c) + ("a" if c.isascii() else "") for c in text)


@dataclass(frozen=True)
class Units:
    """Units in order: their texts, and the tokens of each, int64 [n]. `apart` says that tokens of neighbours add up.

    A unit either begins with the space that parts it from the sentence before, or stands behind a unit that ends its line.
    """

    texts: Sequence[str]
    tokens: NDArray[np.int64]
    apart: bool

    @cached_property
    def before(self) -> NDArray[np.int64]:
        """Tokens before each unit, and of all of them: int64 [n + 1]."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.tokens)])

    @cached_property
    def openers(self) -> NDArray[np.int64]:
        """The units that begin a line, int64 [k]."""
        ends = np.array([True, *(text.endswith("\n") for text in self.texts[:-1])], bool)
        return np.flatnonzero(ends)

    @property
    def total(self) -> int:
        """Tokens of all units."""
        return int(self.before[-1])

    def without(self, number: int) -> Units:
        """The units less one."""
        return Units(
            [*self.texts[:number], *self.texts[number + 1 :]], np.delete(self.tokens, number), apart=self.apart
        )

    def repeated(self, tokens: int, measure: Measure) -> Units:
        """The units said again until there are so many tokens."""
        times = -(-tokens // max(1, self.total))
        if times <= 1:
            return self
        apart = self.apart and measure.apart(self.texts[-1], self.texts[0])
        return Units([*self.texts] * times, np.tile(self.tokens, times), apart)

    @classmethod
    def of(cls, texts: Sequence[str], measure: Measure) -> Units:
        """Tokenise units among their neighbours."""
        apart = measure.tokenizer.cuts_at_words and measure.all_apart(texts)
        return cls(texts, measure.along(texts), apart)
