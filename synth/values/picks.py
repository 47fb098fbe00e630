"""Cells that are picked from lists by uniform numbers: days, phrases, names and other words, for many columns at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synth.values.columns import RESERVED_MAIL, SINGLE, Day, Phrases, Words, day_text
from synth.values.pools import Cells, Pieces, Split, as_cells, for_split, names_in_order, pool

MAIL_ENDS = as_cells([f"@{domain}" for domain in RESERVED_MAIL])
HOST_ENDS = as_cells([f"-{number:02d}.example.net" for number in range(97)])
ENGLISH_TEAMS = ("United", "Rovers", "City", "Athletic", "Wanderers", "Town")
CHINESE_TEAMS = ("联队", "猛虎", "飞鹰", "雄狮", "海豚", "流星")
ENGLISH_CLUBS, CHINESE_CLUBS = as_cells([f" {name}" for name in ENGLISH_TEAMS]), as_cells(CHINESE_TEAMS)
WORDS_SCALE = 2.0**31


class Pick(NamedTuple):
    """A part of the cells of a column: the word at floor(u * scale) mod len(words), where u is one of the column's uniforms."""

    words: Cells
    uniform: int
    scale: float


def picks_of(content: Day | Phrases | Words, locale: str, language: str, split: Split) -> tuple[Pick, ...]:
    """The parts of a column's cells, end to end."""
    if isinstance(content, Day):
        days = _days(content)
        return (Pick(days, 0, float(len(days))),)
    if isinstance(content, Phrases):
        return tuple(Pick(words, i, float(len(words))) for i, words in enumerate(_halves(content, language, split)))
    return tuple(Pick(words, uniform, WORDS_SCALE) for uniform, words in _words(content, locale, split))


def picked(
    picks: Sequence[Pick], uniforms: Sequence[NDArray[np.float64]], rows: Sequence[NDArray[np.int64]]
) -> list[NDArray[np.int64]]:
    """Which words some parts of columns have, int64 [k] each: of the `uniforms` float64 [n] of each part those of `rows` int64 [k] are
    taken."""
    begins = np.cumsum([0, *map(len, uniforms)]).tolist()
    taken = np.concatenate([some + begin for some, begin in zip(rows, begins, strict=False)])
    sizes = list(map(len, rows))
    scale, count = np.repeat(np.array([(pick.scale, len(pick.words)) for pick in picks]).T, sizes, axis=1)
    # Whole numbers below 2**31 have exact remainders in floating point, which numpy finds faster than in whole numbers.
    found = np.floor(np.concatenate(uniforms)[taken] * scale)
    found -= np.floor(found / count) * count
    return np.split(found.astype(np.int64), np.cumsum(sizes)[:-1])


@lru_cache(maxsize=64)
def _days(content: Day) -> Cells:
    """Every day that a column may hold."""
    return as_cells([day_text(day) for day in range(content.first.toordinal(), content.last.toordinal() + 1)])


def _halves(content: Phrases, language: str, split: Split) -> tuple[Cells, Cells]:
    """The first parts of a split, disjoint with the other's, with the joint behind them; and the second parts."""
    first, second, joint = content.chinese if language == "zh" else content.english
    return as_cells(for_split(first, split)) + joint, as_cells(second)


def _words(content: Words, locale: str, split: Split) -> tuple[tuple[int, Cells], ...]:
    """The pools of text, each with the uniform that picks from it."""
    if content.pool in SINGLE:
        return ((0, pool(locale, split, "street_name" if content.pool == "street" else content.pool)),)
    if content.pool == "person":
        return names_in_order(locale, split)
    if content.pool == "email":
        return (0, pool("en_US", split, "user_name")), (1, MAIL_ENDS)
    if content.pool == "host":
        return (0, _hosts(split)), (1, HOST_ENDS)
    return (0, pool(locale, split, "city")), (1, CHINESE_CLUBS if locale == "zh_CN" else ENGLISH_CLUBS)


@lru_cache(maxsize=2)
def _hosts(split: Split) -> Cells:
    """What hosts are called before their number."""
    return as_cells([name.lower() for name in pool("en_US", split, "last_name").tolist()])


def cells_picked(picks: Sequence[Pick], places: Sequence[NDArray[np.int64]]) -> Cells | Pieces:
    """The cells of a column whose parts are the words at `places` int64 [n] of its picks."""
    parts = [pick.words[place] for pick, place in zip(picks, places, strict=True)]
    return parts[0] if len(parts) == 1 else Pieces(tuple(parts))
