"""What one conversation is to be: locale, format, schema, tasks and turns, drawn before any table is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synth.tables.choices import Choices
from synth.tables.question import Request, Task
from synth.tables.render.format import Format
from synth.tables.render.formats import FORMATS
from synth.tables.schema import Language, Schema, language_of
from synth.tables.schemas.catalogue import SCHEMAS
from synth.tables.tasks.catalogue import TASKS

TOKENS_PER_TURN = 600
"""A conversation has at most one turn for so many of its tokens (and at least the fewest the mix allows)."""
QUESTION_FIRST = 0.2
KEY_FIRST = 0.75


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """One conversation as drawn. `order` is that of the main table's columns, `second` whether the second table is shown."""

    locale: str
    format: Format
    schema: Schema
    order: tuple[int, ...]
    second: bool
    question_first: bool
    turns: tuple[tuple[Task, Request], ...]

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
        order=_order(schema, choices),
        second=second,
        question_first=choices.flag(QUESTION_FIRST),
        turns=turns,
    )


def _turn(mix: Mix, choices: Choices) -> tuple[Task, Request]:
    task = TASKS[choices.weighted(mix.tasks)]
    steps, lacking = choices.flag(mix.reasoning), choices.flag(mix.unanswerable)
    return task, Request(steps=steps, lacking=lacking and task.can_lack)


def _order(schema: Schema, choices: Choices) -> tuple[int, ...]:
    """The key first, mostly, and the other columns in any order."""
    count, key = len(schema.main.fields), schema.main.key
    order = choices.distinct(count, count)
    if choices.flag(KEY_FIRST):
        order = [key, *(i for i in order if i != key)]
    return tuple(order)
