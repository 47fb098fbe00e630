"""join: what the second table says of the row that a row of the main one refers to, or how many rows refer to such rows."""

from __future__ import annotations

import numpy as np

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.query import cells_of, equal, query
from synth.tables.question import AS_NUMBER, NO_EVIDENCE, Asked, Request, Task, with_article, words_of
from synth.tables.table import Column, Table, Tables
from synth.tables.targets import any_column, missing_key
from synth.tables.wording import NOT_IN_TABLE, Bilingual, Wordings, asked_for, quoted

MOST_WITH_STEPS = 16
WORDINGS: dict[str, Bilingual] = {
    "cell": {
        "en": Wordings(
            train=(
                "What is the {column} of the {other} that {one} {value} belongs to?",
                "Look up the {other} of {one} {value}. What is {other_its} {column}?",
                "For the {one} with {key} {value}, find the {other} and give {other_its} {column}.",
                "Which {column} does the {other} of {one} {value} have?",
                "{one} {value} refers to one {other}. Tell me the {column} of that {other}.",
                "Follow the {link} of {one} {value} into the second table: what is the {column} there?",
            ),
            test=(
                "Through {its} {link}, {one} {value} is tied to one {other}. What {column} is listed for it?",
                "Trace {value} to {its} {other} and report the {column}.",
            ),
        ),
        "zh": Wordings(
            train=(
                "{one}{value}所属{other}的{column}是{what}？",
                "请查出{one}{value}对应的{other}，其{column}是{what}？",
                "对{key}为{value}的{one}，请找到相应的{other}，并给出{column}。",
                "{value}这个{one}关联的{other}，{column}是{what}？",
                "{one}{value}指向一个{other}，请告诉我那个{other}的{column}。",
                "沿着{one}{value}的{link}到第二张表中查找，{column}是{what}？",
            ),
            test=(
                "通过{link}，{one}{value}与一个{other}相连，其{column}是{what}？",
                "请由{value}追查到对应的{other}，说出{column}。",
            ),
        ),
    },
    "count": {
        "en": Wordings(
            train=(
                "How many {many} belong to {others} whose {column} is {value}?",
                "Count the {many} that refer to {others} whose {column} is {value}.",
                "Take the {others} whose {column} is {value}. How many {many} belong to them?",
                "What is the number of {many} linked to {others} whose {column} is {value}?",
                "Use both tables: how many {many} go with {others} whose {column} is {value}?",
                "How many of the {many} have {a_other} whose {column} is {value}?",
            ),
            test=(
                "Match the {many} with their {others}. How many lead to {others} whose {column} is {value}?",
                "Tell me how many {many} are tied to {others} whose {column} is {value}.",
            ),
        ),
        "zh": Wordings(
            train=(
                "{column}为{value}的{other}对应的{many}共有多少？",
                "请数一数属于{column}为{value}的{other}的{many}有几行。",
                "先找出{column}为{value}的{other}，再数出其{many}有多少行。",
                "与{column}为{value}的{other}关联的{many}数量是多少？",
                "结合两张表，{column}为{value}的{other}一共有多少{many}？",
                "有多少{many}指向{column}为{value}的{other}？",
            ),
            test=(
                "把{many}与各自的{other}对上，属于{column}为{value}者的有几行？",
                "请告诉我{column}为{value}的{other}名下{many}的总数。",
            ),
        ),
    },
}


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:
    """A cell of the second table, or a count over it; lacking, from a key that is not there."""
    if tables.second is None:
        return None
    if not request.lacking and tables.second.of_sort("category") and choices.flag(0.35):
        return _count(tables, tables.second, choices, request)
    return _cell(tables, tables.second, choices, request)


def _link(table: Table) -> Column:
    """The column that refers to the second table."""
    return table.columns[table.of_sort("reference")[0]]


def _join(table: Table, second: Table) -> dict[str, str]:
    return {"table": second.name, "column": _link(table).title, "key": second.key_column.title}


def _cell(tables: Tables, second: Table, choices: Choices, request: Request) -> Asked | None:
    table, language = tables.main, tables.language
    row, column, link = choices.below(table.rows), any_column(second, choices), _link(table)
    other = int(np.flatnonzero(second.key_column.cells == link.cell(row))[0])
    value = missing_key(table, choices) if request.lacking else table.key_column.cell(row)
    if value is None:
        return None
    found = (
        steps.fact(table, row, [table.key_column, link], named=True),
        steps.fact(second, other, [second.key_column, column], named=True),
    )
    return Asked(
        query=query(
            "join",
            table,
            where=[equal(table.key_column, value)],
            join=_join(table, second),
            give=cells_of([column]) | {"table": second.name},
        ),
        answer=NOT_IN_TABLE[language] if request.lacking else column.cell(other),
        evidence=NO_EVIDENCE if request.lacking else (np.array([row]), np.array([other])),
        wording="cell",
        words=words_of(
            tables,
            column=column.phrase,
            other=second.one,
            other_its=second.its,
            link=link.phrase,
            value=value,
            what=asked_for(column, language),
        ),
        steps=(steps.absent(table.key_column, value, language),) if request.lacking else found,
    )


def _count(tables: Tables, second: Table, choices: Choices, request: Request) -> Asked | None:
    table, language, link = tables.main, tables.language, _link(tables.main)
    column = second.columns[choices.pick(second.of_sort("category"))]
    value = column.cell(choices.below(second.rows))
    others = np.flatnonzero(column.cells == value)
    wanted = set(second.key_column.cells_at(others))
    rows = np.flatnonzero([cell in wanted for cell in link.cells.tolist()])
    if not len(rows) or (request.steps and len(rows) > MOST_WITH_STEPS):
        return None
    lines = [
        *(steps.fact(second, row, [second.key_column, column], named=True) for row in others.tolist()),
        *(steps.fact(table, row, [table.key_column, link], named=True) for row in rows.tolist()),
        steps.matches(len(rows), language),
    ]
    return Asked(
        query=query(
            "join",
            table,
            join=_join(table, second),
            where=[{"table": second.name, **equal(column, value)}],
            give={"what": "count"},
        ),
        answer=str(len(rows)),
        evidence=(rows, others),
        wording="count",
        words=words_of(
            tables,
            column=column.phrase,
            other=second.one,
            a_other=with_article(second.one),
            others=second.many,
            value=quoted(value, language),
        ),
        notes=(AS_NUMBER,),
        steps=tuple(lines) if request.steps else (),
    )


JOIN = Task(name="join", family="reasoning", wordings=WORDINGS, ask=ask, can_lack=True, joins=True)
