"""What a format is: how a row, a head and a tail are written, and what stands between rows. Rows are written by columns, all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

from synth.tables.table import Column, Table


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


def escaped(column: Column, special: Sequence[str], escape: Callable[[str], str]) -> list[str]:
    """The cells of a column, escaped where they are free text and one of them has a `special` sign; keys, numbers and dates have none."""
    cells: list[str] = column.cells.tolist()
    if column.sort in ("key", "reference", "number", "date"):
        return cells
    together = "".join(cells)
    return [escape(cell) for cell in cells] if any(sign in together for sign in special) else cells


def joined(columns: Sequence[Sequence[str]], *, start: str = "", between: str, end: str = "") -> list[str]:
    """Rows out of columns of equal length: start + cells with `between` between them + end."""
    return woven(columns, [start, *[between] * (len(columns) - 1), end])


def woven(columns: Sequence[Sequence[str]], texts: Sequence[str]) -> list[str]:
    """Rows out of columns of equal length, with a text before each cell and one behind the last."""
    threads: list[Iterable[str]] = [repeat(texts[0])] if texts[0] else []
    for column, text in zip(columns, texts[1:], strict=True):
        threads += [column, repeat(text)] if text else [column]
    return list(map("".join, zip(*threads, strict=False)))
