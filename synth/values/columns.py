"""Typed columns: what a schema says of each, and its cells from arrays of uniform numbers.

Every column has two uniforms a cell of its own, so a cell is a function of (seed, row, column, place) and of nothing drawn before it; the
second is drawn only where a column's content asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synth.values.pools import Cells, Pieces, Split, as_cells

RESERVED_MAIL = ("example.com", "example.org", "example.net")
"""Domains that nobody can own (RFC 2606)."""
CATEGORIES_FOR_TEST = 3
SMALL = 10_000
"""Whole numbers below this one are spelled once a process."""


@dataclass(frozen=True, slots=True)
class Key:
    """The unique key of a row, such as EMP-482913."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Reference:
    """The key of a row in the schema's second table."""


@dataclass(frozen=True, slots=True)
class Words:
    """Text from Faker's pools: `person`, `city`, `company`, `street`, `email`, `host`, `team`."""

    pool: Literal["person", "city", "company", "street", "email", "host", "team"]


@dataclass(frozen=True, slots=True)
class Phrases:
    """Text put together of two lists, English and Chinese: titles of books, notes. `english` and `chinese` are (first, second, joint)."""

    english: tuple[tuple[str, ...], tuple[str, ...], str]
    chinese: tuple[tuple[str, ...], tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class Category:
    """One of a few values, the first ones the most frequent; the last three belong to the test split."""

    english: tuple[str, ...]
    chinese: tuple[str, ...]

    def values(self, language: str, split: Split) -> tuple[str, ...]:
        """The values of a split in a language."""
        values = self.chinese if language == "zh" else self.english
        return values[-CATEGORIES_FOR_TEST:] if split == "test" else values[:-CATEGORIES_FOR_TEST]


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A measure between `low` and `high`, with `decimals` digits behind the point, a multiple of `step` in the last of them.

    `typical` is the middle of it: `normal` spreads around it, `lognormal` has the long tail that money and durations have. A sum of
    temperatures means nothing: such a column is not `additive`, and questions ask for its mean alone."""

    low: float
    high: float
    decimals: int = 0
    shape: Literal["uniform", "normal", "lognormal"] = "uniform"
    typical: float = 0.0
    spread: float = 0.5
    step: int = 1
    additive: bool = True


@dataclass(frozen=True, slots=True)
class Day:
    """A date from the first day to the last."""

    first: date
    last: date


Content = Key | Reference | Words | Phrases | Category | Number | Day


SINGLE = ("city", "company", "street")
"""Words that stand by themselves; the others are put together of two."""


def uniforms_of(content: Content) -> int:
    """How many of its two uniforms a cell of this content takes."""
    if isinstance(content, Words):
        return 1 if content.pool in SINGLE else 2
    if isinstance(content, Number):
        return 1 if content.shape == "uniform" else 2
    return 2 if isinstance(content, Key | Phrases) else 1


def weighted(content: Category, language: str, split: Split) -> tuple[Cells, NDArray[np.float64]]:
    """The values of a category, and where in [0, 1] the share of each ends: the i-th has a weight of 1 / (i + 2), so that there are
    frequent and rare ones, as in life."""
    values = as_cells(content.values(language, split))
    weights = np.cumsum(1.0 / (np.arange(len(values)) + 2))
    return values, weights / weights[-1]


def number_values(
    columns: Sequence[tuple[Number, Sequence[NDArray[np.float64]]]], rows: Sequence[NDArray[np.int64]]
) -> list[NDArray[np.int64]]:
    """The numbers of some columns in units of their last digit, int64 [k] each: of the uniforms of each, float64 [1 or 2][n]
    (uniforms_of), those of `rows` int64 [k] are taken."""
    found = [np.zeros(0, np.int64)] * len(columns)
    for shape in ("uniform", "normal", "lognormal"):
        places = [place for place, (content, _) in enumerate(columns) if content.shape == shape]
        if places:
            values = _values_of_shape(shape, [columns[i] for i in places], [rows[i] for i in places])
            for place, of_column in zip(places, values, strict=True):
                found[place] = of_column
    return found


def _values_of_shape(
    shape: str, columns: Sequence[tuple[Number, Sequence[NDArray[np.float64]]]], rows: Sequence[NDArray[np.int64]]
) -> list[NDArray[np.int64]]:
    """number_values of columns of one shape."""
    begins, sizes = np.cumsum([0, *(len(u[0]) for _, u in columns)]).tolist(), list(map(len, rows))
    taken = np.concatenate([some + begin for some, begin in zip(rows, begins, strict=False)])
    about = [(c.low, c.high, c.typical, c.spread, 10**c.decimals, c.step) for c, _ in columns]
    low, high, typical, spread, scale, step = np.repeat(np.array(about, np.float64).T, sizes, axis=1)
    first = np.concatenate([u[0] for _, u in columns])[taken]
    if shape == "uniform":
        values = low + first * (high - low)
    else:
        second = np.concatenate([u[1] for _, u in columns])[taken]
        normal = np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)
        values = typical * np.exp(spread * normal) if shape == "lognormal" else typical + spread * normal
    units = np.minimum(np.maximum(values, low), high) * scale
    return np.split((np.rint(units / step) * step).astype(np.int64), np.cumsum(sizes)[:-1])


def number_text(value: int, decimals: int) -> str:
    """A number in units of its last digit as it is written: 1234 with two decimals is 12.34."""
    if not decimals:
        return str(value)
    sign, scale = "-" if value < 0 else "", 10**decimals
    return f"{sign}{abs(value) // scale}.{abs(value) % scale:0{decimals}d}"


def number_cells(content: Number, values: NDArray[np.int64]) -> Cells | Pieces:
    """The numbers of a column as cells: number_text of each."""
    least, cells = _all_cells(content)
    if cells is None:
        return spelled(values, content.decimals)
    return cells[(values if content.step == 1 else values // content.step) - least]


@lru_cache(maxsize=256)
def _all_cells(content: Number) -> tuple[int, Cells | None]:
    """The least number that a column may hold, in steps, and every one from there on, if they are not too many."""
    least, most = (round(bound * 10**content.decimals / content.step) for bound in (content.low, content.high))
    if most - least >= SMALL:
        return least, None
    return least, as_cells([number_text(part * content.step, content.decimals) for part in range(least, most + 1)])


def spelled(values: NDArray[np.int64], decimals: int) -> Cells | Pieces:
    """Numbers as cells: number_text of each."""
    if decimals and len(values) and values.min() < 0:
        return as_cells([number_text(value, decimals) for value in values.tolist()])
    if not decimals:
        return _whole_cells(values)
    whole, rest = np.divmod(values, 10**decimals)
    wholes = _whole_cells(whole)
    return Pieces((*(wholes.parts if isinstance(wholes, Pieces) else (wholes,)), _fractions(decimals)[rest]))


def _whole_cells(values: NDArray[np.int64]) -> Cells | Pieces:
    small = _small()
    largest = int(values.max()) if len(values) else 0
    if largest >= SMALL * 1000 or (len(values) and values.min() < 0):
        return as_cells(list(map(str, values.tolist())))
    if largest < SMALL:
        return small[values]
    thousands, rest = np.divmod(values, 1000)
    rest[thousands == 0] += 1000
    return Pieces((_thousands()[thousands], _below_thousands()[rest]))


@lru_cache(maxsize=1)
def _small() -> Cells:
    """0, 1, … as texts."""
    return as_cells(list(map(str, range(SMALL))))


@lru_cache(maxsize=1)
def _thousands() -> Cells:
    """What stands before the last three digits of a whole number: nothing, 1, 2, …"""
    return as_cells(["", *map(str, range(1, SMALL))])


@lru_cache(maxsize=1)
def _below_thousands() -> Cells:
    """The last three digits: 000 to 999 behind thousands, then 0 to 999 where there are none."""
    return as_cells([*(f"{number:03d}" for number in range(1000)), *map(str, range(1000))])


@lru_cache(maxsize=4)
def _fractions(decimals: int) -> Cells:
    """What stands behind a whole number: .00 to .99 for two decimals."""
    return as_cells([f".{part:0{decimals}d}" for part in range(10**decimals)])


def day_text(value: int) -> str:
    """A day as ISO 8601 writes it."""
    return date.fromordinal(value).isoformat()
