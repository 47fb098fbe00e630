"""JSON: an array of objects, or an object a line. Numbers stand as numbers, with the digits that the column has."""

from __future__ import annotations

import json

from synth.tables.render.format import Format, escaped, filled, literal
from synth.tables.table import Column, Table

SPECIAL = ('"', "\\", *map(chr, range(32)))


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _inside(text: str) -> str:
    """What stands between the quotation marks of a string."""
    return _string(text)[1:-1]


def _member(column: Column) -> str:
    """The pattern of a name with its value."""
    value = "%s" if column.sort == "number" else '"%s"'
    return f"{literal(_string(column.title))}: {value}"


def _rows(indent: str, table: Table) -> list[str]:
    pattern = f"{indent}{{{', '.join(map(_member, table.columns))}}}"
    return filled(pattern, [escaped(column, SPECIAL, _inside) for column in table.columns])


JSON_ARRAY = Format(
    name="json",
    head=lambda _: "```json\n[\n",
    rows=lambda table: _rows("  ", table),
    between=",\n",
    tail="\n]\n```\n",
    alike=True,
)
JSON_LINES = Format(
    name="json",
    head=lambda _: "```json\n",
    rows=lambda table: _rows("", table),
    between="\n",
    tail="\n```\n",
    alike=True,
)
