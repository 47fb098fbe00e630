"""Candidate rows of a table, all at once: every cell from a draw of its own, keys unique, some rows near-duplicates of others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from packing.draws import Draws
from synth.tables.schema import Field, Language, Part, Schema, language_of, phrase_of
from synth.tables.table import Column, Sort, Table
from synth.values.columns import (
    Category,
    Content,
    Day,
    Key,
    Number,
    Phrases,
    Reference,
    Words,
    category_cells,
    day_cells,
    day_values,
    number_cells,
    number_values,
    phrase_cells,
    word_cells,
)
from synth.values.keys import DIGITS, exchanged, key_cells, key_numbers
from synth.values.pools import Cells, Split

VARIANTS = 64
"""Draws of one attempt: more than twice the columns of any table."""
SORTS: dict[type[Content], Sort] = {
    Key: "key",
    Reference: "reference",
    Words: "text",
    Phrases: "text",
    Category: "category",
    Number: "number",
    Day: "date",
}


class Generator:
    """Makes the tables of one conversation: `row` and `attempt` key its draws."""

    def __init__(self, *, seed: int, locale: str, split: Split, row: int, attempt: int, distractors: float) -> None:
        self._seed, self._locale = seed, locale
        self._split: Split = split
        self._row, self._attempt, self._distractors = row, attempt, distractors
        self._language: Language = language_of(locale)

    def second(self, schema: Schema, count: int) -> Table:
        """The table that the main one refers to, about `count` rows."""
        assert schema.second is not None
        return self._table(schema.second, "synl/second", count, np.zeros(0, object))

    def main(self, schema: Schema, count: int, second: Table | None) -> Table:
        """About `count` candidate rows of the main table; its references are keys of `second`, or of a table that is not shown."""
        if schema.second is None:
            return self._table(schema.main, "synl/cells", count, np.zeros(0, object))
        second = second or self.second(schema, 24)
        return self._table(schema.main, "synl/cells", count, second.key_column.cells)

    def _table(self, part: Part, path: str, count: int, referred: Cells) -> Table:
        draws = Draws(self._seed, path)
        # Two uniforms a cell and two a row more, for near-duplicates: [columns + 1, 2, count].
        u = draws.uniform(
            self._row,
            np.arange(count)[None, None, :],
            (self._attempt * VARIANTS + np.arange(2 * (len(part.fields) + 1))).reshape(-1, 2, 1),
        )
        key = part.key
        numbers = key_numbers(self._split, u[key, 0])
        twin, place = u[-1, 0] < self._distractors, np.arange(count)
        twin[0] = False
        partner = np.where(twin, (u[-1, 1] * place).astype(np.int64), place)
        digit = (u[key, 1] * (DIGITS - 1)).astype(np.int64)
        numbers = np.where(twin, exchanged(numbers[partner], digit), numbers)
        kept = np.sort(np.unique(numbers, return_index=True)[1])
        columns = [
            self._column(field, u[i], partner, numbers, referred).take(kept) for i, field in enumerate(part.fields)
        ]
        return Table(
            name=part.word(part.name, self._language),
            language=self._language,
            one=part.word(part.one, self._language),
            many=part.word(part.many, self._language),
            its="their" if part.person else "its",
            columns=tuple(columns),
            key=key,
        )

    def _column(
        self,
        field: Field,
        u: NDArray[np.float64],
        partner: NDArray[np.int64],
        keys: NDArray[np.int64],
        referred: Cells,
    ) -> Column:
        content, numbers, decimals = field.content, None, 0
        if isinstance(content, Key):
            cells = key_cells(content.prefix, keys)
        elif isinstance(content, Reference):
            cells = referred[np.minimum((u[0] * len(referred)).astype(np.int64), len(referred) - 1)]
        elif isinstance(content, Category):
            cells = category_cells(content, self._language, self._split, u)
        elif isinstance(content, Number):
            numbers, decimals = number_values(content, u), content.decimals
            cells = number_cells(numbers, decimals)
        elif isinstance(content, Day):
            numbers = day_values(content, u)
            cells = day_cells(numbers)
        else:
            cells = self._text(content, u)[partner]
        title = field.title(self._language)
        phrase, unit = phrase_of(title, self._language)
        return Column(
            title=title,
            phrase=phrase,
            unit=unit,
            sort=SORTS[type(content)],
            cells=cells,
            numbers=numbers,
            decimals=decimals,
            additive=not isinstance(content, Number) or content.additive,
        )

    def _text(self, content: Words | Phrases, u: NDArray[np.float64]) -> Cells:
        if isinstance(content, Phrases):
            return phrase_cells(content, self._language, self._split, u)
        return word_cells(content, self._locale, self._split, u)


def reordered(table: Table, order: list[int]) -> Table:
    """The table with its columns in another order."""
    return replace(table, columns=tuple(table.columns[i] for i in order), key=order.index(table.key))
