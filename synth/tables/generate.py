"""Candidate rows of tables, those of several tables at once: every cell from a draw of its own, keys unique, some rows near-duplicates of
others. What is computed together is the same for each table as by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synth.tables.schema import Field, Part, Schema, language_of, phrase_of
from synth.tables.table import Column, Indices, Sort, Table, Tables
from synth.tables.uniforms import MAIN, SECOND, Sizes, Uniforms, runs, uniforms
from synth.values.columns import (
    Category,
    Content,
    Day,
    Key,
    Number,
    Phrases,
    Reference,
    Words,
    number_cells,
    number_values,
    weighted,
)
from synth.values.keys import DIGITS, exchanged, key_cells, key_numbers
from synth.values.picks import Pick, cells_picked, picked, picks_of
from synth.values.pools import Cells, Pieces, Split

SORTS: dict[type[Content], Sort] = {
    Key: "key",
    Reference: "reference",
    Words: "text",
    Phrases: "text",
    Category: "category",
    Number: "number",
    Day: "date",
}
PLACE_BITS, KEY_BITS = 21, 20
"""Bits that hold any place in a table, and any key's number."""


class Wanted(NamedTuple):
    """The tables of one attempt at a conversation."""

    sizes: Sizes
    locale: str


class _Heading(NamedTuple):
    """What is known of a column before it is drawn; `picks` are the parts of its cells where they are words of lists, `weights` the values
    of a category and where their shares end."""

    title: str
    phrase: str
    unit: str
    sort: Sort
    decimals: int
    additive: bool
    picks: tuple[Pick, ...]
    weights: tuple[Cells, NDArray[np.float64]] | None


class _Rows(NamedTuple):
    """The rows of a table, int64 [k] each: the numbers of their keys, their places among those drawn, and whose text they have (their own,
    but for near-duplicates)."""

    keys: NDArray[np.int64]
    places: Indices
    texts: Indices


class _Unmade:
    """A table that is being made, drawn as it is: its rows, once they are known, and of its columns by number the `cells` and `values`."""

    def __init__(self, part: Part, locale: str, drawn: Sequence[NDArray[np.float64]], *, shown: bool) -> None:
        self.part, self.locale, self.drawn, self.shown = part, locale, drawn, shown
        key = part.uniforms[part.key] if shown else slice(0, 2)
        self.key_uniforms = (*drawn[key], *drawn[-2:])  # where there are near-duplicates, the last two decide on them
        self.rows: _Rows
        self.cells: dict[int, Cells | Pieces] = {}
        self.values: dict[int, NDArray[np.int64]] = {}

    def made(self, split: Split) -> Table:
        """The table, once every column has its cells."""
        part, language = self.part, language_of(self.locale)
        columns: list[Column] = []
        for number, field in enumerate(part.fields):
            heading = _heading(field, self.locale, split)
            column = Column(
                title=heading.title,
                phrase=heading.phrase,
                unit=heading.unit,
                sort=heading.sort,
                cells=self.cells[number],
                numbers=self.values.get(number),
                decimals=heading.decimals,
                additive=heading.additive,
            )
            columns.append(column)
        return Table(
            name=part.word(part.name, language),
            language=language,
            one=part.word(part.one, language),
            many=part.word(part.many, language),
            its="their" if part.person else "its",
            columns=tuple(columns),
            key=part.key,
            rows=len(self.rows.keys),
        )


def tables_of(seed: int, wanted: Sequence[Wanted], *, split: Split, distractors: float) -> Iterator[Tables]:
    """The tables of some conversations, in order, made some at a time: the main table, its references keys of the second, and the second
    where it is shown."""
    sizes = [each.sizes for each in wanted]
    for a, b in runs(sizes, distractors):
        drawn = uniforms(seed, sizes[a:b], distractors)
        yield from _made(wanted[a:b], drawn, split, distractors)


def tables_alone(
    schema: Schema,
    *,
    rows: int,
    second: int | None,
    locale: str,
    split: Split,
    seed: int = 0,
    row: int = 0,
    distractors: float = 0.0,
) -> Tables:
    """The tables of one conversation, made by themselves."""
    sizes = Sizes(row=row, attempt=0, schema=schema, main=rows, second=second)
    (tables,) = tables_of(seed, [Wanted(sizes, locale)], split=split, distractors=distractors)
    return tables


def _made(wanted: Sequence[Wanted], drawn: Sequence[Uniforms], split: Split, distractors: float) -> list[Tables]:
    """The tables of some conversations, every step taken for all of them at once."""
    mains = [
        _Unmade(of.schema.main, locale, u[MAIN], shown=True) for (of, locale), u in zip(wanted, drawn, strict=True)
    ]
    seconds = [
        None if of.schema.second is None else _Unmade(of.schema.second, locale, u[SECOND], shown=of.second is not None)
        for (of, locale), u in zip(wanted, drawn, strict=True)
    ]
    every = [*mains, *[table for table in seconds if table is not None]]
    _find_rows(every, split, distractors)
    shown = [table for table in every if table.shown]
    _spell_keys(every)
    _pick_words(shown, split)
    _find_numbers(shown)
    _weigh(shown, split)
    for main, second in zip(mains, seconds, strict=True):
        _refer(main, second)
    return [
        Tables(main=main.made(split), second=second.made(split) if second is not None and second.shown else None)
        for main, second in zip(mains, seconds, strict=True)
    ]


def _find_rows(tables: Sequence[_Unmade], split: Split, distractors: float) -> None:
    """Which rows there are: those whose key no row before them has."""
    sizes = np.array([len(table.key_uniforms[0]) for table in tables], np.int64)
    begins: NDArray[np.int64] = np.cumsum(sizes) - sizes
    table_of = np.repeat(np.arange(len(tables)), sizes)
    places = np.arange(len(table_of)) - begins[table_of]
    own, digits, twin, partner = (np.concatenate([table.key_uniforms[i] for table in tables]) for i in range(4))
    keys, texts = key_numbers(split, own), places.copy()
    if distractors > 0:
        twins = np.flatnonzero((twin < distractors) & (places > 0))
        texts[twins] = (partner[twins] * places[twins]).astype(np.int64)
        exchanges = (digits[twins] * (DIGITS - 1)).astype(np.int64)
        keys[twins] = exchanged(keys[begins[table_of[twins]] + texts[twins]], exchanges)
    first = _first_of_equals(table_of << KEY_BITS | keys, places, begins)
    kept = np.cumsum(np.add.reduceat(first, begins, dtype=np.int64))[:-1]
    found = [np.split(of[first], kept) for of in (keys, places, texts)]
    for table, *rows in zip(tables, *found, strict=True):
        table.rows = _Rows(*rows)


def _first_of_equals(numbers: NDArray[np.int64], places: Indices, begins: Indices) -> NDArray[np.bool_]:
    """Where each number stands for the first time in its table, bool [n]; `numbers` are the tables' and keys'."""
    ordered = np.sort(numbers << PLACE_BITS | places)
    again = ordered[1:][ordered[1:] >> PLACE_BITS == ordered[:-1] >> PLACE_BITS]
    first = np.ones(len(numbers), bool)
    first[begins[again >> (PLACE_BITS + KEY_BITS)] + (again & ((1 << PLACE_BITS) - 1))] = False
    return first


def _spell_keys(tables: Sequence[_Unmade]) -> None:
    """The cells of the keys."""
    for table in tables:
        content = table.part.fields[table.part.key].content
        assert isinstance(content, Key)
        table.cells[table.part.key] = key_cells(content.prefix, table.rows.keys)


def _pick_words(tables: Sequence[_Unmade], split: Split) -> None:
    """The columns of words, phrases and days."""
    columns = [
        (table, number, heading)
        for table in tables
        for number, field in enumerate(table.part.fields)
        if (heading := _heading(field, table.locale, split)).picks
    ]
    picks: list[Pick] = []
    uniforms_of_picks: list[NDArray[np.float64]] = []
    rows: list[Indices] = []
    for table, number, heading in columns:
        begin = table.part.uniforms[number].start
        for pick in heading.picks:
            picks.append(pick)
            uniforms_of_picks.append(table.drawn[begin + pick.uniform])
            rows.append(table.rows.texts if heading.sort == "text" else table.rows.places)
    places = iter(picked(picks, uniforms_of_picks, rows))
    for table, number, heading in columns:
        of_column = [next(places) for _ in heading.picks]
        table.cells[number] = cells_picked(heading.picks, of_column)
        content = table.part.fields[number].content
        if isinstance(content, Day):
            table.values[number] = of_column[0] + content.first.toordinal()


def _find_numbers(tables: Sequence[_Unmade]) -> None:
    """The columns of numbers."""
    columns = [
        (table, number, field.content)
        for table in tables
        for number, field in enumerate(table.part.fields)
        if isinstance(field.content, Number)
    ]
    drawn = [(content, table.drawn[table.part.uniforms[number]]) for table, number, content in columns]
    values = number_values(drawn, [table.rows.places for table, _, _ in columns])
    for (table, number, content), of_column in zip(columns, values, strict=True):
        table.values[number] = of_column
        table.cells[number] = number_cells(content, of_column)


def _weigh(tables: Sequence[_Unmade], split: Split) -> None:
    """The columns of categories."""
    for table in tables:
        for number, field in enumerate(table.part.fields):
            weights = _heading(field, table.locale, split).weights
            if weights is not None:
                values, ends = weights
                u = table.drawn[table.part.uniforms[number].start][table.rows.places]
                table.cells[number] = values[ends.searchsorted(u, side="right")]


def _refer(table: _Unmade, second: _Unmade | None) -> None:
    """The columns that refer to the second table."""
    if second is None:
        return
    keys = second.cells[second.part.key]
    referred = keys.whole() if isinstance(keys, Pieces) else keys
    for number, field in enumerate(table.part.fields):
        if isinstance(field.content, Reference):
            u = table.drawn[table.part.uniforms[number].start][table.rows.places]
            table.cells[number] = referred[np.minimum((u * len(referred)).astype(np.int64), len(referred) - 1)]


@lru_cache(maxsize=4096)
def _heading(field: Field, locale: str, split: Split) -> _Heading:
    content, language = field.content, language_of(locale)
    title = field.title(language)
    phrase, unit = phrase_of(title, language)
    return _Heading(
        title=title,
        phrase=phrase,
        unit=unit,
        sort=SORTS[type(content)],
        decimals=content.decimals if isinstance(content, Number) else 0,
        additive=not isinstance(content, Number) or content.additive,
        picks=picks_of(content, locale, language, split) if isinstance(content, Day | Phrases | Words) else (),
        weights=weighted(content, language, split) if isinstance(content, Category) else None,
    )


def reordered(table: Table, order: list[int]) -> Table:
    """The table with its columns in another order."""
    return replace(table, columns=tuple(table.columns[i] for i in order), key=order.index(table.key), sorts={})
