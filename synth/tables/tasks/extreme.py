"""extreme: the row with the highest or the lowest value."""

from __future__ import annotations

import numpy as np

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.conditions import anything, beyond, choose
from synth.tables.query import cells_of, order_by, query
from synth.tables.question import FIRST_OF_TIES, Asked, Request, Task, in_main, words_of
from synth.tables.table import Tables
from synth.tables.targets import measure
from synth.tables.wording import NOT_IN_TABLE, Bilingual, Wordings

SUPERLATIVES = {
    "en": {
        ("number", True): "highest",
        ("number", False): "lowest",
        ("date", True): "latest",
        ("date", False): "earliest",
    },
    "zh": {("number", True): "最高", ("number", False): "最低", ("date", True): "最晚", ("date", False): "最早"},
}
WORDINGS: dict[str, Bilingual] = {
    "key": {
        "en": Wordings(
            train=(
                "Which of the {many}{where} has the {most} {column}? Give {its} {key}.",
                "Find the {one} with the {most} {column} among the {many}{where}. What is {its} {key}?",
                "What is the {key} of the {one} that has the {most} {column} of all {many}{where}?",
                "Among all {many}{where}, which {key} has the {most} {column}?",
                "Look at the {many}{where}: which one has the {most} {column}? Answer with the {key}.",
                "Tell me the {key} of the {one} with the {most} {column}, considering all {many}{where}.",
            ),
            test=(
                "Compare all {many}{where} by {column}. Which {key} has the {most} one?",
                "Name the {key} with the {most} {column} of all the {many}{where}.",
            ),
        ),
        "zh": Wordings(
            train=(
                "{where}{many}中，{column}{most}的是哪一个？请给出{key}。",
                "请找出{where}{many}里{column}{most}的一个，其{key}是什么？",
                "在所有{where}{many}中，哪个{key}的{column}{most}？",
                "{column}{most}的{where}{many}，{key}是多少？",
                "比较全部{where}{many}，{column}{most}的{key}是哪个？",
                "请告诉我{where}{many}当中{column}{most}的那个的{key}。",
            ),
            test=(
                "纵观{where}{many}，哪一个的{column}{most}？请回答{key}。",
                "按{column}衡量，{where}{many}里{most}的那个{key}是什么？",
            ),
        ),
    }
}


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:
    """The key of the first row in an order, of all rows or of at least two that meet conditions; lacking, of none."""
    table, language = tables.main, tables.language
    column, descending = measure(table, choices), choices.flag(0.5)
    if request.lacking:
        conditions = beyond(table, choices)
    else:
        conditions = anything(table) if choices.flag(0.5) else choose(table, choices, least=2, most=table.rows)
    if conditions is None:
        return None
    values = column.values()[conditions.rows]
    ranked = conditions.rows[np.argsort(-values if descending else values, kind="stable")]
    lines = steps.facts(table, ranked[:2], [table.key_column, column]) if request.steps else []
    if lines[1:]:
        high, low = ranked[:2] if descending else ranked[1::-1]
        lines.append(steps.greater(column, int(column.values()[high]), int(column.values()[low]), language))
    return Asked(
        query=query(
            "extreme",
            table,
            where=conditions.where,
            order=order_by(column, descending=descending),
            limit=1,
            give=cells_of([table.key_column]),
        ),
        answer=NOT_IN_TABLE[language] if request.lacking else table.key_column.cell(int(ranked[0])),
        evidence=in_main(ranked[:1]),
        wording="key",
        words=words_of(
            tables, where=conditions.clause, column=column.phrase, most=SUPERLATIVES[language][column.sort, descending]
        ),
        notes=(FIRST_OF_TIES,),
        steps=tuple(lines) or (steps.matches(0, language),),
    )


EXTREME = Task(name="extreme", family="global", wordings=WORDINGS, ask=ask, can_lack=True)
