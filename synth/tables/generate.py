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
    uniforms_of,
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
        key, place = part.key, np.arange(count)
        u = self._uniforms(part, path, count)
        numbers, partner = key_numbers(self._split, u[key][0]), place
        if self._distractors > 0:
            twin = u[-1][0] < self._distractors
            twin[0] = False
            partner = np.where(twin, (u[-1][1] * place).astype(np.int64), place)
            digit = (u[key][1] * (DIGITS - 1)).astype(np.int64)
            numbers = np.where(twin, exchanged(numbers[partner], digit), numbers)
        columns = [self._column(field, u[i], partner, numbers, referred) for i, field in enumerate(part.fields)]
        kept = np.sort(np.unique(numbers, return_index=True)[1])
        if len(kept) < count:
            columns = [column.take(kept) for column in columns]
        return Table(
            name=part.word(part.name, self._language),
            language=self._language,
            one=part.word(part.one, self._language),
            many=part.word(part.many, self._language),
            its="their" if part.person else "its",
            columns=tuple(columns),
            key=key,
            rows=len(kept),
        )

    def _uniforms(self, part: Part, path: str, count: int) -> list[NDArray[np.float64]]:
        """The uniforms float64 [1 or 2, count] that each column takes, and the two for near-duplicates. Two a column are set apart."""
        wanted = [range(2 * i, 2 * i + uniforms_of(field.content)) for i, field in enumerate(part.fields)]
        if self._distractors > 0:
            wanted.append(range(2 * len(wanted), 2 * len(wanted) + 2))
        variants = np.fromiter((self._attempt * VARIANTS + number for each in wanted for number in each), np.int64)
        drawn = Draws(self._seed, path).uniform(self._row, np.arange(count)[None, :], variants[:, None])
        return np.split(drawn, np.cumsum([len(each) for each in wanted])[:-1])

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
            cells = day_cells(content, numbers)
        else:
            cells = self._text(content, u)
            cells = cells[partner] if self._distractors > 0 else cells
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
    return replace(table, columns=tuple(table.columns[i] for i in order), key=order.index(table.key), sorts={})
