"""Conditions that pick some rows of a table: a category, a bound on a number or a date, or both, with as many rows as are wanted."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synth.tables.choices import Choices
from synth.tables.query import compared, equal
from synth.tables.schema import Language
from synth.tables.table import Column, Indices, Table
from synth.tables.wording import quantity, quoted

TRIES = 12
BOUNDS: dict[Language, dict[tuple[str, str], str]] = {
    "en": {
        ("number", ">="): "at least {}",
        ("number", "<="): "at most {}",
        ("date", ">="): "on or after {}",
        ("date", "<="): "on or before {}",
    },
    "zh": {
        ("number", ">="): "不低于{}",
        ("number", "<="): "不高于{}",
        ("date", ">="): "不早于{}",
        ("date", "<="): "不晚于{}",
    },
}


class Conditions(NamedTuple):
    """`rows` int64 [n] that meet them, in table order; `where` as data; `columns` they read; `clause` as a part of a sentence: English
    puts it behind what it is about, with a space before it, Chinese before, with 的 behind it."""

    rows: Indices
    where: list[dict[str, Any]]
    columns: tuple[Column, ...]
    clause: str


def anything(table: Table) -> Conditions:
    """No condition: every row."""
    return Conditions(rows=np.arange(table.rows), where=[], columns=(), clause="")


def choose(table: Table, choices: Choices, *, least: int, most: int) -> Conditions | None:
    """Conditions that at least `least` and at most `most` rows meet; None where some tries find none."""
    every = np.arange(table.rows)
    for _ in range(TRIES):
        parts: list[tuple[Column, str, str]] = []
        rows = every
        categories, measures = table.of_sort("category"), table.of_sort("number", "date")
        if categories and choices.flag(0.65):
            column = table.columns[choices.pick(categories)]
            value: str = column.cell(choices.below(table.rows))
            rows = np.flatnonzero(column.cells == value)
            parts.append((column, "=", value))
        if len(rows) >= least and (not parts or len(rows) > most or choices.flag(0.3)):
            column = table.columns[choices.pick(measures)]
            values = column.values()[rows]
            bound = _bound(column, values, choices, wanted=choices.between(least, max(least, min(most, len(rows)))))
            if bound is None or not _cuts(column, bound[1]):
                continue
            sign, limit = bound
            rows = rows[values >= limit] if sign == ">=" else rows[values <= limit]
            parts.append((column, sign, column.text(limit)))
        if least <= len(rows) <= most:
            return _conditions(table, rows, parts)
    return None


def beyond(table: Table, choices: Choices) -> Conditions | None:
    """Conditions that no row meets, though each of them is met by some: a category, and a bound that its rows do not reach."""
    for _ in range(TRIES):
        categories, numbers = table.of_sort("category"), table.of_sort("number")
        if not categories or not numbers:
            return None
        kind, measure = table.columns[choices.pick(categories)], table.columns[choices.pick(numbers)]
        value: str = kind.cell(choices.below(table.rows))
        values = measure.values()
        inside, largest = int(values[kind.cells == value].max()), int(values.max())
        if inside < largest:
            limit = roundest(inside + 1, largest)
            return _conditions(table, np.zeros(0, np.int64), [(kind, "=", value), (measure, ">=", measure.text(limit))])
    return None


def _bound(column: Column, values: NDArray[np.int64], choices: Choices, *, wanted: int) -> tuple[str, int] | None:
    """A sign and a limit that about `wanted` of the values meet, at a border between different values; None where all are equal."""
    ordered = np.sort(values)
    upper = choices.flag(0.6)
    place = len(ordered) - wanted if upper else wanted
    if upper:
        inside = int(ordered[place])
        below = int(ordered.searchsorted(inside))
        lowest = int(ordered[below - 1]) + 1 if below else inside
        return ">=", _limit(column, lowest, inside)
    inside = int(ordered[place - 1])
    above = int(ordered.searchsorted(inside, side="right"))
    highest = int(ordered[above]) - 1 if above < len(ordered) else inside
    return "<=", _limit(column, inside, highest)


def _cuts(column: Column, limit: int) -> bool:
    """Whether a bound lies inside the column: "at least 0" of what is never below 0 says nothing, "at most 0" says "0" in a roundabout
    way."""
    values = column.values()
    return bool(values.min() < limit < values.max())


def _limit(column: Column, low: int, high: int) -> int:
    """A limit in low..high: a round number, or the day that stands in the table."""
    return roundest(low, high) if column.sort == "number" else low


def roundest(low: int, high: int) -> int:
    """The whole number in low..high with the most zeros at its end."""
    step = 1
    while -(-low // (step * 10)) * step * 10 <= high and step < 10**12:
        step *= 10
    return -(-low // step) * step


def _conditions(table: Table, rows: Indices, parts: list[tuple[Column, str, str]]) -> Conditions:
    where = [equal(column, text) if sign == "=" else compared(column, sign, text) for column, sign, text in parts]
    phrases = [_phrase(column, sign, text, table.language) for column, sign, text in parts]
    clause = f" whose {' and whose '.join(phrases)}" if table.language == "en" else f"{'且'.join(phrases)}的"
    return Conditions(rows=rows, where=where, columns=tuple(column for column, _, _ in parts), clause=clause)


def _phrase(column: Column, sign: str, text: str, language: Language) -> str:
    if sign == "=":
        value = quoted(text, language)
        return f"{column.phrase} is {value}" if language == "en" else f"{column.phrase}为{value}"
    short = text.rstrip("0").rstrip(".") if "." in text else text
    bound = BOUNDS[language][column.sort, sign].format(quantity(column, short, language))
    return f"{column.phrase} is {bound}" if language == "en" else f"{column.phrase}{bound}"
