"""The chance of one probe: draws that are a function of (seed, split, task, length, depth, repeat) alone, taken one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from packing.draws import Draws
from synth.needles.grammar import Stream

Item = TypeVar("Item")


class Chance:
    """A probe's draws, keyed by its coordinates; `seed` is a number of 63 bits that names them in the row."""

    def __init__(self, seed: int, *, split: str, task: str, length: int, depth: float | None, repeat: int) -> None:
        self._draws = Draws(seed, f"needle/{split}/{task}/{length}/{'-' if depth is None else f'{depth:g}'}")
        self._repeat = repeat
        self._stream = Stream(self._draws, repeat)
        self._blocks = 0
        low, high = self._draws.key
        self.seed = ((high << 32 | low) ^ (repeat * 0x9E3779B97F4A7C15)) & (2**63 - 1)

    def number(self) -> float:
        """A number in [0, 1)."""
        return self._stream.number()

    def below(self, count: int) -> int:
        """A whole number in 0..count - 1."""
        return self._stream.below(count)

    def one(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.below(len(items))]

    def some(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` different ones of the items, in chance order; there must be as many."""
        chosen: dict[int, None] = {}
        while len(chosen) < count:
            chosen[self.below(len(items))] = None
            if len(chosen) > len(items) // 2:
                rest = [i for i in range(len(items)) if i not in chosen]
                while len(chosen) < count:
                    chosen[rest.pop(self.below(len(rest)))] = None
        return [items[i] for i in chosen]

    def numbers(self, count: int) -> NDArray[np.float64]:
        """`count` numbers in [0, 1) at once, float64 [count]; calls do not repeat each other."""
        self._blocks += 1
        return self._draws.uniform(self._repeat, np.arange(count), self._blocks)

    def depths(self, count: int) -> list[float]:
        """`count` depths in [0, 1), rising, one in each of as many equal parts."""
        return [(i + self.number()) / count for i in range(count)]
