"""What a format is: how a row, a head and a tail are written, and what stands between rows. Rows are written by columns, all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

from synth.tables.table import Column, Table
from synth.values.pools import Pieces

REMEMBERED = 1 << 14
"""Cells of which it is remembered how a format writes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to write a table. `rows` gives one text a row; a table is head, rows with `between` between them, tail. `alike` says that all
    rows begin and end with the same signs."""

    name: str
    head: Callable[[Table], str]
    rows: Callable[[Table], list[str]]
    between: str
    tail: str
    alike: bool = False


Threads = Sequence[str | list[str]]
"""The cells of a column in pieces: a list has one for each cell, a string is the same in all."""


def threads_of(column: Column) -> Threads:
    """The cells of a column as they are."""
    cells = column.pieces
    if isinstance(cells, Pieces):
        return [part if isinstance(part, str) else part.tolist() for part in cells.parts]
    return [cells.tolist()]


def escaped(column: Column, special: Sequence[str], escape: Callable[[str], str]) -> Threads:
    """The cells of a column, escaped where they are free text and one of them has a `special` sign, of SIGNS; keys, numbers and dates have
    none."""
    threads, signs = threads_of(column), column.heading.signs
    if column.sort in ("key", "reference", "number", "date") or (signs is not None and signs.isdisjoint(special)):
        return threads
    together = "".join([thread if isinstance(thread, str) else "".join(thread) for thread in threads])
    return [list(map(escape, column.cells.tolist()))] if any(sign in together for sign in special) else threads


def joined(columns: Sequence[Threads], *, start: str = "", between: str, end: str = "") -> list[str]:
    """Rows out of columns of equal length: start + cells with `between` between them + end."""
    return woven(columns, [start, *[between] * (len(columns) - 1), end])


def woven(columns: Sequence[Threads], texts: Sequence[str]) -> list[str]:
    """Rows out of columns of equal length, with a text before each cell and one behind the last."""
    threads: list[Iterable[str]] = []
    before = texts[0]
    for column, text in zip(columns, texts[1:], strict=True):
        for thread in column:
            if isinstance(thread, str):
                before += thread
            else:
                threads += [repeat(before), thread] if before else [thread]
                before = ""
        before += text
    if before:
        threads.append(repeat(before))
    return list(map("".join, zip(*threads, strict=False)))
