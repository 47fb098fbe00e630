"""position: what stands in the n-th row, in which row something stands, or what comes right after it."""

from __future__ import annotations

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.query import cells_of, equal, query
from synth.tables.question import AS_NUMBER, NO_EVIDENCE, Asked, Request, Task, in_main, words_of
from synth.tables.table import Tables
from synth.tables.targets import missing_key
from synth.tables.wording import NOT_IN_TABLE, Bilingual, Sentences, Wordings

WORDINGS: dict[str, Bilingual] = {
    "nth": {
        "en": Wordings(
            train=(
                "Which {key} stands in row {n} of the table?",
                "What is the {key} in row {n}?",
                "Go to row {n} and give me {its} {key}.",
                "Count down to row {n}: which {key} do you find there?",
                "Name the {key} of the {one} in row number {n}.",
                "Which {one} is in row {n}? Answer with {its} {key}.",
            ),
            test=(
                "Row {n} of the table belongs to which {key}?",
                "Please read out the {key} at position {n}.",
            ),
        ),
        "zh": Wordings(
            train=(
                "表中第{n}行的{key}是什么？",
                "第{n}行是哪个{one}？请给出{key}。",
                "请看第{n}行，其{key}是多少？",
                "从上往下数到第{n}行，{key}是哪一个？",
                "请写出第{n}行{one}的{key}。",
                "排在第{n}行的{one}，{key}是什么？",
            ),
            test=(
                "请读出位于第{n}位的{one}的{key}。",
                "第{n}行对应哪一个{key}？",
            ),
        ),
    },
    "number": {
        "en": Wordings(
            train=(
                "In which row of the table does {value} stand?",
                "What is the row number of the {one} with {key} {value}?",
                "At which row do you find {one} {value}?",
                "Give the row number of {value}.",
                "Counting from the top, which row is that of {one} {value}?",
                "Which position in the table does {one} {value} have?",
            ),
            test=(
                "How far down the table is {value}? Give its row number.",
                "Locate {one} {value} and say which row it is in.",
            ),
        ),
        "zh": Wordings(
            train=(
                "{value}在表中的第几行？",
                "{key}为{value}的{one}位于第几行？",
                "请给出{value}所在的行号。",
                "从上往下数，{one}{value}是第几行？",
                "{one}{value}排在第几行？",
                "请问{value}的行号是多少？",
            ),
            test=(
                "请定位{one}{value}，说出它是第几行。",
                "{value}处于表格的哪一行？请写行号。",
            ),
        ),
    },
    "after": {
        "en": Wordings(
            train=(
                "Which {one} comes right after {value} in the table? Give {its} {key}.",
                "What is the {key} in the row just below {value}?",
                "Find {value}. Which {key} follows in the next row?",
                "Name the {key} directly below that of {one} {value}.",
                "Which {key} is listed immediately after {value}?",
                "The row of {value} is followed by which {key}?",
            ),
            test=(
                "Step one row down from {value}: which {key} is there?",
                "What is next in the table after {one} {value}? Answer with the {key}.",
            ),
        ),
        "zh": Wordings(
            train=(
                "表中紧跟在{value}之后的是哪个{one}？请给出{key}。",
                "{value}下面一行的{key}是什么？",
                "请找到{value}，其下一行是哪个{key}？",
                "{one}{value}的下一行，{key}是多少？",
                "排在{value}后面的第一个{key}是什么？",
                "请写出{value}正下方那一行的{key}。",
            ),
            test=(
                "从{value}往下走一行，{key}是哪个？",
                "接在{one}{value}之后的{key}是哪一个？",
            ),
        ),
    },
}
FROM_ONE: Sentences = {
    "en": "Rows are counted from 1, one for each {one}; a header does not count.",
    "zh": "每个{one}算一行，行号从1开始，表头不算。",
}


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:
    """One of the three; lacking, the row or the successor of a key that is not there."""
    table, language = tables.main, tables.language
    wording = choices.pick(("number", "after") if request.lacking else ("nth", "number", "after"))
    row = choices.below(table.rows - (wording == "after"))
    value = missing_key(table, choices) if request.lacking else table.key_column.cell(row)
    if value is None:
        return None
    where, give = [equal(table.key_column, value)], cells_of([table.key_column])
    key = [table.key_column]
    if wording == "nth":
        asked, answer, rows = query("position", table, row=row + 1, give=give), table.key_column.cell(row), [row]
    elif wording == "number":
        asked, answer, rows = query("position", table, where=where, give={"what": "row_number"}), str(row + 1), [row]
    else:
        asked, answer = query("position", table, where=where, after=1, give=give), table.key_column.cell(row + 1)
        rows = [row, row + 1]
    return Asked(
        query=asked,
        answer=NOT_IN_TABLE[language] if request.lacking else answer,
        evidence=NO_EVIDENCE if request.lacking else in_main(rows),
        wording=wording,
        words=words_of(tables, n=str(row + 1), value=value),
        notes={"nth": (FROM_ONE,), "number": (FROM_ONE, AS_NUMBER), "after": ()}[wording],
        steps=(steps.absent(table.key_column, value, language),)
        if request.lacking
        else tuple(steps.fact(table, place, key) for place in rows),
    )


POSITION = Task(name="position", family="retrieval", wordings=WORDINGS, ask=ask, can_lack=True)
