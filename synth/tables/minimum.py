"""The shortest length that a mix can be asked for: the smallest table in the longest format, with its questions and answers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from synth.tables.fit import row_tokens, second_rows, smallest
from synth.tables.generate import tables_alone
from synth.tables.lengths import WIDE, TokenCounter
from synth.tables.outline import FEWEST_ROWS, Mix
from synth.tables.render.formats import FORMATS
from synth.tables.schemas.catalogue import SCHEMAS
from synth.tables.tasks.catalogue import TASKS
from synth.values.pools import Split

TRIALS = 64
"""Conversations that the least length of small tables is measured on."""
OPENING_TOKENS = 180
ANSWER_TOKENS, STEPS_TOKENS = 140, 320
"""Room for a question with its answer, and more for its steps on the smallest table."""


def minimum_length(mix: Mix, counter: TokenCounter, split: Split) -> int:
    """Tokens that any conversation of a mix has room in, rounded up to a hundred, or to ten where tables are small."""
    if mix.small is not None:
        return _minimum_of_small(mix, counter, split)
    joins = any(mix.tasks.get(name, 0) > 0 and task.joins for name, task in TASKS.items())
    turn = ANSWER_TOKENS + (STEPS_TOKENS if mix.reasoning > 0 else 0)
    tables = max(
        _smallest(counter, schema, locale, form, split, joins=joins)
        for schema in _used(mix.schemas)
        for locale in _used(mix.locales)
        for form in _used(mix.formats)
    )
    return math.ceil((OPENING_TOKENS + tables + mix.turns[0] * turn) / 100) * 100


def _minimum_of_small(mix: Mix, counter: TokenCounter, split: Split) -> int:
    """The longest of some conversations with the fewest rows, and never so few tokens that two draws in three miss the window between
    two numbers of rows."""
    found = [smallest(mix, counter, row=row, split=split) for row in range(TRIALS)]
    room, step = max(tokens for tokens, _ in found), max(row for _, row in found)
    return math.ceil(max(room, step / 3 / (1 - WIDE)) / 10) * 10


def _used(weights: Mapping[str, float]) -> list[str]:
    return [name for name, weight in weights.items() if weight > 0]


def _smallest(counter: TokenCounter, name: str, locale: str, format_: str, split: Split, *, joins: bool) -> int:
    """Tokens of the smallest tables of a schema in a format, in the longer of the format's forms."""
    key = ("smallest", name, locale, format_, split, str(joins))
    if key not in counter.remembered:
        counter.remembered[key] = _measure(counter, name, locale, format_, split, joins=joins)
    return int(counter.remembered[key])


def _measure(counter: TokenCounter, name: str, locale: str, format_: str, split: Split, *, joins: bool) -> int:
    schema, found = SCHEMAS[name], 0
    shown = second_rows(0) if joins and schema.second is not None else None
    tables = tables_alone(schema, rows=2, second=shown, locale=locale, split=split)
    for form in FORMATS[format_]:
        texts = [form.head(table) + form.tail for table in tables.all()]
        if tables.second is not None:
            texts.append(form.between.join(form.rows(tables.second)))
        rows = math.ceil(FEWEST_ROWS * row_tokens(counter, schema, locale, form, split))
        found = max(found, rows + int(counter.lines(texts).sum()))
    return found
