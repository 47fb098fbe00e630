"""How many tokens what stands around the rows of a table should have, before anything is asked: means, which only steer how many rows are
taken at first.

They were measured with the builtin tokenizer on 2,500 conversations a language; another tokenizer's are as many times larger as those of
a text that every conversation may have.
"""

from __future__ import annotations

from synth.tables.frame import RULES
from synth.tables.lengths import TokenCounter
from synth.tables.outline import Outline
from synth.tables.question import Request
from synth.tables.schema import Language

AROUND, A_TURN, A_TABLE = 44, 14, 10
"""Tokens of the opening, of what a template writes around a question and its answer, of a second table's title."""
OF_HEADS = {"en": 0.36, "zh": 0.52}
"""Tokens of a character of a table's head."""
HEAD = 220
"""Characters of a head that is not known yet."""
OF_RULES: dict[Language, int] = {"en": 107, "zh": 91}
"""Tokens of the text that others are measured by."""
QUESTIONS: dict[str, tuple[int, int, int]] = {
    "aggregate": (44, 340, 60),
    "compare": (34, 110, 60),
    "count": (30, 312, 0),
    "extreme": (42, 114, 60),
    "filter": (72, 294, 50),
    "group": (58, 135, 0),
    "join": (25, 107, 38),
    "lookup": (21, 59, 34),
    "membership": (24, 58, 0),
    "position": (33, 67, 42),
    "reverse_lookup": (33, 82, 42),
    "row": (74, 168, 50),
    "sort": (91, 310, 72),
    "top_k": (77, 267, 74),
}
"""Tokens of a question with its answer, of one with steps, and of one asked in vain."""


def expected_tokens(outline: Outline, counter: TokenCounter, *, heads: int = HEAD) -> int:
    """Tokens of a conversation of this outline less those of rows; `heads` are the characters of its tables' heads."""
    language = outline.language
    tokens = AROUND + OF_HEADS[language] * heads + A_TABLE * outline.second
    tokens += sum(A_TURN + _of_question(task.name, request) for task, request in outline.turns)
    return int(tokens * _scale(counter, language))


def _of_question(name: str, request: Request) -> int:
    plain, with_steps, in_vain = QUESTIONS[name]
    return in_vain if request.lacking else with_steps if request.steps else plain


def _scale(counter: TokenCounter, language: Language) -> float:
    """How many times the tokens of the builtin tokenizer this one makes."""
    key = ("scale", language)
    if key not in counter.remembered:
        rules = "\n".join(RULES[language].train)
        counter.remembered[key] = int(counter.lines([rules]).sum()) / OF_RULES[language]
    return counter.remembered[key]
