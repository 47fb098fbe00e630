"""A conversation out of an outline and tables: questions asked and answered, and the text they and the tables make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synth.tables.choices import Choices
from synth.tables.frame import OPENING_ONE, OPENING_TWO, RULES, STEPS, TITLE, none_of, response
from synth.tables.outline import Outline
from synth.tables.query import to_json
from synth.tables.question import Asked, Request
from synth.tables.schema import Language
from synth.tables.table import Tables
from synth.tables.wording import fill
from synth.values.pools import Split

TRIES = 12
MOST_TURNS = 64
SPACE: dict[Language, str] = {"en": " ", "zh": ""}


class Question(NamedTuple):
    """A question as it stands in a conversation."""

    asked: Asked
    text: str
    steps: tuple[str, ...]


class Body(NamedTuple):
    """A table as text: head, rows with `between` between them, tail. `rows` are those of the table, in order, `sizes` int64 [rows] how many
    code points each has."""

    title: str
    head: str
    rows: Sequence[str]
    sizes: NDArray[np.int64]
    between: str
    tail: str

    def text(self) -> str:
        """The whole of it."""
        return f"{self.title}{self.head}{self.between.join(self.rows)}{self.tail}"

    def starts(self) -> NDArray[np.int64]:
        """Where each row begins in `text()`, in code points: int64 [rows]."""
        steps = self.sizes + len(self.between)
        return len(self.title) + len(self.head) + np.cumsum(steps) - steps


class Conversation(NamedTuple):
    """A finished conversation: its messages, and what the row says of every question. `evidence` int64 [n, 3] are (question, start, end)
    in code points of the first message."""

    messages: list[dict[str, str]]
    queries: list[str]
    answers: list[str]
    evidence: NDArray[np.int64]


def ask_all(outline: Outline, tables: Tables, each: Sequence[Choices], split: Split) -> list[Question] | None:
    """A question for each turn, no two the same; None where the tables do not lend themselves to one of them."""
    questions: list[Question] = []
    language = outline.language
    for (task, request), choices in zip(outline.turns, each, strict=True):
        choices.restart()
        for trial in range(TRIES):
            # A question that cannot be asked in vain here is asked with an answer.
            in_vain = request.lacking and trial < TRIES // 2
            asked = task.ask(tables, choices, Request(steps=request.steps, lacking=in_vain))
            if asked is not None and all(asked.query != question.asked.query for question in questions):
                break
        else:
            return None
        steps = asked.steps if request.steps else ()
        wordings = task.wordings[asked.wording][language].of(split)
        notes = [fill(note[language], asked.words) for note in asked.notes]
        if steps:
            notes.append(choices.pick(STEPS[language].of(split)))
        sentence = fill(choices.pick(wordings), asked.words)
        text = SPACE[language].join([sentence, *notes])
        questions.append(Question(asked=asked, text=text, steps=steps))
    return questions


def opening(outline: Outline, tables: Tables, choices: Choices, split: Split) -> str:
    """What the user says before the tables."""
    language = outline.language
    words = {"many": tables.main.many, "others": tables.second.many if tables.second else "", **none_of(language)}
    first = OPENING_TWO if tables.second else OPENING_ONE
    sentences = [choices.pick(wordings[language].of(split)) for wordings in (first, RULES)]
    return SPACE[language].join(fill(sentence, words) for sentence in sentences)


def body_of(outline: Outline, name: str, head: str, rows: Sequence[str]) -> Body:
    """A rendered table under its name."""
    title = f"{TITLE[outline.language]}{name}\n\n"
    return Body(
        title=title,
        head=head,
        rows=rows,
        sizes=np.array(list(map(len, rows)), np.int64),
        between=outline.format.between,
        tail=outline.format.tail.rstrip("\n"),
    )


def messages_of(
    outline: Outline, introduction: str, texts: Sequence[str], questions: Sequence[Question]
) -> list[dict[str, str]]:
    """The turns: the tables stand in the first message, before its question or behind it."""
    tables, first = "\n\n".join([introduction, *texts]), questions[0].text
    opened = f"{first}\n\n{tables}" if outline.question_first else f"{tables}\n\n{first}"
    messages: list[dict[str, str]] = []
    for number, question in enumerate(questions):
        messages.append({"role": "user", "content": question.text if number else opened})
        answer = response(question.asked.answer, question.steps, outline.language)
        messages.append({"role": "assistant", "content": answer})
    return messages


def evidence_of(
    outline: Outline, introduction: str, bodies: Sequence[Body], texts: Sequence[str], questions: Sequence[Question]
) -> NDArray[np.int64]:
    """Where in the first message, which holds `texts` of the `bodies`, the evidence of every question lies: (question, start, end) in
    code points, int64 [n, 3]."""
    base = len(introduction) + 2 + (len(questions[0].text) + 2 if outline.question_first else 0)
    begins: list[NDArray[np.int64]] = []
    first_rows: list[int] = []
    rows_before = 0
    for body, text in zip(bodies, texts, strict=True):
        begins.append(base + body.starts())
        first_rows.append(rows_before)
        base, rows_before = base + len(text) + 2, rows_before + len(body.rows)
    needed = [
        (number, rows + first_row)
        for number, question in enumerate(questions)
        for first_row, rows in zip(first_rows, question.asked.evidence, strict=False)
        if len(rows)
    ]
    evidence = np.zeros((sum(len(rows) for _, rows in needed), 3), np.int64)
    if needed:
        every = np.concatenate([rows for _, rows in needed])
        evidence[:, 0] = np.repeat([number for number, _ in needed], [len(rows) for _, rows in needed])
        evidence[:, 1] = np.concatenate(begins)[every]
        evidence[:, 2] = evidence[:, 1] + np.concatenate([body.sizes for body in bodies])[every]
    return evidence


def conversation_of(
    messages: list[dict[str, str]], questions: Sequence[Question], evidence: NDArray[np.int64]
) -> Conversation:
    """The messages with what the row says of every question."""
    return Conversation(
        messages=messages,
        queries=[to_json(question.asked.query) for question in questions],
        answers=[question.asked.answer for question in questions],
        evidence=evidence,
    )
