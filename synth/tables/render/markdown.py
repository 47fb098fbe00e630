"""Markdown's pipe tables; a pipe or a backslash inside a cell is escaped by a backslash."""

from __future__ import annotations

from functools import lru_cache

from synth.tables.render.format import REMEMBERED, Format, escaped, joined
from synth.tables.table import Table


@lru_cache(maxsize=REMEMBERED)
def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")


def _head(table: Table) -> str:
    titles = " | ".join(_escape(column.title) for column in table.columns)
    rule = " | ".join("---" for _ in table.columns)
    return f"| {titles} |\n| {rule} |\n"


def _rows(table: Table) -> list[str]:
    cells = [escaped(column, "\\|", _escape) for column in table.columns]
    return joined(cells, start="| ", between=" | ", end=" |")


MARKDOWN = Format(name="markdown", head=_head, rows=_rows, between="\n", tail="\n", alike=True)
