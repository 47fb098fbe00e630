"""Candidate rows of a table, all at once: every cell from a draw of its own, keys unique, some rows near-duplicates of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from packing.draws import Draws
from synth.tables.schema import Field, Language, Part, Schema, language_of, phrase_of
from synth.tables.table import Column, Indices, Sort, Table, Tables
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
from synth.values.pools import Cells, Pieces, Split

VARIANTS = 64
"""Draws of one attempt, of four uniforms each: more than any table takes."""
AT_ONCE = 4
SORTS: dict[type[Content], Sort] = {
    Key: "key",
    Reference: "reference",
    Words: "text",
    Phrases: "text",
    Category: "category",
    Number: "number",
    Day: "date",
}


MAIN, SECOND = "synl/cells", "synl/second"
"""The paths of the draws."""
HIDDEN_ROWS = 24
"""Rows of a second table that is not shown, to whose keys the main one refers."""
DRAWN_AT_ONCE = 1 << 15
"""Uniforms that are drawn in one call for several tables: as many as stay in a core's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The tables of one attempt at a conversation: about so many rows of the main one, and of the second one where it is shown."""

    row: int
    attempt: int
    schema: Schema
    main: int
    second: int | None

    def draws(self, distractors: float) -> list[Draw]:
        """What has to be drawn for them."""
        draws = [Draw(path=MAIN, of=self, count=self.main, variants=_variants(self.schema.main, distractors))]
        if self.schema.second is not None:
            shown, part = self.second is not None, self.schema.second
            variants = _variants(part, distractors, keys_only=not shown)
            draws.append(Draw(path=SECOND, of=self, count=self.second or HIDDEN_ROWS, variants=variants))
        return draws


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """`variants` int64 [k] of uniforms for each of `count` rows of one table."""

    path: str
    of: Sizes
    count: int
    variants: NDArray[np.int64]


Uniforms = dict[str, NDArray[np.float64]]
"""The uniforms of the tables of one attempt by their path, float64 [k, count] each."""


def _variants(part: Part, distractors: float, *, keys_only: bool = False) -> NDArray[np.int64]:
    """The uniforms that a table takes, those that decide on near-duplicates last."""
    kept = part.variants[part.uniforms[part.key]] if keys_only else part.variants
    twins = len(part.variants)
    return np.concatenate([kept, [twins, twins + 1]]) if distractors > 0 else kept


def uniforms(seed: int, sizes: Sequence[Sizes], distractors: float) -> list[Uniforms]:
    """The uniforms of some tables, drawn together: each is a function of (seed, row, attempt, column, place)."""
    found: list[Uniforms] = [{} for _ in sizes]
    for path in (MAIN, SECOND):
        asked = [
            (drawn, draw)
            for drawn, of in zip(found, sizes, strict=True)
            for draw in of.draws(distractors)
            if draw.path == path
        ]
        for some in _cut(asked):
            for (drawn, _), block in zip(some, _together(Draws(seed, path), [draw for _, draw in some]), strict=True):
                drawn[path] = block
    return found


def _cut(asked: Sequence[tuple[Uniforms, Draw]]) -> Iterator[list[tuple[Uniforms, Draw]]]:
    """Runs of draws that are made in one call."""
    run: list[tuple[Uniforms, Draw]] = []
    size = 0
    for item in asked:
        run.append(item)
        size += item[1].count * len(item[1].variants)
        if size >= DRAWN_AT_ONCE:
            yield run
            run, size = [], 0
    if run:
        yield run


def _together(draws: Draws, asked: Sequence[Draw]) -> list[NDArray[np.float64]]:
    """The uniforms of some tables: the v-th of a row is the (v mod 4)-th of its draw v div 4."""
    taken = [np.unique(each.variants // AT_ONCE, return_inverse=True) for each in asked]
    sizes = np.array([each.count * len(blocks) for each, (blocks, _) in zip(asked, taken, strict=True)])
    rows = np.repeat(np.array([each.of.row for each in asked]), sizes)
    places = np.concatenate(
        [np.tile(np.arange(each.count), len(blocks)) for each, (blocks, _) in zip(asked, taken, strict=True)]
    )
    variants = np.concatenate(
        [
            np.repeat(each.of.attempt * VARIANTS + blocks, each.count)
            for each, (blocks, _) in zip(asked, taken, strict=True)
        ]
    )
    drawn = np.split(draws.quarters(rows, places, variants), np.cumsum(sizes)[:-1], axis=1)
    return [
        words.reshape(AT_ONCE, -1, each.count)[each.variants % AT_ONCE, of]
        for words, each, (_, of) in zip(drawn, asked, taken, strict=True)
    ]


class Generator:
    """Makes the tables of one conversation from their uniforms."""

    def __init__(self, sizes: Sizes, drawn: Uniforms, *, locale: str, split: Split, distractors: float) -> None:
        self._sizes, self._drawn, self._locale = sizes, drawn, locale
        self._split: Split = split
        self._distractors = distractors
        self._language: Language = language_of(locale)

    @classmethod
    def alone(
        cls,
        schema: Schema,
        *,
        rows: int,
        second: int | None,
        locale: str,
        split: Split,
        seed: int = 0,
        row: int = 0,
        distractors: float = 0.0,
    ) -> Self:
        """The tables of one conversation, drawn by themselves."""
        sizes = Sizes(row=row, attempt=0, schema=schema, main=rows, second=second)
        (drawn,) = uniforms(seed, [sizes], distractors)
        return cls(sizes, drawn, locale=locale, split=split, distractors=distractors)

    def tables(self) -> Tables:
        """The main table, its references keys of the second, and the second where it is shown."""
        sizes, second, referred = self._sizes, None, np.zeros(0, object)
        if sizes.schema.second is not None:
            part = sizes.schema.second
            if sizes.second is not None:
                second = self._table(part, SECOND, sizes.second, referred)
                referred = second.key_column.cells
            else:
                numbers, _ = self._keys(self._drawn[SECOND], slice(0, 2), HIDDEN_ROWS)
                content = part.fields[part.key].content
                assert isinstance(content, Key)
                referred = key_cells(content.prefix, numbers[_first_of_equals(numbers)]).whole()
        return Tables(main=self._table(sizes.schema.main, MAIN, sizes.main, referred), second=second)

    def _table(self, part: Part, path: str, count: int, referred: Cells) -> Table:
        u, key = self._drawn[path], part.key
        numbers, partner = self._keys(u, part.uniforms[key], count)
        columns = [
            self._column(field, u[taken], partner, numbers, referred)
            for field, taken in zip(part.fields, part.uniforms, strict=True)
        ]
        kept = _first_of_equals(numbers)
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

    def _keys(self, u: NDArray[np.float64], key: slice, count: int) -> tuple[NDArray[np.int64], Indices | None]:
        """The numbers of the keys, and of which row each row is a near-duplicate (itself for most), int64 [count] both; None for none."""
        own, digits = u[key]
        numbers = key_numbers(self._split, own)
        if self._distractors <= 0:
            return numbers, None
        twins = np.flatnonzero(u[-2] < self._distractors)
        twins = twins[twins > 0]
        partner = np.arange(count)
        partner[twins] = (u[-1][twins] * twins).astype(np.int64)
        place = (digits[twins] * (DIGITS - 1)).astype(np.int64)
        numbers[twins] = exchanged(numbers[partner[twins]], place)
        return numbers, partner

    def _column(
        self,
        field: Field,
        u: NDArray[np.float64],
        partner: Indices | None,
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
            cells = number_cells(content, numbers)
        elif isinstance(content, Day):
            numbers = day_values(content, u)
            cells = day_cells(content, numbers)
        else:
            cells = self._text(content, u)
            cells = cells if partner is None else cells[partner]
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

    def _text(self, content: Words | Phrases, u: NDArray[np.float64]) -> Cells | Pieces:
        if isinstance(content, Phrases):
            return phrase_cells(content, self._language, self._split, u)
        return word_cells(content, self._locale, self._split, u)


def _first_of_equals(numbers: NDArray[np.int64]) -> Indices:
    """Where each number stands for the first time, int64 [distinct], in order."""
    ordered = np.sort(numbers)
    if (ordered[1:] != ordered[:-1]).all():
        return np.arange(len(numbers))
    return np.sort(np.unique(numbers, return_index=True)[1])


def reordered(table: Table, order: list[int]) -> Table:
    """The table with its columns in another order."""
    return replace(table, columns=tuple(table.columns[i] for i in order), key=order.index(table.key), sorts={})
