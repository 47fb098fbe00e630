"""Unique keys such as EMP-482913: whole numbers of six digits whose digit sum says which split they belong to.

A digit sum divisible by five is the test split's, any other the training split's, so no key is ever in both. Exchanging two digits
keeps the sum: near-duplicates of a key stay in its split.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synth.values.pools import Pieces, Split, as_cells

DIGITS = 6
MODULUS = 5
THREE = as_cells([f"{number:03d}" for number in range(1000)])
"""000 to 999."""
OF_THREE = np.array([sum(map(int, str(number))) for number in range(1000)], np.int64)
"""The sum of the digits of every number of at most three."""


REST = np.arange(6 * 9 + 1) % MODULUS
"""What every sum of six digits leaves; numpy divides by one number faster than it takes remainders."""


def key_numbers(split: Split, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers of six digits from uniforms float64 [n], each in the class of its split; not yet unique."""
    first = 10 ** (DIGITS - 1)
    numbers = first + (uniform * (10**DIGITS - first)).astype(np.int64)
    last, rest = numbers - numbers // 10 * 10, REST[digit_sums(numbers)]
    if split == "test":
        return numbers + np.where(last >= rest, -rest, MODULUS - rest)
    return numbers + np.where(rest == 0, np.where(last < 9, 1, -1), 0)


def exchanged(numbers: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers int64 [n] with the digits at `place` (from the right, 0..4) and the one before it exchanged."""
    low, high = 10**place, 10 ** (place + 1)
    right, left = numbers // low % 10, numbers // high % 10
    return numbers + (left - right) * low + (right - left) * high


def digit_sums(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of the digits of each number of at most six."""
    front = numbers // 1000
    return OF_THREE[front] + OF_THREE[numbers - front * 1000]


def key_cells(prefix: str, numbers: NDArray[np.int64]) -> Pieces:
    """Keys as they stand in a table, of numbers of six digits int64 [n]."""
    front = numbers // 1000
    return Pieces((f"{prefix}-", THREE[front], THREE[numbers - front * 1000]))
