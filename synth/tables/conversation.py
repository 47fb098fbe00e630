"""A conversation out of an outline and tables: questions asked and answered, and the text they and the tables make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question as it stands in a conversation, in words and, as `query`, in JSON."""

    asked: Asked
    query: str
    text: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A finished conversation: its messages, and what the row says of every question. `evidence` int64 [n, 3] are (question, start, end)
    in code points of the first message."""

    messages: list[dict[str, str]]
    queries: list[str]
    answers: list[str]
    evidence: NDArray[np.int64]


def ask_all(outline: Outline, tables: Tables, each: Sequence[Choices], split: Split) -> list[Question] | None:
    """A question for each turn, no two the same; None where the tables do not lend themselves to one of them."""
    questions: list[Question] = []
    seen: set[str] = set()
    for (task, request), choices in zip(outline.turns, each, strict=True):
        choices.restart()
        for trial in range(TRIES):
            # A question that cannot be asked in vain here is asked with an answer.
            in_vain = request.lacking and trial < TRIES // 2
            asked = task.ask(tables, choices, Request(steps=request.steps, lacking=in_vain))
            query = "" if asked is None else to_json(asked.query)
            if asked is not None and query not in seen:
                break
        else:
            return None
        seen.add(query)
        steps = asked.steps if request.steps else ()
        wordings = task.wordings[asked.wording][outline.language].of(split)
        notes = [fill(note[outline.language], asked.words) for note in asked.notes]
        if steps:
            notes.append(choices.pick(STEPS[outline.language].of(split)))
        sentence = fill(choices.pick(wordings), asked.words)
        text = SPACE[outline.language].join([sentence, *notes])
        questions.append(Question(asked=asked, query=query, text=text, steps=steps))
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
    bases = base + np.cumsum([0, *(len(text) + 2 for text in texts[:-1])])
    starts = [start + body.starts() for start, body in zip(bases, bodies, strict=True)]
    needed = [
        (number, rows, table)
        for number, question in enumerate(questions)
        for table, rows in enumerate(question.asked.evidence)
        if len(rows)
    ]
    evidence = np.zeros((sum(len(rows) for _, rows, _ in needed), 3), np.int64)
    at = 0
    for number, rows, table in needed:
        block = evidence[at : at + len(rows)]
        block[:, 0], block[:, 1] = number, starts[table][rows]
        block[:, 2] = block[:, 1] + bodies[table].sizes[rows]
        at += len(rows)
    return evidence


def conversation_of(
    messages: list[dict[str, str]], questions: Sequence[Question], evidence: NDArray[np.int64]
) -> Conversation:
    """The messages with what the row says of every question."""
    return Conversation(
        messages=messages,
        queries=[question.query for question in questions],
        answers=[question.asked.answer for question in questions],
        evidence=evidence,
    )
