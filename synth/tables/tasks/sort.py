"""sort: the keys of the rows that meet conditions, in the order of another column."""

from __future__ import annotations

import numpy as np

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.conditions import beyond, choose
from synth.tables.query import cells_of, order_by, query
from synth.tables.question import TIES_BY_TABLE, Asked, Request, Task, in_main, listed, words_of
from synth.tables.table import Tables
from synth.tables.targets import measure
from synth.tables.wording import NOT_IN_TABLE, Bilingual, Sentences, Wordings

MOST_ROWS = 10
ORDERS = {
    "en": {
        ("number", True): "from the highest to the lowest",
        ("number", False): "from the lowest to the highest",
        ("date", True): "from the latest to the earliest",
        ("date", False): "from the earliest to the latest",
    },
    "zh": {
        ("number", True): "从高到低",
        ("number", False): "从低到高",
        ("date", True): "从晚到早",
        ("date", False): "从早到晚",
    },
}
WORDINGS: dict[str, Bilingual] = {
    "keys": {
        "en": Wordings(
            train=(
                "Sort the {many}{where} by {column}, {order}.",
                "Take the {many}{where} and put them in order of {column}, {order}.",
                "Order the {many}{where} by their {column}, {order}.",
                "Rank the {many}{where} by {column}, {order}.",
                "Which {many} are there{where}? Arrange them by {column}, {order}.",
                "Pick the {many}{where} and list them by {column}, {order}.",
            ),
            test=(
                "Line up the {many}{where} according to {column}, {order}.",
                "Please bring the {many}{where} into sequence by {column}, {order}.",
            ),
        ),
        "zh": Wordings(
            train=(
                "请把{where}{many}按{column}{order}排序。",
                "将{where}{many}依{column}{order}排列。",
                "{where}{many}有哪些？请按{column}{order}排好。",
                "请对{where}{many}按{column}{order}排出次序。",
                "请选出{where}{many}，并按{column}{order}列出。",
                "以{column}为准，{order}排列{where}{many}。",
            ),
            test=(
                "麻烦把{where}{many}依照{column}{order}排成一列。",
                "请依据{column}，{order}依次写出{where}{many}。",
            ),
        ),
    }
}
KEYS_ONLY: Sentences = {
    "en": "Give the {keys} only, separated by commas.",
    "zh": "只写{key}，用逗号分隔。",
}


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:
    """The keys of two to ten rows in an order; lacking, of none."""
    table, language = tables.main, tables.language
    column, descending = measure(table, choices), choices.flag(0.5)
    conditions = (
        beyond(table, choices)
        if request.lacking
        else choose(table, choices, least=2, most=max(2, min(MOST_ROWS, table.rows)))
    )
    if conditions is None:
        return None
    values = column.values()[conditions.rows]
    ranked = conditions.rows[np.argsort(-values if descending else values, kind="stable")]
    facts = steps.facts(table, conditions.rows, [table.key_column, column]) if request.steps else []
    return Asked(
        query=query(
            "sort",
            table,
            where=conditions.where,
            order=order_by(column, descending=descending),
            give=cells_of([table.key_column]),
        ),
        answer=NOT_IN_TABLE[language] if request.lacking else listed(table.key_column.cells_at(ranked)),
        evidence=in_main(ranked),
        wording="keys",
        words=words_of(
            tables, where=conditions.clause, column=column.phrase, order=ORDERS[language][column.sort, descending]
        ),
        notes=(KEYS_ONLY, TIES_BY_TABLE),
        steps=(steps.matches(0, language),) if request.lacking else (*facts, steps.in_order(table, column, ranked)),
    )


SORT = Task(name="sort", family="global", wordings=WORDINGS, ask=ask, can_lack=True)
