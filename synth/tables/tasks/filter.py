"""filter: the keys of the rows that meet conditions, in the order of the table."""

from __future__ import annotations

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.conditions import beyond, choose
from synth.tables.query import cells_of, query
from synth.tables.question import IN_TABLE_ORDER, Asked, Request, Task, in_main, listed, words_of
from synth.tables.table import Tables
from synth.tables.wording import NOT_IN_TABLE, Bilingual, Wordings

MOST_ROWS = 12
WORDINGS: dict[str, Bilingual] = {
    "keys": {
        "en": Wordings(
            train=(
                "Which {many} are there{where}?",
                "Find all {many}{where}.",
                "Show me the {many}{where}.",
                "I need a list of every one of the {many}{where}.",
                "Go through the table and pick out the {many}{where}.",
                "Select the {many}{where}.",
            ),
            test=(
                "Name each of the {many}{where}.",
                "Please filter the table for {many}{where}.",
            ),
        ),
        "zh": Wordings(
            train=(
                "{where}{many}有哪些？",
                "请找出所有{where}{many}。",
                "表中哪些是{where}{many}？",
                "请筛选出{where}{many}。",
                "我需要一份{where}{many}清单。",
                "请通读表格，挑出{where}{many}。",
            ),
            test=(
                "请逐一列举{where}{many}。",
                "请问表里{where}{many}都是哪几个？",
            ),
        ),
    }
}


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:
    """The keys of one to twelve rows; lacking, of none."""
    table, language = tables.main, tables.language
    most = max(1, min(MOST_ROWS, table.rows // 2))
    conditions = beyond(table, choices) if request.lacking else choose(table, choices, least=1, most=most)
    if conditions is None:
        return None
    rows = conditions.rows
    columns = [table.key_column, *conditions.columns]
    return Asked(
        query=query("filter", table, where=conditions.where, give=cells_of([table.key_column])),
        answer=NOT_IN_TABLE[language] if request.lacking else listed(table.key_column.cells_at(rows)),
        evidence=in_main(rows),
        wording="keys",
        words=words_of(tables, where=conditions.clause),
        notes=(IN_TABLE_ORDER,),
        steps=(*steps.facts(table, rows, columns), steps.matches(len(rows), language)) if request.steps else (),
    )


FILTER = Task(name="filter", family="reasoning", wordings=WORDINGS, ask=ask, can_lack=True)
