"""Comma-separated values (RFC 4180): a field with a comma, a quotation mark or a line break is quoted, quotation marks are doubled."""

from __future__ import annotations

from functools import lru_cache

from synth.tables.render.format import REMEMBERED, Format, escaped, joined
from synth.tables.table import Table


def separated(name: str, separator: str) -> Format:
    """A format of lines whose fields a separator separates, in a fenced block."""
    special = (separator, '"', "\n", "\r")

    @lru_cache(maxsize=REMEMBERED)
    def escape(text: str) -> str:
        if any(sign in text for sign in special):
            return '"' + text.replace('"', '""') + '"'
        return text

    def head(table: Table) -> str:
        return f"```{name}\n" + separator.join(escape(column.title) for column in table.columns) + "\n"

    def rows(table: Table) -> list[str]:
        return joined([escaped(column, special, escape) for column in table.columns], between=separator)

    return Format(name=name, head=head, rows=rows, between="\n", tail="\n```\n")


CSV = separated("csv", ",")
