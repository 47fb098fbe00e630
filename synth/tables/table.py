"""A table in memory: columns of cells as text, with the numbers behind them where there are any."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synth.tables.schema import Language
from synth.values.columns import day_text, number_text
from synth.values.pools import Cells

Sort = Literal["key", "reference", "text", "category", "number", "date"]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of n rows: `cells` [n] strings as they are rendered; `numbers` int64 [n] of a number (in units of its last digit) or
    a date (in days), else None. `title` heads it, `phrase` names it in a sentence, `unit` is "" where it has none; `additive` says
    whether a sum of it means anything."""

    title: str
    phrase: str
    unit: str
    sort: Sort
    cells: Cells
    numbers: NDArray[np.int64] | None = None
    decimals: int = 0
    additive: bool = True

    def text(self, value: int) -> str:
        """A number or date of this column as a cell writes it."""
        return day_text(value) if self.sort == "date" else number_text(value, self.decimals)

    def values(self) -> NDArray[np.int64]:
        """The numbers of a column that has some."""
        assert self.numbers is not None, self.title
        return self.numbers

    def take(self, rows: Indices) -> Column:
        """Some rows of the column, in the order given."""
        numbers = None if self.numbers is None else self.numbers[rows]
        return replace(self, cells=self.cells[rows], numbers=numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of R rows; `one` and `many` are what a sentence calls its rows, `its` is the pronoun for one;
    `key` is the number of the column that is unique."""

    name: str
    language: Language
    one: str
    many: str
    its: str
    columns: tuple[Column, ...]
    key: int

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.columns[0].cells)

    @property
    def key_column(self) -> Column:
        """The column whose cells are unique."""
        return self.columns[self.key]

    def take(self, rows: Indices) -> Table:
        """The table of some of its rows, in the order given."""
        return replace(self, columns=tuple(column.take(rows) for column in self.columns))

    def of_sort(self, *sorts: Sort) -> list[int]:
        """The numbers of the columns of some sorts."""
        return [i for i, column in enumerate(self.columns) if column.sort in sorts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What a conversation is about: the main table and, where a question joins, the one it refers to."""

    main: Table
    second: Table | None = None

    @property
    def language(self) -> Language:
        """The language of titles and wordings."""
        return self.main.language

    def all(self) -> tuple[Table, ...]:
        """The tables in the order in which they stand in the message."""
        return (self.main,) if self.second is None else (self.main, self.second)
