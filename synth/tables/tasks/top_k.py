"""top_k: the keys of the few rows with the highest or the lowest values, of the whole table."""

from __future__ import annotations

import numpy as np

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.conditions import anything, beyond, choose
from synth.tables.query import cells_of, order_by, query
from synth.tables.question import TIES_BY_TABLE, Asked, Request, Task, in_main, listed, words_of
from synth.tables.table import Tables
from synth.tables.targets import measure
from synth.tables.tasks.extreme import SUPERLATIVES
from synth.tables.tasks.sort import KEYS_ONLY
from synth.tables.wording import NOT_IN_TABLE, Bilingual, Sentences, Wordings

MOST_ROWS = 8
NUMBERS = {
    "en": ("two", "three", "four", "five", "six", "seven", "eight"),
    "zh": ("两", "三", "四", "五", "六", "七", "八"),
}
WORDINGS: dict[str, Bilingual] = {
    "keys": {
        "en": Wordings(
            train=(
                "Which {k} {many}{where} have the {most} {column}?",
                "Give the {k} {many}{where} with the {most} {column}.",
                "Find the {k} {many} with the {most} {column} among the {many}{where}.",
                "List the {k} {many}{where} that have the {most} {column}.",
                "What are the {k} {many}{where} with the {most} {column}?",
                "Looking at all {many}{where}, which {k} have the {most} {column}?",
            ),
            test=(
                "Pick out the {k} {many}{where} whose {column} is the {most}.",
                "Of all {many}{where}, {k} have the {most} {column}. Which are they?",
            ),
        ),
        "zh": Wordings(
            train=(
                "{where}{many}中，{column}{most}的{k}个是哪些？",
                "请给出{where}{many}里{column}{most}的{k}个。",
                "请找出{where}{many}当中{column}{most}的前{k}个。",
                "列出{column}{most}的{k}个{where}{many}。",
                "在所有{where}{many}中，哪{k}个的{column}{most}？",
                "{where}{many}里，{column}{most}的前{k}个分别是什么？",
            ),
            test=(
                "请挑出{where}{many}之中{column}{most}的{k}个来。",
                "纵观{where}{many}，{column}{most}的前{k}名分别是哪些？",
            ),
        ),
    }
}
MOST_FIRST: Sentences = {
    "en": "Start with the {most} one.",
    "zh": "从{most}的开始写。",
}


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:
    """The keys of the first two to eight rows in an order; lacking, where no row meets the conditions."""
    table, language = tables.main, tables.language
    column, descending = measure(table, choices), choices.flag(0.6)
    k = choices.between(2, min(MOST_ROWS, table.rows - 1))
    if request.lacking:
        conditions = beyond(table, choices)
    else:
        conditions = anything(table) if choices.flag(0.6) else choose(table, choices, least=k, most=table.rows)
    if conditions is None:
        return None
    values = column.values()[conditions.rows]
    ranked = conditions.rows[np.argsort(-values if descending else values, kind="stable")][:k]
    facts = steps.facts(table, ranked, [table.key_column, column]) if request.steps else []
    return Asked(
        query=query(
            "top_k",
            table,
            where=conditions.where,
            order=order_by(column, descending=descending),
            limit=k,
            give=cells_of([table.key_column]),
        ),
        answer=NOT_IN_TABLE[language] if request.lacking else listed(table.key_column.cells_at(ranked)),
        evidence=in_main(ranked),
        wording="keys",
        words=words_of(
            tables,
            where=conditions.clause,
            column=column.phrase,
            k=NUMBERS[language][k - 2],
            most=SUPERLATIVES[language][column.sort, descending],
        ),
        notes=(MOST_FIRST, KEYS_ONLY, TIES_BY_TABLE),
        steps=(steps.matches(0, language),) if request.lacking else (*facts, steps.in_order(table, column, ranked)),
    )


TOP_K = Task(name="top_k", family="global", wordings=WORDINGS, ask=ask, can_lack=True)
