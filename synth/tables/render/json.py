"""JSON: an array of objects, or an object a line. Numbers stand as numbers, with the digits that the column has."""

from __future__ import annotations

import json
from functools import lru_cache

from synth.tables.render.format import REMEMBERED, Format, escaped, woven
from synth.tables.table import Table

SPECIAL = ('"', "\\", *map(chr, range(32)))


_string = json.JSONEncoder(ensure_ascii=False).encode


@lru_cache(maxsize=REMEMBERED)
def _inside(text: str) -> str:
    """What stands between the quotation marks of a string."""
    return _string(text)[1:-1]


def _rows(indent: str, table: Table) -> list[str]:
    names = [_string(column.title) + ": " for column in table.columns]
    quotes = ["" if column.sort == "number" else '"' for column in table.columns]
    before = [f"{name}{quote}" for name, quote in zip(names, quotes, strict=True)]
    texts = [
        f"{indent}{{{before[0]}",
        *[f"{q}, {name}" for q, name in zip(quotes, before[1:], strict=False)],
        quotes[-1] + "}",
    ]
    return woven([escaped(column, SPECIAL, _inside) for column in table.columns], texts)


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
