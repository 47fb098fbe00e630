"""The small decisions of one conversation, one after the other, out of a counter-based stream: keyed by (seed, path, row, attempt)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Self, TypeVar

import numpy as np

from packing.draws import Draws

Item = TypeVar("Item")
BLOCK = 64


class Choices:
    """Uniform numbers of one row, taken in order; the n-th is a function of (seed, path, row, variant, n) alone. `first` are the first of
    them, where they are drawn already."""

    def __init__(self, draws: Draws, row: int, variant: int = 0, *, first: Sequence[float] = ()) -> None:
        self._draws, self._row, self._variant = draws, row, variant
        self._taken, self._numbers = 0, list(first)

    @classmethod
    def several(cls, draws: Draws, rows: Sequence[int], variants: Sequence[int], *, first: int) -> list[Self]:
        """One for each row with its variant, the `first` numbers of all of them drawn at once."""
        places = np.arange(first)[None, :]
        firsts = draws.uniform(np.array(rows, np.int64)[:, None], places, np.array(variants, np.int64)[:, None])
        return [cls(draws, *of, first=numbers) for *of, numbers in zip(rows, variants, firsts.tolist(), strict=True)]

    def restart(self) -> None:
        """Go back to the first number."""
        self._taken = 0

    def uniform(self) -> float:
        """The next number in [0, 1)."""
        taken = self._taken
        if taken == len(self._numbers):
            self._numbers += self._draws.uniform(self._row, np.arange(taken, taken + BLOCK), self._variant).tolist()
        self._taken = taken + 1
        return self._numbers[taken]

    def below(self, end: int) -> int:
        """A whole number in 0..end-1."""
        number = int(self.uniform() * end)
        return number if number < end else end - 1

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
        ends = list(accumulate([weights[name] for name in names]))
        return names[min(bisect_right(ends, self.uniform() * ends[-1]), len(names) - 1)]

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
