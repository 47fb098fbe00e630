"""membership: whether any row has a value, or a pair of values."""

from __future__ import annotations

import numpy as np

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.query import equal, query
from synth.tables.question import NO_EVIDENCE, Asked, Request, Task, in_main, words_of
from synth.tables.table import Column, Tables
from synth.tables.targets import missing_key, rows_equal
from synth.tables.wording import NO, YES, Bilingual, Sentences, Wordings, quoted

SHORT = 40
"""Characters that the longest cell of a column has less of, if a question quotes it."""
WORDINGS: dict[str, Bilingual] = {
    "key": {
        "en": Wordings(
            train=(
                "Does the table contain {a_one} with {key} {value}?",
                "Is there a row for {one} {value}?",
                "Is {value} listed anywhere in the table?",
                "Can you find {key} {value} in the table?",
                "Does {key} {value} occur in the table?",
                "Is {one} {value} among the {many}?",
            ),
            test=(
                "Do the {many} in the table include one with {key} {value}?",
                "Check whether {value} is in the table. Is it?",
            ),
        ),
        "zh": Wordings(
            train=(
                "表中有{key}为{value}的{one}吗？",
                "表里有没有{one}{value}这一行？",
                "{value}是否出现在表中？",
                "能在表中找到{key}{value}吗？",
                "{many}里是否包含{value}？",
                "{one}{value}在不在这张表里？",
            ),
            test=(
                "请核对一下，{value}是否在表格之中？",
                "这些{many}当中，存在{key}为{value}的吗？",
            ),
        ),
    },
    "pair": {
        "en": Wordings(
            train=(
                "Is there any {one} whose {a} is {x} and whose {b} is {y}?",
                "Does the table contain {a_one} whose {a} is {x} and whose {b} is {y}?",
                "Do {a} {x} and {b} {y} occur together in any row?",
                "Can you find {a_one} with {a} {x} and {b} {y}?",
                "Among the {many}, is there one with {a} {x} and {b} {y}?",
                "Is any row recorded with {a} {x} together with {b} {y}?",
            ),
            test=(
                "Check whether some {one} combines {a} {x} with {b} {y}. Is there one?",
                "Do the {many} include one where the {a} is {x} while the {b} is {y}?",
            ),
        ),
        "zh": Wordings(
            train=(
                "有没有{a}为{x}且{b}为{y}的{one}？",
                "表中是否存在{a}为{x}、{b}为{y}的{one}？",
                "{a}{x}与{b}{y}是否在同一行出现过？",
                "能找到{a}为{x}且{b}为{y}的{one}吗？",
                "{many}里有{a}为{x}、同时{b}为{y}的吗？",
                "是否有一行的{a}为{x}且{b}为{y}？",
            ),
            test=(
                "请核对：是否有{one}的{a}为{x}，同时{b}为{y}？",
                "这些{many}当中，{a}为{x}而{b}为{y}的存在吗？",
            ),
        ),
    },
}
YES_OR_NO: Sentences = {"en": "Answer Yes or No.", "zh": "请回答“是”或“否”。"}


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:  # noqa: ARG001 (No is an answer)
    """A key, or a category together with a text; present or, as often, nearly present."""
    present = choices.flag(0.5)
    return _key(tables, choices, present=present) if choices.flag(0.5) else _pair(tables, choices, present=present)


def _key(tables: Tables, choices: Choices, *, present: bool) -> Asked | None:
    table, language = tables.main, tables.language
    row = choices.below(table.rows)
    value = table.key_column.cell(row) if present else missing_key(table, choices)
    if value is None:
        return None
    return Asked(
        query=query("membership", table, where=[equal(table.key_column, value)], give={"what": "exists"}),
        answer=YES[language] if present else NO[language],
        evidence=in_main([row]) if present else NO_EVIDENCE,
        wording="key",
        words=words_of(tables, value=value),
        notes=(YES_OR_NO,),
        steps=(
            steps.fact(table, row, [table.key_column]) if present else steps.absent(table.key_column, value, language),
        ),
    )


def _pair(tables: Tables, choices: Choices, *, present: bool) -> Asked | None:
    table, language = tables.main, tables.language
    texts, categories = _texts(table.columns), table.of_sort("category")
    if not texts or not categories:
        return None
    a, b = table.columns[choices.pick(texts)], table.columns[choices.pick(categories)]
    first, second = choices.distinct(2, table.rows)
    x, y = a.cell(first), b.cell(first if present else second)
    found = np.flatnonzero(rows_equal(a, x) & rows_equal(b, y))
    if present != bool(len(found)):
        return None
    columns = [table.key_column, a, b]
    lines = [steps.fact(table, row, columns) for row in found[:1].tolist()]
    return Asked(
        query=query("membership", table, where=[equal(a, x), equal(b, y)], give={"what": "exists"}),
        answer=YES[language] if present else NO[language],
        evidence=in_main(found),
        wording="pair",
        words=words_of(tables, a=a.phrase, b=b.phrase, x=quoted(x, language), y=quoted(y, language)),
        notes=(YES_OR_NO,),
        steps=tuple(lines) or (steps.matches(0, language),),
    )


def _texts(columns: tuple[Column, ...]) -> list[int]:
    """Columns of names: short enough to stand in a question."""
    return [i for i, column in enumerate(columns) if column.sort == "text" and _is_short(column)]


def _is_short(column: Column) -> bool:
    longest = column.heading.longest
    return (longest is not None and longest < SHORT) or max(map(len, column.cells)) < SHORT


MEMBERSHIP = Task(name="membership", family="retrieval", wordings=WORDINGS, ask=ask, can_lack=False)
