"""A table in memory: columns of cells as text, with the numbers behind them where there are any."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synth.tables.schema import Language
from synth.values.columns import day_text, number_text
from synth.values.pools import Cells, Pieces

Sort = Literal["key", "reference", "text", "category", "number", "date"]
Indices = NDArray[np.int64]


class Heading(NamedTuple):
    """What a column is, whatever its rows: `title` heads it, `phrase` names it in a sentence, `unit` is "" where it has none, `decimals`
    are those of its numbers, `additive` says whether a sum of it means anything. Of the signs that formats treat apart (SIGNS) only
    `signs` may stand in its cells, any where it is None; and no cell has more than `longest` characters, where that is known."""

    title: str
    phrase: str
    unit: str
    sort: Sort
    decimals: int = 0
    additive: bool = True
    signs: frozenset[str] | None = None
    longest: int | None = None


class Column:
    """One column of n rows under a heading: `cells` [n] strings as they are rendered; `numbers` int64 [n] of a number (in units of its last
    digit) or a date (in days), else None. Never changed; what `take` makes gathers its rows when they are first looked at."""

    __slots__ = ("_cells", "_numbers", "_rows", "heading", "sort", "title")

    def __init__(
        self,
        heading: Heading,
        cells: Cells | Pieces,
        numbers: NDArray[np.int64] | None = None,
        rows: Indices | slice | None = None,
    ) -> None:
        """`rows` int64 [n] or from the first on are those of `cells` and `numbers` that the column has; all of them where it is None."""
        self.heading, self.title = heading, heading.title
        self.sort: Sort = heading.sort
        self._cells, self._numbers, self._rows = cells, numbers, rows

    @property
    def phrase(self) -> str:
        """What names it in a sentence."""
        return self.heading.phrase

    @property
    def unit(self) -> str:
        """Its unit, "" where it has none."""
        return self.heading.unit

    @property
    def decimals(self) -> int:
        """Digits behind the point of its numbers."""
        return self.heading.decimals

    @property
    def cells(self) -> Cells:
        """Its cells as they are rendered."""
        cells = self.pieces
        if isinstance(cells, Pieces):
            self._cells = cells = cells.whole()
        return cells

    @property
    def pieces(self) -> Cells | Pieces:
        """Its cells, put together or not."""
        if self._rows is not None:
            self._gather(self._rows)
        return self._cells

    def cell(self, row: int) -> str:
        """One of its cells."""
        cells = self._cells
        if isinstance(self._rows, np.ndarray):
            row = self._rows[row]
        return cells.cell(row) if isinstance(cells, Pieces) else cells[row]

    def cells_at(self, rows: Indices) -> list[str]:
        """Some of its cells."""
        return self.pieces[rows].tolist()

    @property
    def numbers(self) -> NDArray[np.int64] | None:
        """The numbers behind them, where there are any."""
        if self._rows is not None:
            self._gather(self._rows)
        return self._numbers

    def _gather(self, rows: Indices | slice) -> None:
        self._cells = self._cells[rows]
        self._numbers = None if self._numbers is None else self._numbers[rows]
        self._rows = None

    def text(self, value: int) -> str:
        """A number or date of this column as a cell writes it."""
        return day_text(value) if self.sort == "date" else number_text(value, self.decimals)

    def values(self) -> NDArray[np.int64]:
        """The numbers of a column that has some."""
        numbers = self.numbers
        assert numbers is not None, self.title
        return numbers

    def take(self, rows: Indices | slice) -> Column:
        """Some rows of the column, in the order given; a slice begins at the first."""
        return Column(self.heading, self.pieces, self.numbers, rows)


class Table(NamedTuple):
    """A table of so many `rows`; `one` and `many` are what a sentence calls its rows, `its` is the pronoun for one; `key` is the number of
    the column that is unique; `sorts` keeps what `of_sort` found."""

    name: str
    language: Language
    one: str
    many: str
    its: str
    columns: tuple[Column, ...]
    key: int
    rows: int
    sorts: dict[tuple[Sort, ...], list[int]]

    @property
    def key_column(self) -> Column:
        """The column whose cells are unique."""
        return self.columns[self.key]

    def take(self, rows: Indices) -> Table:
        """The table of some of its rows, in the order given."""
        count = len(rows)
        # The first rows, as most tables take them, are a view.
        some = slice(count) if are_first(rows) else rows
        return self._replace(columns=tuple([column.take(some) for column in self.columns]), rows=count)

    def of_sort(self, *sorts: Sort) -> list[int]:
        """The numbers of the columns of some sorts."""
        if sorts not in self.sorts:
            self.sorts[sorts] = [i for i, column in enumerate(self.columns) if column.sort in sorts]
        return self.sorts[sorts]


def are_first(rows: Indices) -> bool:
    """Whether rows int64 [n] are 0 to n - 1, in order."""
    return len(rows) > 0 and rows[-1] == len(rows) - 1 and bool((rows[:-1] < rows[1:]).all())


class Tables(NamedTuple):
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
