"""lookup: one cell of the row with a key."""

from __future__ import annotations

from synth.tables import steps
from synth.tables.choices import Choices
from synth.tables.query import cells_of, equal, query
from synth.tables.question import NO_EVIDENCE, Asked, Request, Task, in_main, words_of
from synth.tables.table import Tables
from synth.tables.targets import any_column, missing_key
from synth.tables.wording import NOT_IN_TABLE, Bilingual, Wordings, asked_for

WORDINGS: dict[str, Bilingual] = {
    "cell": {
        "en": Wordings(
            train=(
                "What is the {column} of the {one} with {key} {value}?",
                "Find the {one} with {key} {value} and tell me {its} {column}.",
                "For {key} {value}, what does the table give as {column}?",
                "I need the {column} of {one} {value}.",
                "Which {column} is recorded for the {one} whose {key} is {value}?",
                "Please look up {key} {value}: what is the {column}?",
            ),
            test=(
                "Check the table for {value}. What {column} does this {one} have?",
                "Could you read me the {column} of the {one} listed under {key} {value}?",
            ),
        ),
        "zh": Wordings(
            train=(
                "{key}为{value}的{one}，{column}是{what}？",
                "请查一下{key}{value}，其{column}是{what}？",
                "表中{key}为{value}的那一行，{column}一栏写的是{what}？",
                "我想知道{value}的{column}。",
                "请找到{key}是{value}的{one}，并告诉我{column}。",
                "{value}这个{one}对应的{column}是{what}？",
            ),
            test=(
                "麻烦看看{key}{value}那条记录的{column}是{what}。",
                "根据表格，{one}{value}的{column}是{what}？",
            ),
        ),
    }
}


def ask(tables: Tables, choices: Choices, request: Request) -> Asked | None:
    """The cell of one column in the row with one key; lacking, of a key that is not there."""
    table, language = tables.main, tables.language
    column, row = any_column(table, choices), choices.below(table.rows)
    value = missing_key(table, choices) if request.lacking else table.key_column.cell(row)
    if value is None:
        return None
    where = [equal(table.key_column, value)]
    return Asked(
        query=query("lookup", table, where=where, give=cells_of([column])),
        answer=NOT_IN_TABLE[language] if request.lacking else column.cell(row),
        evidence=NO_EVIDENCE if request.lacking else in_main([row]),
        wording="cell",
        words=words_of(tables, column=column.phrase, value=value, what=asked_for(column, language)),
        steps=(
            steps.absent(table.key_column, value, language)
            if request.lacking
            else steps.fact(table, row, [table.key_column, column]),
        ),
    )


LOOKUP = Task(name="lookup", family="retrieval", wordings=WORDINGS, ask=ask, can_lack=True, any_table=True)
