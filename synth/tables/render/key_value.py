"""Records of `title: value` lines with an empty line between them, in a fenced block; a value is the rest of its line, as it is."""

from __future__ import annotations

from synth.tables.render.format import Format, threads_of, woven
from synth.tables.table import Table


def _rows(table: Table) -> list[str]:
    first, *others = [f"{column.title}: " for column in table.columns]
    return woven([threads_of(column) for column in table.columns], [first, *[f"\n{name}" for name in others], ""])


KEY_VALUE = Format(name="key_value", head=lambda _: "```text\n", rows=_rows, between="\n\n", tail="\n```\n")
