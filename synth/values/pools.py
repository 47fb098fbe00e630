"""Pools of names and other words, drawn from Faker once per process and cut into one for training and one for test.

Faker is asked for 2,000 of each under an instance of its own with a constant seed, and for nothing that reads the clock (its dates do,
even when seeded). Tables then take from the pools by arrays of indices: no cell ever calls Faker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from faker import Faker
from faker.config import AVAILABLE_LOCALES
from numpy.typing import NDArray

Split = Literal["train", "test"]
Cells = NDArray[np.object_]
"""Cells of a column: an array of strings."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Cells that are not yet put together: each is its pieces end to end, `parts`, of which an array holds one a cell and a string is the
    same in all. Strings are made of the few cells that are asked for; what is rendered takes the pieces as they are."""

    parts: tuple[str | Cells, ...]

    def __getitem__(self, rows: NDArray[np.int64]) -> Pieces:
        """Some of the cells."""
        return Pieces(tuple([part if isinstance(part, str) else part[rows] for part in self.parts]))

    def cell(self, row: int) -> str:
        """One of them."""
        return "".join([part if isinstance(part, str) else part[row] for part in self.parts])

    def whole(self) -> Cells:
        """All of them, put together."""
        whole, *others = self.parts
        for part in others:
            whole = whole + part
        return np.asarray(whole, object)

    def tolist(self) -> list[str]:
        """The same as a list."""
        return self.whole().tolist()


POOL = 2000
POOL_SEED = 20240605
TEST_SHARE = 5
"""Every fifth word of a pool is the test split's."""
EVEN = ("en_US", "zh_CN")
"""Locales whose names are drawn evenly, for variety; some others (es_CL) cannot be drawn from without Faker's weights."""
DEPRECATED = ("fr_QC",)
FAMILY_NAME_FIRST = {"zh": "", "ja": " ", "ko": "", "hu": " "}
"""Languages that put the family name first, with what stands between the two names."""


def is_served(locale: str) -> bool:
    """Whether Faker knows the locale, under a name that it does not call old."""
    return locale in AVAILABLE_LOCALES and locale not in DEPRECATED


@lru_cache(maxsize=4)
def _faker(locale: str) -> Faker:
    """Faker for one locale, with a generator of random numbers of its own."""
    return Faker(locale, use_weighting=locale not in EVEN)


@lru_cache(maxsize=256)
def _words(locale: str, name: str) -> tuple[str, ...]:
    """Distinct words of one provider in the order drawn; the English ones where the locale has none of its own."""
    try:
        faker = _faker(locale)
        # Seeded anew for each pool: what one draws must not depend on which were drawn before it.
        faker.seed_instance(POOL_SEED)
        draw: Callable[[], Any] = getattr(faker, name)
        drawn = [" ".join(str(draw()).split()) for _ in range(POOL)]
    except AttributeError:
        return _words("en_US", name)
    words = tuple(dict.fromkeys(word for word in drawn if word))
    return words if len(words) >= 2 * TEST_SHARE else _words("en_US", name)


@lru_cache(maxsize=512)
def pool(locale: str, split: Split, name: str, after: str = "") -> Cells:
    """The words of one Faker provider (`city`, `company`, …) in one split, with `after` behind each: distinct strings; those of the two
    splits are disjoint."""
    return as_cells([word + after for word in for_split(_words(locale, name), split)])


def for_split(words: tuple[str, ...], split: Split) -> tuple[str, ...]:
    """The part of a list that a split may use: every fifth word is for test, the others for training."""
    test = split == "test"
    return tuple(word for i, word in enumerate(words) if (i % TEST_SHARE == TEST_SHARE - 1) == test)


def names_in_order(locale: str, split: Split) -> tuple[tuple[int, Cells], tuple[int, Cells]]:
    """The two pools of people's names in the order in which the language writes them: (0, given names) and (1, families)."""
    language = locale.partition("_")[0]
    if language in FAMILY_NAME_FIRST:
        between = FAMILY_NAME_FIRST[language]
        return (1, pool(locale, split, "last_name", between)), (0, pool(locale, split, "first_name"))
    return (0, pool(locale, split, "first_name", " ")), (1, pool(locale, split, "last_name"))


def as_cells(texts: tuple[str, ...] | list[str]) -> Cells:
    """Strings as an array of objects, which numpy takes from and compares as a whole."""
    cells = np.empty(len(texts), object)
    cells[:] = texts
    return cells
