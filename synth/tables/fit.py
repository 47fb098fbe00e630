"""Conversations of an exact length: as many rows are taken as should fit, the whole is counted, and mended by a few rows.

What a row has in tokens follows nearly from its characters, and what stands around the table from what is asked, so that half of the
conversations have their length at once and nearly all others at the second count. Where rows are few they are tokenised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from packing.dataset.errors import InputError
from packing.draws import Draws
from synth.tables.choices import Choices
from synth.tables.conversation import (
    MOST_TURNS,
    Body,
    Conversation,
    Question,
    ask_all,
    body_of,
    conversation_of,
    evidence_of,
    messages_of,
    opening,
)
from synth.tables.expected import expected_tokens
from synth.tables.generate import Wanted, reordered, tables_alone, tables_of
from synth.tables.lengths import TokenCounter, adjusted, shortest
from synth.tables.outline import Mix, Outline, draw
from synth.tables.render.format import Format
from synth.tables.schema import Schema
from synth.tables.table import Table, Tables
from synth.tables.uniforms import Sizes
from synth.values.pools import Split

ATTEMPTS = 24
ROUNDS = 8
"""Counts of one draw; one that is not done then mostly goes back and forth between two numbers of rows."""
GUESSED_ROUNDS = 2
"""Rounds in which the tokens of a row may be guessed."""
SAMPLE_ROWS = 128
GUESSED_FROM = 64
"""Rows from which on their tokens are guessed from their characters."""
SECOND_ROWS = (5, 240)
FIRST_OF_OUTLINE, FIRST_OF_OPENING, FIRST_OF_QUESTION = 32, 2, 24
"""Numbers that are drawn at once for many conversations: as many as most of them take."""
SPARE_ROWS = 32
"""Candidate rows beyond those that a length may need. A small table may be asked to have half as many at least: some fall out as
duplicates."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One attempt at a conversation: its outline, and the choices of every question and of the opening, which are the same however often
    the tables are changed to make up a length."""

    outline: Outline
    questions: list[Choices]
    opening: Choices
    sizes: Sizes


def drawn(
    mix: Mix,
    counter: TokenCounter,
    *,
    seed: int,
    rows: Sequence[int],
    split: Split,
    targets: Sequence[int],
    attempt: int,
) -> list[Drawn]:
    """The same attempt at some rows, their first numbers drawn at once."""
    attempts = [attempt] * len(rows)
    firsts = Choices.several(Draws(seed, "synl/outline"), rows, attempts, first=FIRST_OF_OUTLINE)
    outlines = [draw(mix, choices, target=target) for choices, target in zip(firsts, targets, strict=True)]
    openings = Choices.several(Draws(seed, "synl/opening"), rows, attempts, first=FIRST_OF_OPENING)
    turns = [
        (row, attempt * MOST_TURNS + i) for row, o in zip(rows, outlines, strict=True) for i in range(len(o.turns))
    ]
    numbers, variants = [row for row, _ in turns], [variant for _, variant in turns]
    asked = iter(Choices.several(Draws(seed, "synl/questions"), numbers, variants, first=FIRST_OF_QUESTION))
    sizes = [
        _sizes(counter, outline, split, row=row, attempt=attempt, target=target)
        for outline, row, target in zip(outlines, rows, targets, strict=True)
    ]
    return [
        Drawn(outline=outline, questions=[next(asked) for _ in outline.turns], opening=opening, sizes=of)
        for outline, opening, of in zip(outlines, openings, sizes, strict=True)
    ]


def _tables(mix: Mix, some: Sequence[Drawn], *, seed: int, split: Split) -> Iterator[Tables]:
    """The tables of some attempts."""
    wanted = [Wanted(each.sizes, each.outline.locale) for each in some]
    return tables_of(seed, wanted, split=split, distractors=mix.distractors)


def _sizes(counter: TokenCounter, outline: Outline, split: Split, *, row: int, attempt: int, target: int) -> Sizes:
    """As many candidate rows as the length may need, and more."""
    per_row = row_tokens(counter, outline.schema, outline.locale, outline.format, split)
    if _is_small(outline):
        per_row *= len(outline.order) / len(outline.schema.main.fields) / NARROWER
        count = int(target / per_row * 1.15) + SPARE_ROWS
    else:
        rows = max(target - expected_tokens(outline, counter), 0) / per_row
        if outline.second and outline.schema.second is not None:
            rows -= second_rows(target) * len(outline.schema.second.fields) / len(outline.schema.main.fields)
        count = int(max(rows, 0) * 1.03) + 16
    second = second_rows(target) if outline.second else None
    return Sizes(row=row, attempt=attempt, schema=outline.schema, main=count, second=second)


def fitted(mix: Mix, counter: TokenCounter, *, seed: int, row: int, split: Split, target: int) -> Fitted:
    """The conversation of one row: see `fitted_rows`."""
    return next(fitted_rows(mix, counter, seed=seed, rows=[row], split=split, targets=[target]))


def fitted_rows(
    mix: Mix, counter: TokenCounter, *, seed: int, rows: Sequence[int], split: Split, targets: Sequence[int]
) -> Iterator[Fitted]:
    """The conversations of some rows, each a function of (mix, seed, row, split, target) and the tokenizer. Raises LengthError where
    twenty-four draws of outline and table all miss the length, which lengths above the minimum do not."""
    firsts = drawn(mix, counter, seed=seed, rows=rows, split=split, targets=targets, attempt=0)
    tables = _tables(mix, firsts, seed=seed, split=split)
    for first, of_first, row, target in zip(firsts, tables, rows, targets, strict=True):
        found = _Attempt(first, of_first, counter, split).fit(target)
        yield found or _fitted_later(mix, counter, seed=seed, row=row, split=split, target=target)


def _fitted_later(mix: Mix, counter: TokenCounter, *, seed: int, row: int, split: Split, target: int) -> Fitted:
    """The conversation of a row whose first draw missed its length."""
    for attempt in range(1, ATTEMPTS):
        (again,) = drawn(mix, counter, seed=seed, rows=[row], split=split, targets=[target], attempt=attempt)
        (tables,) = _tables(mix, [again], seed=seed, split=split)
        found = _Attempt(again, tables, counter, split).fit(target)
        if found is not None:
            return found
    message = f"row {row} ({split}) cannot be brought to {target} tokens: raise length, or ask for fewer turns"
    raise LengthError(message, param="/length")


def smallest(mix: Mix, counter: TokenCounter, *, row: int, split: Split) -> tuple[int, float]:
    """Tokens of the conversation that seed 0 draws for a row, with the fewest rows its table may have, and of a row of its table in the
    mean; (0, 0) where its first draw lends itself to no questions. For mixes without second tables."""
    (first,) = drawn(mix, counter, seed=0, rows=[row], split=split, targets=[0], attempt=0)
    (tables,) = _tables(mix, [first], seed=0, split=split)
    return _Attempt(first, tables, counter, split).smallest()


def second_rows(target: int) -> int:
    """Rows of the second table: one for about 400 tokens of the conversation, within bounds."""
    fewest, most = SECOND_ROWS
    return max(fewest, min(most, target // 400))


def row_tokens(counter: TokenCounter, schema: Schema, locale: str, form: Format, split: Split) -> float:
    """Mean tokens of a row of the main table, from a fixed sample."""
    return _row_guess(counter, schema, locale, form, split)[0]


def _row_guess(
    counter: TokenCounter, schema: Schema, locale: str, form: Format, split: Split
) -> tuple[float, float, float]:
    """Of a fixed sample of rows of the main table: mean tokens, mean characters, and tokens for a character more (least squares)."""
    key = (schema.id, locale, form.name, form.between, split)
    if (*key, "mean") not in counter.remembered:
        rows = form.rows(_sample(schema, locale, split))
        tokens, characters = counter.rows(rows, form).astype(float), np.array(list(map(len, rows)), float)
        mean, apart = float(characters.mean()), characters - characters.mean()
        slope = float((apart * tokens).sum() / max(float((apart * apart).sum()), 1.0))
        for name, value in (("mean", float(tokens.mean())), ("characters", mean), ("slope", slope)):
            counter.remembered[*key, name] = value
    mean, characters, slope = (counter.remembered[*key, name] for name in ("mean", "characters", "slope"))
    return mean, characters, slope


@lru_cache(maxsize=4)
def _sample(schema: Schema, locale: str, split: Split) -> Table:
    """The rows that are looked at, made once for all formats."""
    return tables_alone(schema, rows=SAMPLE_ROWS, second=None, locale=locale, split=split).main


def _is_small(outline: Outline) -> bool:
    """Whether its table has fewer columns than its schema."""
    return len(outline.order) < len(outline.schema.main.fields)


class _Attempt:
    """One draw of outline and tables, brought to its length."""

    def __init__(self, drawn: Drawn, tables: Tables, counter: TokenCounter, split: Split) -> None:
        self._drawn, self._outline, self._tables, self._counter = drawn, drawn.outline, tables, counter
        self._split: Split = split

    def fit(self, target: int) -> Fitted | None:
        """The conversation with n_tokens in shortest(target)..target, or in 1..target if its table has the most rows it may have; or
        None."""
        form, most = self._outline.format, self._outline.most_rows
        main, second = reordered(self._tables.main, list(self._outline.order)), self._tables.second
        lines, head = form.rows(main), form.head(main)
        sizes = np.fromiter(map(len, lines), np.int64, count=len(lines))
        guessed = len(lines) >= GUESSED_FROM and not _is_small(self._outline)
        counts = self._guess(sizes) if guessed else self._counter.rows(lines, form)
        beside = [] if second is None else [body_of(self._outline, second.name, form.head(second), form.rows(second))]
        window = target - shortest(target)
        aim, tolerance = target - window // 2, window // 4
        chosen = self._first(counts, aim, head, beside)
        for number in range(ROUNDS):
            if chosen is None or len(chosen) < self._outline.fewest_rows:
                return None
            draft = self._draft(Tables(main=main.take(chosen), second=second), head, beside)
            if draft is None:
                return None
            draft.put(list(itemgetter(*chosen.tolist())(lines)), sizes[chosen])
            tokens = self._counter.conversation(draft.messages)
            low = 1 if len(chosen) == most else target - window
            if low <= tokens <= target:
                made = draft.conversation()
                return Fitted(outline=self._outline, conversation=made, tokens=tokens, table_rows=len(chosen))
            if guessed and number + 1 == GUESSED_ROUNDS:
                counts = self._counter.rows(lines, form)
            chosen = adjusted(chosen, counts, aim - tokens, tolerance)
            if chosen is not None:
                chosen = chosen[:most]
        return None

    def _guess(self, characters: NDArray[np.int64]) -> NDArray[np.int64]:
        """About how many tokens rows of so many characters have, int64 [n]."""
        o = self._outline
        tokens, usual, slope = _row_guess(self._counter, o.schema, o.locale, o.format, self._split)
        return np.rint(tokens + (characters - usual) * slope).astype(np.int64)

    def smallest(self) -> tuple[int, float]:
        """Tokens of the conversation on the first rows, the fewest allowed, and the mean of theirs."""
        form = self._outline.format
        main = reordered(self._tables.main, list(self._outline.order))
        main = main.take(np.arange(self._outline.fewest_rows))
        draft = self._draft(Tables(main=main, second=None), form.head(main), [])
        if draft is None:
            return 0, 0.0
        lines = form.rows(main)
        draft.put(lines, np.array(list(map(len, lines)), np.int64))
        tokens = self._counter.conversation(draft.messages)
        return tokens, float(self._counter.rows(lines, form).mean())

    def _first(self, counts: NDArray[np.int64], aim: int, head: str, others: Sequence[Body]) -> NDArray[np.int64]:
        """As many rows as there may be room for beside the other tables, before the questions are known."""
        beside = expected_tokens(self._outline, self._counter, heads=len(head) + sum(len(body.head) for body in others))
        beside += sum(int(self._counter.rows(body.rows, self._outline.format).sum()) for body in others)
        room = int(np.searchsorted(np.cumsum(counts), aim - beside, side="right"))
        return np.arange(max(self._outline.fewest_rows, min(room, len(counts))))[: self._outline.most_rows]

    def _draft(self, tables: Tables, head: str, others: Sequence[Body]) -> _Draft | None:
        """The questions on these tables."""
        questions = ask_all(self._outline, tables, self._drawn.questions, self._split)
        if questions is None:
            return None
        self._drawn.opening.restart()
        introduction = opening(self._outline, tables, self._drawn.opening, self._split)
        first = body_of(self._outline, tables.main.name, head, [])
        return _Draft(self._outline, introduction, [first, *others], questions)


class _Draft:
    """Questions and tables as messages, once the rows of the first table are put in."""

    def __init__(
        self, outline: Outline, introduction: str, bodies: Sequence[Body], questions: Sequence[Question]
    ) -> None:
        self._outline, self._introduction, self._bodies, self._questions = outline, introduction, bodies, questions
        self.messages: list[dict[str, str]] = []

    def put(self, lines: list[str], sizes: NDArray[np.int64]) -> None:
        """Put in the rows of the main table as they are rendered; `sizes` int64 [rows] are their lengths in characters."""
        main, *others = self._bodies
        self._bodies = [replace(main, rows=lines, sizes=sizes), *others]
        self._texts = [body.text() for body in self._bodies]
        self.messages = messages_of(self._outline, self._introduction, self._texts, self._questions)

    def conversation(self) -> Conversation:
        """The messages with what is known of them."""
        evidence = evidence_of(self._outline, self._introduction, self._bodies, self._texts, self._questions)
        return conversation_of(self.messages, self._questions, evidence)
