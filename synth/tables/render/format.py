"""What a format is: how a row, a head and a tail are written, and what stands between rows. Rows are written by columns, all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from synth.tables.table import Column, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to write a table. `rows` gives one text a row; a table is head, rows with `between` between them, tail."""

    name: str
    head: Callable[[Table], str]
    rows: Callable[[Table], list[str]]
    between: str
    tail: str


def escaped(column: Column, escape: Callable[[str], str]) -> list[str]:
    """The cells of a column, escaped where they are free text; keys, numbers and dates need none."""
    cells: list[str] = column.cells.tolist()
    return cells if column.sort in ("key", "reference", "number", "date") else [escape(cell) for cell in cells]


def joined(columns: Sequence[Sequence[str]], *, start: str = "", between: str, end: str = "") -> list[str]:
    """Rows out of columns of equal length: start + cells with `between` between them + end."""
    return [start + between.join(row) + end for row in zip(*columns, strict=True)]
