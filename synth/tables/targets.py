"""Rows, columns and keys that questions are about."""

from __future__ import annotations

import numpy as np

from synth.tables.choices import Choices
from synth.tables.table import Column, Table

TRIES = 16


def missing_key(table: Table, choices: Choices) -> str | None:
    """A key that is not in the table, though nearly: two digits of one that is, exchanged. None where none is found."""
    keys = set(table.key_column.cells.tolist())
    for _ in range(TRIES):
        prefix, _, digits = table.key_column.cell(choices.below(table.rows)).rpartition("-")
        i, j = sorted(choices.distinct(2, len(digits)))
        signs = list(digits)
        signs[i], signs[j] = signs[j], signs[i]
        key = f"{prefix}-{''.join(signs)}"
        if key not in keys:
            return key
    return None


def any_column(table: Table, choices: Choices) -> Column:
    """A column other than the key."""
    return table.columns[choices.pick([i for i in range(len(table.columns)) if i != table.key])]


def measure(table: Table, choices: Choices) -> Column:
    """A column of numbers, or less often of dates."""
    numbers, dates = table.of_sort("number"), table.of_sort("date")
    return table.columns[choices.pick(dates if dates and (not numbers or choices.flag(0.2)) else numbers)]


def rows_equal(column: Column, value: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Where a column's cell is a value: bool [R]."""
    return np.asarray(column.cells == value, bool)
