"""An HTML table, a row a line."""

from __future__ import annotations

import html
from functools import lru_cache

from synth.tables.render.format import REMEMBERED, Format, escaped, joined
from synth.tables.table import Table


@lru_cache(maxsize=REMEMBERED)
def _escape(text: str) -> str:
    return html.escape(text, quote=False)


def _head(table: Table) -> str:
    titles = "</th><th>".join(_escape(column.title) for column in table.columns)
    return f"<table>\n<thead>\n<tr><th>{titles}</th></tr>\n</thead>\n<tbody>\n"


def _rows(table: Table) -> list[str]:
    cells = [escaped(column, "&<>", _escape) for column in table.columns]
    return joined(cells, start="<tr><td>", between="</td><td>", end="</td></tr>")


HTML = Format(name="html", head=_head, rows=_rows, between="\n", tail="\n</tbody>\n</table>\n", alike=True)
