"""count: how many rows meet conditions."""

from __future__ import annotations

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.conditions import choose
from synth.tables.query import query
from synth.tables.question import AS_NUMBER, Asked, Request, Task, in_main, words_of
from synth.tables.table import Tables
from synth.tables.wording import Bilingual, Wordings

MOST_WITH_STEPS = 16
WORDINGS: dict[str, Bilingual] = {
    "count": {
        "en": Wordings(
            train=(
                "How many {many} are there{where}?",
                "Count the {many}{where}.",
                "What is the number of {many}{where}?",
                "How many rows of the table are {many}{where}?",
                "I would like to know how many {many} there are{where}.",
                "Go through all rows and count the {many}{where}.",
            ),
            test=(
                "Tell me the total number of {many}{where}.",
                "How often do {many} occur{where}?",
            ),
        ),
        "zh": Wordings(
            train=(
                "{where}{many}一共有多少？",
                "请数一数{where}{many}有几行。",
                "表中{where}{many}有多少行？",
                "{where}{many}的数量是多少？",
                "我想知道{where}{many}共有多少。",
                "请通读全表，统计{where}{many}的行数。",
            ),
            test=(
                "请告诉我{where}{many}的总数。",
                "{where}{many}在表中出现了几次？",
            ),
        ),
    }
}


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:
    """The number of rows, at least one; up to half of the table where no steps list them."""
    table = tables.main
    half = max(1, table.rows // 2)
    conditions = choose(table, choices, least=1, most=min(half, MOST_WITH_STEPS) if request.steps else half)
    if conditions is None:
        return None
    rows = conditions.rows
    columns = [table.key_column, *conditions.columns]
    listed = steps.facts(table, rows, columns) if request.steps else []
    return Asked(
        query=query("count", table, where=conditions.where, give={"what": "count"}),
        answer=str(len(rows)),
        evidence=in_main(rows),
        wording="count",
        words=words_of(tables, where=conditions.clause),
        notes=(AS_NUMBER,),
        steps=(*listed, steps.matches(len(rows), table.language)),
    )


COUNT = Task(name="count", family="global", wordings=WORDINGS, ask=ask, can_lack=False)
