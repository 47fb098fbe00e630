"""reverse_lookup: the key of the one row that has some values."""

from __future__ import annotations

import numpy as np

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.query import cells_of, equal, query
from synth.tables.question import NO_EVIDENCE, Asked, Request, Task, in_main, words_of
from synth.tables.schema import Language
from synth.tables.table import Column, Tables
from synth.tables.targets import rows_equal
from synth.tables.wording import NOT_IN_TABLE, Bilingual, Wordings, quantity, quoted

MOST_COLUMNS = 4
WORDINGS: dict[str, Bilingual] = {
    "key": {
        "en": Wordings(
            train=(
                "Which {one} has {pairs}? Give {its} {key}.",
                "What is the {key} of the {one} with {pairs}?",
                "Find the {one} with {pairs}. What is {its} {key}?",
                "I am looking for the {one} with {pairs}; which {key} is it?",
                "There is one {one} with {pairs}. Tell me the {key}.",
                "Give me the {key} of the {one} that has {pairs}.",
            ),
            test=(
                "A colleague remembers only this of a certain {one}: {pairs}. Under which {key} is it listed?",
                "Search the table for {pairs} and name the {key}.",
            ),
        ),
        "zh": Wordings(
            train=(
                "哪个{one}的{pairs}？请给出{key}。",
                "{pairs}的{one}，{key}是什么？",
                "请找出{pairs}的{one}，其{key}是多少？",
                "我在找一个{pairs}的{one}，请告诉我{key}。",
                "表中有一个{one}的{pairs}，其{key}是什么？",
                "请给出{pairs}的那个{one}的{key}。",
            ),
            test=(
                "只记得这个{one}的{pairs}，请问其{key}是什么？",
                "按{pairs}检索表格，对应的{key}是哪一个？",
            ),
        ),
    }
}


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:
    """The key of a row from cells that only it has; lacking, cells of two rows that none has together."""
    table, language = tables.main, tables.language
    rows = choices.distinct(2, table.rows)
    others = [i for i in range(len(table.columns)) if i != table.key and table.columns[i].sort != "reference"]
    chosen: list[tuple[Column, str]] = []
    found = np.ones(table.rows, bool)
    for place in choices.distinct(min(MOST_COLUMNS, len(others)), len(others)):
        column = table.columns[others[place]]
        value: str = column.cell(rows[len(chosen) % 2 if request.lacking else 0])
        chosen.append((column, value))
        found &= rows_equal(column, value)
        if len(chosen) >= 2 and found.sum() == (0 if request.lacking else 1):
            break
    if found.sum() != (0 if request.lacking else 1):
        return None
    where = [equal(column, value) for column, value in chosen]
    columns = [table.key_column, *(column for column, _ in chosen)]
    return Asked(
        query=query("reverse_lookup", table, where=where, give=cells_of([table.key_column])),
        answer=NOT_IN_TABLE[language] if request.lacking else table.key_column.cell(rows[0]),
        evidence=NO_EVIDENCE if request.lacking else in_main([rows[0]]),
        wording="key",
        words=words_of(tables, pairs=_pairs(chosen, language)),
        steps=(steps.matches(0, language) if request.lacking else steps.fact(table, rows[0], columns),),
    )


def _pairs(chosen: list[tuple[Column, str]], language: Language) -> str:
    if language == "zh":
        return "、".join(f"{c.phrase}为{_chinese(c, value)}" for c, value in chosen)
    parts = [f"{c.phrase} {_value(c, value)}" for c, value in chosen]
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def _chinese(column: Column, value: str) -> str:
    """Words stand in quotation marks, numbers and dates do not."""
    return quantity(column, value, "zh") if column.sort in ("number", "date") else quoted(value, "zh")


def _value(column: Column, value: str) -> str:
    """Free text stands in quotation marks, for it may hold commas."""
    if column.sort == "text":
        return f'"{value}"' if '"' not in value else f"“{value}”"
    return quantity(column, value, "en")


REVERSE_LOOKUP = Task(name="reverse_lookup", family="retrieval", wordings=WORDINGS, ask=ask, can_lack=True)
