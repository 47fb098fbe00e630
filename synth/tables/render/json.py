"""JSON: an array of objects, or an object a line. Numbers stand as numbers, with the digits that the column has."""

from __future__ import annotations

import json

from synth.tables.render.format import Format, joined
from synth.tables.table import Column, Table


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _values(column: Column) -> list[str]:
    cells: list[str] = column.cells.tolist()
    if column.sort == "number":
        values = cells
    elif column.sort in ("key", "reference", "date"):
        values = [f'"{cell}"' for cell in cells]
    else:
        values = [_string(cell) for cell in cells]
    name = _string(column.title) + ": "
    return [name + value for value in values]


def _rows(indent: str, table: Table) -> list[str]:
    return joined([_values(c) for c in table.columns], start=indent + "{", between=", ", end="}")


JSON_ARRAY = Format(
    name="json",
    head=lambda _: "```json\n[\n",
    rows=lambda table: _rows("  ", table),
    between=",\n",
    tail="\n]\n```\n",
)
JSON_LINES = Format(
    name="json", head=lambda _: "```json\n", rows=lambda table: _rows("", table), between="\n", tail="\n```\n"
)
