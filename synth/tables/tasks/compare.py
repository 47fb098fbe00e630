"""compare: which of two rows has the larger value, or by how much they differ."""

from __future__ import annotations

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.query import cells_of, order_by, query
from synth.tables.question import NO_EVIDENCE, Asked, Request, Task, in_main, words_of
from synth.tables.table import Tables
from synth.tables.targets import measure, missing_key
from synth.tables.wording import NOT_IN_TABLE, Bilingual, Sentences, Wordings
from synth.values.columns import number_text

COMPARATIVES = {
    "en": {("number", True): "higher", ("number", False): "lower", ("date", True): "later", ("date", False): "earlier"},
    "zh": {("number", True): "更高", ("number", False): "更低", ("date", True): "更晚", ("date", False): "更早"},
}
WORDINGS: dict[str, Bilingual] = {
    "which": {
        "en": Wordings(
            train=(
                "Which {one} has the {more} {column}, {first} or {second}?",
                "Compare {first} and {second}: which of the two {many} has the {more} {column}?",
                "Of the {many} {first} and {second}, which has the {more} {column}?",
                "Take {first} and {second}. Whose {column} is {more}?",
                "Between {first} and {second}, name the {one} with the {more} {column}.",
                "Is it {first} or {second} that has the {more} {column}?",
            ),
            test=(
                "Put {one} {first} next to {one} {second}. Which one shows the {more} {column}?",
                "Set {first} against {second}: which of them has the {more} {column}?",
            ),
        ),
        "zh": Wordings(
            train=(
                "{first}和{second}，哪个{one}的{column}{more}？",
                "请比较{first}与{second}，哪一个的{column}{more}？",
                "在{first}和{second}这两个{one}中，{column}{more}的是哪个？",
                "{first}与{second}相比，哪个的{column}{more}？",
                "请指出{first}和{second}中{column}{more}的{one}。",
                "是{first}还是{second}的{column}{more}？",
            ),
            test=(
                "把{one}{first}和{one}{second}放在一起看，哪个的{column}{more}？",
                "论{column}，{first}和{second}之中{more}的是哪一个？",
            ),
        ),
    },
    "difference": {
        "en": Wordings(
            train=(
                "By how much do the {many} {first} and {second} differ in {column}?",
                "What is the difference in {column} between {first} and {second}?",
                "Compare the {column} of {first} with that of {second}: how large is the gap?",
                "How far apart are {first} and {second} in {column}?",
                "Subtract the smaller {column} of {first} and {second} from the larger. What remains?",
                "What is the absolute difference between the {column} of {first} and of {second}?",
            ),
            test=(
                "Put {first} next to {second}. How big is the difference of their {column}?",
                "How much separates {one} {first} from {one} {second} when it comes to {column}?",
            ),
        ),
        "zh": Wordings(
            train=(
                "{first}和{second}的{column}相差多少？",
                "{one}{first}与{second}的{column}之差是多少？",
                "请比较{first}和{second}的{column}，差距有多大？",
                "用{first}与{second}中较大的{column}减去较小的，结果是多少？",
                "{first}和{second}两个{one}，{column}差了多少？",
                "请计算{first}与{second}的{column}之差（取正数）。",
            ),
            test=(
                "把{one}{first}和{one}{second}放在一起看，{column}的差值是多少？",
                "论{column}，{first}和{second}之间隔了多少？",
            ),
        ),
    },
}
WHICH: Sentences = {
    "en": "Answer with one {key}.",
    "zh": "请用一个{key}回答。",
}
POSITIVE: Sentences = {
    "en": "Give the difference as a plain number that is not negative, without a unit.",
    "zh": "差值取非负数，不带单位。",
}


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:
    """Two rows with different values; lacking, one of the two keys is not there."""
    table, language = tables.main, tables.language
    column = measure(table, choices)
    apart = column.sort == "number" and choices.flag(0.4)
    a, b = choices.distinct(2, table.rows)
    descending = choices.flag(0.6)
    key = table.key_column.cell
    second = missing_key(table, choices) if request.lacking else key(b)
    x, y = int(column.values()[a]), int(column.values()[b])
    if second is None or (x == y and not request.lacking):
        return None
    pair = [key(a), second] if choices.flag(0.5) else [second, key(a)]
    facts = [steps.fact(table, a, [table.key_column, column])]
    if request.lacking:
        answer, lines = NOT_IN_TABLE[language], [*facts, steps.absent(table.key_column, second, language)]
    else:
        facts.append(steps.fact(table, b, [table.key_column, column]))
        high, low = max(x, y), min(x, y)
        last = steps.difference(column, high, low) if apart else steps.greater(column, high, low, language)
        answer = number_text(high - low, column.decimals) if apart else key(a if (x > y) == descending else b)
        lines = [*facts, last]
    where = [{"column": table.key_column.title, "is": "in", "value": pair, "as": "text"}]
    if apart:
        asked = query("compare", table, where=where, give={"what": "difference", "column": column.title})
    else:
        order = order_by(column, descending=descending)
        asked = query("compare", table, where=where, order=order, limit=1, give=cells_of([table.key_column]))
    return Asked(
        query=asked,
        answer=answer,
        evidence=NO_EVIDENCE if request.lacking else in_main([a, b]),
        wording="difference" if apart else "which",
        words=words_of(
            tables,
            column=column.phrase,
            first=pair[0],
            second=pair[1],
            more=COMPARATIVES[language][column.sort, descending],
        ),
        notes=(POSITIVE,) if apart else (WHICH,),
        steps=tuple(lines),
    )


COMPARE = Task(name="compare", family="reasoning", wordings=WORDINGS, ask=ask, can_lack=True)
