"""row: every cell of the row with a key."""

from __future__ import annotations

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.query import cells_of, equal, query
from synth.tables.question import NO_EVIDENCE, Asked, Request, Task, in_main, listed, words_of
from synth.tables.table import Tables
from synth.tables.targets import missing_key
from synth.tables.wording import NOT_IN_TABLE, Bilingual, Sentences, Wordings

WORDINGS: dict[str, Bilingual] = {
    "row": {
        "en": Wordings(
            train=(
                "Copy the whole row of the {one} with {key} {value}.",
                "What does the table say about {one} {value}, column by column?",
                "Give me every value recorded for {key} {value}.",
                "Show the complete record of the {one} with {key} {value}.",
                "Find {key} {value} and repeat all its values.",
                "I need all the details of {one} {value}.",
            ),
            test=(
                "Please write out everything that the row of {value} holds.",
                "Read me the full entry for the {one} whose {key} is {value}.",
            ),
        ),
        "zh": Wordings(
            train=(
                "请抄写{key}为{value}的{one}的整行内容。",
                "表中关于{value}的各列内容分别是什么？",
                "请给出{key}{value}的全部信息。",
                "请列出{one}{value}的完整记录。",
                "找到{key}为{value}的那一行，并逐列复述。",
                "我需要{one}{value}的所有字段。",
            ),
            test=(
                "麻烦把{value}那一行的内容完整写出来。",
                "请读出{key}是{value}的{one}的整条记录。",
            ),
        ),
    }
}
ALL_COLUMNS: Sentences = {
    "en": "Give the values of all columns in their order, without the titles, separated by commas.",
    "zh": "请按列的顺序给出所有值，不写列名，用逗号分隔。",
}


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:
    """All cells of a row in the order of the columns; lacking, of a key that is not there."""
    table, language = tables.main, tables.language
    row = choices.below(table.rows)
    value = missing_key(table, choices) if request.lacking else table.key_column.cell(row)
    if value is None:
        return None
    where = [equal(table.key_column, value)]
    return Asked(
        query=query("row", table, where=where, give=cells_of(table.columns)),
        answer=NOT_IN_TABLE[language] if request.lacking else listed([c.cell(row) for c in table.columns]),
        evidence=NO_EVIDENCE if request.lacking else in_main([row]),
        wording="row",
        words=words_of(tables, value=value),
        notes=(ALL_COLUMNS,),
        steps=(
            steps.absent(table.key_column, value, language)
            if request.lacking
            else steps.fact(table, row, table.columns),
        ),
    )


ROW = Task(name="row", family="retrieval", wordings=WORDINGS, ask=ask, can_lack=True, any_table=True)
