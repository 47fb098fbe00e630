"""aggregate: the sum or the mean of a column over the rows that meet conditions."""

from __future__ import annotations

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.conditions import beyond, choose
from synth.tables.query import query
from synth.tables.question import AS_NUMBER, TWO_DECIMALS, Asked, Request, Task, in_main, words_of
from synth.tables.table import Column, Tables
from synth.tables.wording import NOT_IN_TABLE, Bilingual, Wordings
from synth.values.columns import number_text

MOST_ROWS, MOST_WITH_STEPS = 32, 12
WORDINGS: dict[str, Bilingual] = {
    "sum": {
        "en": Wordings(
            train=(
                "What is the sum of the {column} over all {many}{where}?",
                "Add up the {column} of the {many}{where}.",
                "What does the {column} of all {many}{where} come to in total?",
                "Take the {many}{where}. What is their total {column}?",
                "Work out the total {column} of the {many}{where}.",
                "I need the {column} summed over the {many}{where}.",
            ),
            test=(
                "Looking only at {many}{where}, what do the values of {column} add up to?",
                "Give the grand total of {column} for {many}{where}.",
            ),
        ),
        "zh": Wordings(
            train=(
                "所有{where}{many}的{column}之和是多少？",
                "请把{where}{many}的{column}加起来。",
                "{where}{many}，{column}合计是多少？",
                "请计算{where}{many}的{column}总和。",
                "对{where}{many}，{column}一列的总计是多少？",
                "我需要{where}{many}的{column}总数。",
            ),
            test=(
                "只看{where}{many}，其{column}相加等于多少？",
                "请给出{where}{many}在{column}上的合计值。",
            ),
        ),
    },
    "mean": {
        "en": Wordings(
            train=(
                "What is the average {column} of the {many}{where}?",
                "Work out the mean {column} of the {many}{where}.",
                "On average, what is the {column} of {many}{where}?",
                "Take the {many}{where}. What is their mean {column}?",
                "I need the average {column} over all {many}{where}.",
                "Compute the arithmetic mean of the {column} for {many}{where}.",
            ),
            test=(
                "Looking only at {many}{where}, what {column} do they have on average?",
                "Give the mean of {column} across {many}{where}.",
            ),
        ),
        "zh": Wordings(
            train=(
                "{where}{many}的平均{column}是多少？",
                "请计算{where}{many}的{column}平均值。",
                "平均来看，{where}{many}的{column}是多少？",
                "对{where}{many}求{column}的均值。",
                "我需要{where}{many}的{column}的平均数。",
                "请求出所有{where}{many}的{column}的算术平均值。",
            ),
            test=(
                "只看{where}{many}，{column}平均是多少？",
                "请给出{where}{many}在{column}上的均值。",
            ),
        ),
    },
}


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:
    """A sum with the column's digits, or a mean with two decimals, over two rows or more; lacking, over none."""
    table, language = tables.main, tables.language
    column = table.columns[choices.pick(table.of_sort("number"))]
    what = choices.pick(("sum", "mean") if column.heading.additive else ("mean",))
    most = min(MOST_WITH_STEPS if request.steps else MOST_ROWS, table.rows)
    conditions = beyond(table, choices) if request.lacking else choose(table, choices, least=2, most=most)
    if conditions is None:
        return None
    rows = conditions.rows
    values: list[int] = column.values()[rows].tolist()
    total = sum(values)
    told = _distinct([table.key_column, *conditions.columns, column])
    lines = steps.facts(table, rows, told) if request.steps else []
    give = {"what": what, "column": column.title} | ({"decimals": 2} if what == "mean" else {})
    if request.lacking:
        answer, lines = NOT_IN_TABLE[language], [steps.matches(0, language)]
    elif what == "sum":
        answer = number_text(total, column.decimals)
        lines += [steps.total(column, values)]
    else:
        answer = number_text(steps.mean_of(total, len(rows), column.decimals), 2)
        lines += [steps.total(column, values), steps.quotient(column, total, len(rows))]
    return Asked(
        query=query("aggregate", table, where=conditions.where, give=give),
        answer=answer,
        evidence=in_main(rows),
        wording=what,
        words=words_of(tables, where=conditions.clause, column=column.phrase),
        notes=(AS_NUMBER,) if what == "sum" else (TWO_DECIMALS, AS_NUMBER),
        steps=tuple(lines),
    )


def _distinct(columns: list[Column]) -> list[Column]:
    """Columns without repetition: the one that is added up may be one that a condition reads."""
    return [column for i, column in enumerate(columns) if all(column is not other for other in columns[:i])]


AGGREGATE = Task(name="aggregate", family="reasoning", wordings=WORDINGS, ask=ask, can_lack=True)
