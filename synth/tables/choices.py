"""The small decisions of one conversation, one after the other, out of a counter-based stream: keyed by (seed, path, row, attempt)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from packing.draws import Draws

Item = TypeVar("Item")
BLOCK = 64


class Choices:
    """Uniform numbers of one row, taken in order; the n-th is a function of (seed, path, row, variant, n) alone."""

    def __init__(self, draws: Draws, row: int, variant: int = 0) -> None:
        self._draws, self._row, self._variant = draws, row, variant
        self._taken, self._block = 0, np.zeros(0)
        self._first: NDArray[np.float64] | None = None

    @classmethod
    def several(cls, draws: Draws, row: int, variants: Sequence[int]) -> list[Self]:
        """One for each variant, the first numbers of all of them drawn at once."""
        found = [cls(draws, row, variant) for variant in variants]
        firsts = draws.uniform(row, np.arange(BLOCK)[None, :], np.array(variants)[:, None])
        for choices, first in zip(found, firsts, strict=True):
            choices._first = first
        return found

    def restart(self) -> None:
        """Go back to the first number."""
        self._taken = 0

    def uniform(self) -> float:
        """The next number in [0, 1)."""
        place = self._taken % BLOCK
        if self._taken == 0 and self._first is not None:
            self._block = self._first
        elif place == 0:
            self._block = self._draws.uniform(self._row, np.arange(self._taken, self._taken + BLOCK), self._variant)
            self._first = self._block if self._taken == 0 else self._first
        self._taken += 1
        return float(self._block[place])

    def below(self, end: int) -> int:
        """A whole number in 0..end-1."""
        return min(int(self.uniform() * end), end - 1)

    def between(self, least: int, most: int) -> int:
        """A whole number in least..most, both included."""
        return least + self.below(most - least + 1)

    def flag(self, probability: float) -> bool:
        """True with a probability."""
        return self.uniform() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.below(len(items))]

    def weighted(self, weights: Mapping[str, float]) -> str:
        """One of the names, by their weights (at least one above zero)."""
        names = [name for name, weight in weights.items() if weight > 0]
        ends = np.cumsum([weights[name] for name in names])
        return names[min(int(np.searchsorted(ends, self.uniform() * ends[-1], side="right")), len(names) - 1)]

    def distinct(self, count: int, end: int) -> list[int]:
        """`count` different whole numbers in 0..end-1, in the order drawn."""
        order = list(range(end)) if end <= 4 * count else None
        if order is not None:
            for i in range(count):
                j = i + self.below(end - i)
                order[i], order[j] = order[j], order[i]
            return order[:count]
        found: dict[int, None] = {}
        while len(found) < count:
            found[self.below(end)] = None
        return list(found)
