"""Conversations of an exact length: candidate rows are tokenised once, as many are taken as fit, and the whole is counted and mended by
a few rows.

Counts of lines nearly add up, for tokens seldom cross the end of a line; the difference found on the whole is carried along.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packing.dataset.errors import InputError
from packing.draws import Draws
from synth.tables.choices import Choices
from synth.tables.conversation import (
    Body,
    Conversation,
    Question,
    ask_all,
    assemble,
    body_of,
    messages_of,
    opening,
    question_choices,
)
from synth.tables.generate import Generator, reordered
from synth.tables.lengths import TokenCounter, adjusted, shortest
from synth.tables.outline import Mix, Outline, draw
from synth.tables.render.format import Format
from synth.tables.schema import Schema
from synth.tables.table import Table, Tables
from synth.values.pools import Split

ATTEMPTS = 24
ROUNDS = 24
SAMPLE_ROWS = 24
SECOND_ROWS = (5, 240)
NARROWER = 2
"""How much narrower than its schema's mean a column of a small table may be."""


class LengthError(InputError):
    """A conversation that no draw brings to its length."""

    code = "length_not_met"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A conversation of its length, with what it was drawn as."""

    outline: Outline
    conversation: Conversation
    tokens: int
    table_rows: int


def fitted(mix: Mix, counter: TokenCounter, *, seed: int, row: int, split: Split, target: int) -> Fitted:
    """The conversation of one row: a function of (mix, seed, row, split, target) and the tokenizer. Raises LengthError where twenty-four
    draws of outline and table all miss the length, which lengths above the minimum do not."""
    for attempt in range(ATTEMPTS):
        outline = draw(mix, Choices(Draws(seed, "synl/outline"), row, attempt), target=target)
        attempted = _Attempt(outline, counter, seed=seed, row=row, split=split, attempt=attempt)
        found = attempted.fit(mix.distractors, target)
        if found is not None:
            return found
    message = f"row {row} ({split}) cannot be brought to {target} tokens: raise length, or ask for fewer turns"
    raise LengthError(message, param="/length")


def smallest(mix: Mix, counter: TokenCounter, *, row: int, split: Split) -> tuple[int, float]:
    """Tokens of the conversation that seed 0 draws for a row, with the fewest rows its table may have, and of a row of its table in the
    mean; (0, 0) where its first draw lends itself to no questions. For mixes without second tables."""
    outline = draw(mix, Choices(Draws(0, "synl/outline"), row, 0), target=0)
    return _Attempt(outline, counter, seed=0, row=row, split=split, attempt=0).smallest()


def second_rows(target: int) -> int:
    """Rows of the second table: one for about 400 tokens of the conversation, within bounds."""
    fewest, most = SECOND_ROWS
    return max(fewest, min(most, target // 400))


def row_tokens(counter: TokenCounter, schema: Schema, locale: str, form: Format, split: Split) -> float:
    """Mean tokens of a row of the main table, from a fixed sample."""
    key = (schema.id, locale, form.name, form.between, split)
    if key not in counter.remembered:
        generator = Generator(seed=0, locale=locale, split=split, row=0, attempt=0, distractors=0.0)
        rows = form.rows(generator.main(schema, SAMPLE_ROWS, None))
        counter.remembered[key] = float(counter.lines([row + form.between for row in rows]).mean())
    return counter.remembered[key]


class _Attempt:
    """One draw of outline and tables, brought to its length."""

    def __init__(
        self, outline: Outline, counter: TokenCounter, *, seed: int, row: int, split: Split, attempt: int
    ) -> None:
        self._outline, self._counter = outline, counter
        self._seed, self._row, self._attempt = seed, row, attempt
        self._split: Split = split
        self._choices = question_choices(outline, seed=seed, row=row, attempt=attempt)
        self._opening = Choices(Draws(seed, "synl/opening"), row, attempt)

    def fit(self, distractors: float, target: int) -> Fitted | None:
        """The conversation with n_tokens in shortest(target)..target, or None."""
        counter, form = self._counter, self._outline.format
        main, second = self._tables(distractors, target)
        lines = form.rows(main)
        counts = counter.lines([line + form.between for line in lines])
        low, drift = shortest(target), 0
        aim, tolerance = target - (target - low) // 3, (target - low) // 4
        chosen = self._first(counts, aim, second)
        for _ in range(ROUNDS):
            if chosen is None or len(chosen) < self._outline.fewest_rows:
                return None
            draft = self._draft(main.take(chosen), second)
            if draft is None:
                return None
            estimate = counter.conversation(draft.frame()) + int(counts[chosen].sum()) + drift
            if low <= estimate <= target:
                made = draft.conversation([lines[i] for i in chosen.tolist()])
                tokens = counter.conversation(made.messages)
                if low <= tokens <= target:
                    return Fitted(outline=self._outline, conversation=made, tokens=tokens, table_rows=len(chosen))
                drift += tokens - estimate
                estimate = tokens
            chosen = adjusted(chosen, counts, aim - estimate, tolerance)
        return None

    def smallest(self) -> tuple[int, float]:
        """Tokens of the conversation on the first rows, the fewest allowed, and the mean of theirs."""
        main, _ = self._tables(0.0, 0)
        main = main.take(np.arange(self._outline.fewest_rows))
        draft = self._draft(main, None)
        if draft is None:
            return 0, 0.0
        lines = self._outline.format.rows(main)
        counts = self._counter.lines([line + self._outline.format.between for line in lines])
        return self._counter.conversation(draft.conversation(lines).messages), float(counts.mean())

    def _tables(self, distractors: float, target: int) -> tuple[Table, Table | None]:
        outline = self._outline
        generator = Generator(
            seed=self._seed,
            locale=outline.locale,
            split=self._split,
            row=self._row,
            attempt=self._attempt,
            distractors=distractors,
        )
        per_row = row_tokens(self._counter, outline.schema, outline.locale, outline.format, self._split)
        if len(outline.order) < len(outline.schema.main.fields):
            per_row *= len(outline.order) / len(outline.schema.main.fields) / NARROWER
        second = generator.second(outline.schema, second_rows(target)) if outline.second else None
        main = generator.main(outline.schema, int(target / per_row * 1.15) + 32, second)
        return reordered(main, list(outline.order)), second

    def _first(self, counts: NDArray[np.int64], aim: int, second: Table | None) -> NDArray[np.int64]:
        """As many rows as there may be room for, before the questions are known."""
        form = self._outline.format
        beside = 120 + 150 * len(self._outline.turns)
        if second is not None:
            beside += int(self._counter.lines([row + form.between for row in form.rows(second)]).sum())
        room = int(np.searchsorted(np.cumsum(counts), aim - beside, side="right"))
        return np.arange(max(self._outline.fewest_rows, min(room, len(counts))))

    def _draft(self, main: Table, second: Table | None) -> _Draft | None:
        """The questions on these rows."""
        tables = Tables(main=main, second=second)
        questions = ask_all(self._outline, tables, self._choices, self._split)
        if questions is None:
            return None
        self._opening.restart()
        introduction = opening(self._outline, tables, self._opening, self._split)
        return _Draft(outline=self._outline, tables=tables, introduction=introduction, questions=questions)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """Questions and tables whose text is yet to be made."""

    outline: Outline
    tables: Tables
    introduction: str
    questions: list[Question]

    def frame(self) -> list[dict[str, str]]:
        """The conversation without the rows of the main table."""
        texts = [body.text() for body in self._bodies([])]
        return messages_of(self.outline, self.introduction, texts, self.questions)

    def conversation(self, lines: list[str]) -> Conversation:
        """The conversation with the rows of the main table as they are rendered."""
        return assemble(self.outline, self.introduction, self._bodies(lines), self.questions)

    def _bodies(self, lines: list[str]) -> list[Body]:
        form, main, second = self.outline.format, self.tables.main, self.tables.second
        bodies = [body_of(self.outline, main.name, form.head(main), lines)]
        if second is not None:
            bodies.append(body_of(self.outline, second.name, form.head(second), form.rows(second)))
        return bodies
