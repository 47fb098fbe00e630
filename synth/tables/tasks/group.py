"""group: rows counted, added up or averaged by category; every group, or the largest or smallest one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.query import query
from synth.tables.question import TWO_DECIMALS, Asked, Request, Task, in_main, listed, words_of
from synth.tables.schema import Language
from synth.tables.table import Column, Indices, Table, Tables
from synth.tables.wording import Bilingual, Sentences, Wordings
from synth.values.columns import number_text

WORDINGS: dict[str, Bilingual] = {
    "all": {
        "en": Wordings(
            train=(
                "For each {group}, what is {measure}?",
                "Group the {many} by {group} and give {measure} of each group.",
                "Break the table down by {group}: what is {measure} in each case?",
                "Summarise the {many} by {group}, with {measure}.",
                "Take every {group} in turn and tell me {measure}.",
                "Per {group}, work out {measure}.",
            ),
            test=(
                "Split the {many} by {group}. What is {measure} for every one of them?",
                "Make an overview of {measure} by {group}.",
            ),
        ),
        "zh": Wordings(
            train=(
                "按{group}分组，每组{measure}是多少？",
                "请按{group}统计{many}，给出各组的{measure}。",
                "每个{group}的{measure}分别是多少？",
                "请以{group}为单位，计算{measure}。",
                "请把{many}按{group}归类，并写出每类的{measure}。",
                "分{group}来看，{measure}各是多少？",
            ),
            test=(
                "请做一份按{group}划分的{measure}一览。",
                "逐个{group}说明{measure}是多少。",
            ),
        ),
    },
    "one": {
        "en": Wordings(
            train=(
                "Which {group} has the {most} {total}?",
                "Group the {many} by {group}. Which {group} comes out with the {most} {total}?",
                "By {group}, where is {the_total} the {most}?",
                "Over the whole table, which {group} shows the {most} {total}?",
                "Name the {group} with the {most} {total}.",
                "If the {many} are grouped by {group}, which group has the {most} {total}?",
            ),
            test=(
                "Split the {many} by {group} and tell me which one has the {most} {total}.",
                "Look at every {group}: where do you find the {most} {total}?",
            ),
        ),
        "zh": Wordings(
            train=(
                "哪个{group}的{total}{most}？",
                "按{group}分组后，{total}{most}的是哪一组？",
                "在整张表中，{total}{most}的{group}是哪个？",
                "请指出{total}{most}的{group}。",
                "把{many}按{group}归类，哪一类的{total}{most}？",
                "各{group}之中，{total}{most}的是哪个？",
            ),
            test=(
                "请把{many}按{group}划分，说出{total}{most}的那一个。",
                "纵观每个{group}，{total}{most}的是哪一个？",
            ),
        ),
    },
}
MEASURES: dict[Language, dict[str, tuple[str, str, str]]] = {
    "en": {
        "count": ("the number of {many}", "number of {many}", "the number of {many}"),
        "sum": ("the sum of the {column}", "total {column}", "the total {column}"),
        "mean": ("the average {column}", "average {column}", "the average {column}"),
    },
    "zh": {
        "count": ("{many}数量", "{many}数量", ""),
        "sum": ("{column}之和", "{column}之和", ""),
        "mean": ("{column}平均值", "{column}平均值", ""),
    },
}
MOST: dict[Language, dict[str, tuple[str, str]]] = {
    "en": {"count": ("largest", "smallest"), "sum": ("highest", "lowest"), "mean": ("highest", "lowest")},
    "zh": {"count": ("最多", "最少"), "sum": ("最大", "最小"), "mean": ("最高", "最低")},
}
AS_PAIRS: Sentences = {
    "en": 'Write "{group}: value" for each, in the order in which they first appear in the table, separated by commas.',
    "zh": "按各{group}在表中首次出现的顺序，以“名称: 数值”的形式写出，用逗号分隔。",
}
NAME_ONLY: Sentences = {"en": "Answer with the {group} only.", "zh": "只需回答{group}。"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """One group: its name, its rows, its measure as a number that compares and as text, and the line that says it."""

    name: str
    rows: Indices
    value: tuple[int, int]
    text: str
    line: str


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:  # noqa: ARG001 (every group has an answer)
    """Every group's measure in the order of first appearance, or the group with the largest or smallest one."""
    table, language = tables.main, tables.language
    categories = table.of_sort("category")
    if not categories:
        return None
    by = table.columns[choices.pick(categories)]
    column = table.columns[choices.pick(table.of_sort("number"))]
    what = choices.pick(("count", "sum", "mean") if column.heading.additive else ("count", "mean"))
    groups = _groups(table, by, what, column)
    every, largest = choices.flag(0.5), choices.flag(0.6)
    if len(groups) < 2:
        return None
    best = groups[0]
    for group in groups[1:]:
        # value is (numerator, denominator > 0): compared exactly, the first of equals stays.
        ahead = group.value[0] * best.value[1] - best.value[0] * group.value[1]
        best = group if (ahead > 0 if largest else ahead < 0) else best
    measure = (
        {"what": what}
        | ({} if what == "count" else {"column": column.title})
        | ({"decimals": 2} if what == "mean" else {})
    )
    pick = "all" if every else "largest" if largest else "smallest"
    names = {"many": table.many, "column": column.phrase}
    one, total, the_total = (text.format_map(names) for text in MEASURES[language][what])
    rounding = (TWO_DECIMALS,) if what == "mean" and every else ()
    return Asked(
        query=query("group", table, group={"by": by.title, "measure": measure}, give={"what": "groups", "pick": pick}),
        answer=listed([f"{g.name}: {g.text}" for g in groups]) if every else best.name,
        evidence=in_main(np.arange(table.rows) if every else best.rows),
        wording="all" if every else "one",
        words=words_of(
            tables,
            group=by.phrase,
            measure=one,
            total=total,
            the_total=the_total,
            most=MOST[language][what][0 if largest else 1],
        ),
        notes=(AS_PAIRS, *rounding) if every else (NAME_ONLY, FIRST_GROUP),
        steps=tuple(group.line for group in groups),
    )


FIRST_GROUP: Sentences = {
    "en": "If there is a tie, take the {group} that appears first in the table.",
    "zh": "如有并列，取表中最先出现的{group}。",
}


def _groups(table: Table, by: Column, what: str, column: Column) -> list[_Group]:
    """The groups in the order of their first rows."""
    groups: list[_Group] = []
    for name in dict.fromkeys(by.cells.tolist()):
        rows = np.flatnonzero(by.cells == name)
        total, count = int(column.values()[rows].sum()), len(rows)
        total_text = number_text(total, column.decimals)
        if what == "count":
            value, text, line = (count, 1), str(count), f"{name}: {count}"
        elif what == "sum":
            value, text, line = (total, 1), total_text, _sum_line(table, name, count, total_text)
        else:
            value, text = (total, count), number_text(steps.mean_of(total, count, column.decimals), 2)
            line = f"{name}: {steps.quotient(column, total, count)}"
        groups.append(_Group(name=name, rows=rows, value=value, text=text, line=line))
    return groups


def _sum_line(table: Table, name: str, count: int, total: str) -> str:
    if table.language == "zh":
        return f"{name}: {count}行，合计{total}"
    return f"{name}: {count} {'row' if count == 1 else 'rows'}, total {total}"


GROUP = Task(name="group", family="global", wordings=WORDINGS, ask=ask, can_lack=False)
