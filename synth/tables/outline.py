"""What one conversation is to be: locale, format, schema, tasks and turns, drawn before any table is made."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from synth.tables.choices import Choices
from synth.tables.generate import SORTS
from synth.tables.question import Request, Task
from synth.tables.render.format import Format
from synth.tables.render.formats import FORMATS
from synth.tables.schema import Language, Schema, language_of
from synth.tables.schemas.catalogue import SCHEMAS
from synth.tables.table import Sort
from synth.tables.tasks.catalogue import TASKS

TOKENS_PER_TURN = 600
"""A conversation has at most one turn for so many of its tokens (and at least the fewest the mix allows)."""
QUESTION_FIRST = 0.2
KEY_FIRST = 0.75
FEWEST_ROWS = 6
"""Rows of a table at least, where the mix does not say that fewer are enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """Tables smaller than their schemas: from a least to a most number of `columns`, the key among them, the others of some `sorts`; and
    `rows`, the fewest and the most, None for as many as the length has room for."""

    columns: tuple[int, int]
    sorts: tuple[Sort, ...]
    rows: tuple[int, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What conversations are drawn from: weights by name, and shares between 0 and 1."""

    tasks: Mapping[str, float]
    formats: Mapping[str, float]
    locales: Mapping[str, float]
    schemas: Mapping[str, float]
    turns: tuple[int, int]
    reasoning: float
    unanswerable: float
    distractors: float
    question_first: float = QUESTION_FIRST
    key_first: float = KEY_FIRST
    small: Small | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """One conversation as drawn. `order` is that of the main table's columns (of all, or of a small table's), `second` whether the second
    table is shown. A table of `most_rows` may leave its conversation shorter than its length."""

    locale: str
    format: Format
    schema: Schema
    order: tuple[int, ...]
    second: bool
    question_first: bool
    turns: tuple[tuple[Task, Request], ...]
    fewest_rows: int = FEWEST_ROWS
    most_rows: int | None = None

    @property
    def language(self) -> Language:
        """The language of its sentences."""
        return language_of(self.locale)


def draw(mix: Mix, choices: Choices, *, target: int) -> Outline:
    """The outline of one conversation of about `target` tokens."""
    locale, form = choices.weighted(mix.locales), choices.weighted(mix.formats)
    fewest, most = mix.turns
    count = choices.between(fewest, max(fewest, min(most, target // TOKENS_PER_TURN)))
    turns = tuple(_turn(mix, choices) for _ in range(count))
    second = any(task.joins for task, _ in turns)
    able = {name: weight for name, weight in mix.schemas.items() if SCHEMAS[name].second is not None or not second}
    schema = SCHEMAS[choices.weighted(able)]
    return Outline(
        locale=locale,
        format=choices.pick(FORMATS[form]),
        schema=schema,
        order=_order(schema, mix, choices),
        second=second,
        question_first=choices.flag(mix.question_first),
        turns=turns,
        fewest_rows=mix.small.rows[0] if mix.small else FEWEST_ROWS,
        most_rows=mix.small.rows[1] if mix.small else None,
    )


def _turn(mix: Mix, choices: Choices) -> tuple[Task, Request]:
    task = TASKS[choices.weighted(mix.tasks)]
    steps, lacking = choices.flag(mix.reasoning), choices.flag(mix.unanswerable)
    return task, Request(steps=steps, lacking=lacking and task.can_lack)


def _order(schema: Schema, mix: Mix, choices: Choices) -> tuple[int, ...]:
    """The key first, mostly, and the other columns in any order: all, or as many as a small table has."""
    count, key = len(schema.main.fields), schema.main.key
    order = choices.distinct(count, count)
    if choices.flag(mix.key_first):
        order = [key, *(i for i in order if i != key)]
    small = mix.small
    if small is None:
        return tuple(order)
    able = able_columns(schema, small.sorts)
    fewest, most = small.columns
    taken = choices.between(fewest, min(most, 1 + len(able))) - 1
    shown = {key, *[i for i in order if i in able][:taken]}
    return tuple(i for i in order if i in shown)


def able_columns(schema: Schema, sorts: Collection[Sort]) -> set[int]:
    """The numbers of the main table's columns of these sorts, the key left out."""
    fields = schema.main.fields
    return {i for i, field in enumerate(fields) if i != schema.main.key and SORTS[type(field.content)] in sorts}
