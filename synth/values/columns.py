"""Typed columns: what a schema says of each, and its cells from arrays of uniform numbers.

Every column has two uniforms a cell of its own, so a cell is a function of (seed, row, column, place) and of nothing drawn before it; the
second is drawn only where a column's content asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synth.values.pools import Cells, Pieces, Split, as_cells, for_split, full_names, pool

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


def uniforms_of(content: Content) -> int:
    """How many of its two uniforms a cell of this content takes."""
    if isinstance(content, Words):
        return 1 if content.pool in SINGLE else 2
    if isinstance(content, Number):
        return 1 if content.shape == "uniform" else 2
    return 2 if isinstance(content, Key | Phrases) else 1


def category_cells(content: Category, language: str, split: Split, u: NDArray[np.float64]) -> Cells:
    """Cells whose i-th value has a weight of 1 / (i + 2): frequent and rare ones, as in life. `u` float64 [1 or 2, n]."""
    values, ends = _weighted(content, language, split)
    return values[np.minimum(np.searchsorted(ends, u[0], side="right"), len(values) - 1)]


@lru_cache(maxsize=256)
def _weighted(content: Category, language: str, split: Split) -> tuple[Cells, NDArray[np.float64]]:
    """The values of a category, and where in [0, 1] the share of each ends."""
    values = as_cells(content.values(language, split))
    weights = np.cumsum(1.0 / (np.arange(len(values)) + 2))
    return values, weights / weights[-1]


def number_values(content: Number, u: NDArray[np.float64]) -> NDArray[np.int64]:
    """The numbers of a column in units of their last digit, int64 [n], from `u` float64 [1 or 2, n] (uniforms_of)."""
    if content.shape == "uniform":
        values = content.low + u[0] * (content.high - content.low)
    else:
        normal = np.sqrt(-2 * np.log1p(-u[0])) * np.cos(2 * np.pi * u[1])
        logarithmic = content.shape == "lognormal"
        values = (
            content.typical * np.exp(content.spread * normal)
            if logarithmic
            else content.typical + content.spread * normal
        )
    units = np.clip(values, content.low, content.high) * 10**content.decimals
    return np.rint(units / content.step).astype(np.int64) * content.step


def number_text(value: int, decimals: int) -> str:
    """A number in units of its last digit as it is written: 1234 with two decimals is 12.34."""
    if not decimals:
        return str(value)
    sign, scale = "-" if value < 0 else "", 10**decimals
    return f"{sign}{abs(value) // scale}.{abs(value) % scale:0{decimals}d}"


def number_cells(content: Number, values: NDArray[np.int64]) -> Cells | Pieces:
    """The numbers of a column as cells: number_text of each."""
    least, most = (round(bound * 10**content.decimals / content.step) for bound in (content.low, content.high))
    if most - least < SMALL:
        return _all_cells(content)[values // content.step - least]
    return spelled(values, content.decimals)


@lru_cache(maxsize=256)
def _all_cells(content: Number) -> Cells:
    """Every number that a column may hold."""
    least, most = (round(bound * 10**content.decimals / content.step) for bound in (content.low, content.high))
    return as_cells([number_text(part * content.step, content.decimals) for part in range(least, most + 1)])


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


def day_values(content: Day, u: NDArray[np.float64]) -> NDArray[np.int64]:
    """Dates as proleptic days (datetime.date.toordinal), int64 [n]."""
    first, last = content.first.toordinal(), content.last.toordinal()
    return first + np.minimum((u[0] * (last - first + 1)).astype(np.int64), last - first)


def day_text(value: int) -> str:
    """A day as ISO 8601 writes it."""
    return date.fromordinal(value).isoformat()


def day_cells(content: Day, values: NDArray[np.int64]) -> Cells:
    """Days from the content's first to its last as cells: day_text of each."""
    return _days(content)[values - content.first.toordinal()]


@lru_cache(maxsize=64)
def _days(content: Day) -> Cells:
    """Every day that a column may hold."""
    return as_cells([day_text(day) for day in range(content.first.toordinal(), content.last.toordinal() + 1)])


def phrase_cells(content: Phrases, language: str, split: Split, u: NDArray[np.float64]) -> Pieces:
    """Text of two parts; the first parts of the splits are disjoint."""
    ours, second = _halves(content, language, split)
    return Pieces((ours[(u[0] * len(ours)).astype(np.int64)], second[(u[1] * len(second)).astype(np.int64)]))


@lru_cache(maxsize=64)
def _halves(content: Phrases, language: str, split: Split) -> tuple[Cells, Cells]:
    """The first parts of a split with the joint behind them, and the second parts."""
    first, second, joint = content.chinese if language == "zh" else content.english
    return as_cells(for_split(first, split)) + joint, as_cells(second)


def word_cells(content: Words, locale: str, split: Split, u: NDArray[np.float64]) -> Cells | Pieces:
    """Text from the locale's pools."""
    a = (u[0] * 2**31).astype(np.int64)
    if content.pool in SINGLE:
        words = pool(locale, split, "street_name" if content.pool == "street" else content.pool)
        return words[a % len(words)]
    b = (u[1] * 2**31).astype(np.int64)
    if content.pool == "person":
        return full_names(locale, split, a, b)
    if content.pool == "email":
        users = pool("en_US", split, "user_name")
        return Pieces((users[a % len(users)], MAIL_ENDS[b % len(MAIL_ENDS)]))
    if content.pool == "host":
        hosts = _hosts(split)
        return Pieces((hosts[a % len(hosts)], HOST_ENDS[b % len(HOST_ENDS)]))
    return _teams(locale, split, a, b)


SINGLE = ("city", "company", "street")
"""Words that stand by themselves; the others are put together of two."""
MAIL_ENDS = as_cells([f"@{domain}" for domain in RESERVED_MAIL])
HOST_ENDS = as_cells([f"-{number:02d}.example.net" for number in range(97)])
ENGLISH_TEAMS = ("United", "Rovers", "City", "Athletic", "Wanderers", "Town")
CHINESE_TEAMS = ("联队", "猛虎", "飞鹰", "雄狮", "海豚", "流星")
ENGLISH_CLUBS, CHINESE_CLUBS = as_cells([f" {name}" for name in ENGLISH_TEAMS]), as_cells(CHINESE_TEAMS)


@lru_cache(maxsize=2)
def _hosts(split: Split) -> Cells:
    """What hosts are called before their number."""
    return as_cells([name.lower() for name in pool("en_US", split, "last_name").tolist()])


def _teams(locale: str, split: Split, a: NDArray[np.int64], b: NDArray[np.int64]) -> Pieces:
    chinese = locale == "zh_CN"
    towns, clubs = pool(locale, split, "city"), CHINESE_CLUBS if chinese else ENGLISH_CLUBS
    return Pieces((towns[a % len(towns)], clubs[b % len(clubs)]))
