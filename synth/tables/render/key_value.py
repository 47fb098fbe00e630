"""Records of `title: value` lines with an empty line between them, in a fenced block; a value is the rest of its line, as it is."""

from __future__ import annotations

from synth.tables.render.format import Format, filled, literal
from synth.tables.table import Table


def _rows(table: Table) -> list[str]:
    pattern = "\n".join([f"{literal(column.title)}: %s" for column in table.columns])
    return filled(pattern, [column.cells.tolist() for column in table.columns])


KEY_VALUE = Format(name="key_value", head=lambda _: "```text\n", rows=_rows, between="\n\n", tail="\n```\n")
