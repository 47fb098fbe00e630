"""What a task makes of a table: a question as words and as data, its answer, the rows it needs, and the steps that lead there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synth.tables.choices import Choices
from synth.tables.query import Query
from synth.tables.table import Indices, Tables
from synth.tables.wording import Bilingual, Sentences

Family = Literal["retrieval", "reasoning", "global"]
LIST_SEPARATOR = ", "
Evidence = tuple[Indices, Indices]
NO_ROWS: Indices = np.zeros(0, np.int64)
NO_EVIDENCE: Evidence = (NO_ROWS, NO_ROWS)


class Request(NamedTuple):
    """What is wanted of a task: worked `steps` beside the answer, or a question that the table does not answer (`lacking`)."""

    steps: bool
    lacking: bool


class Asked(NamedTuple):
    """A question on a table. `wording` names the set of sentences and `words` fill their places; `notes` say how ties, order and
    rounding are meant; `evidence` are the rows that are needed, those of the main table and those of the second; `steps` may be empty where
    none are wanted."""

    query: Query
    answer: str
    evidence: Evidence
    wording: str
    words: Mapping[str, str]
    notes: tuple[Sentences, ...] = ()
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task. `ask` gives None where this table does not lend itself to it (the caller draws again); `any_table`: it does with any
    two rows and columns."""

    name: str
    family: Family
    wordings: Mapping[str, Bilingual]
    ask: Callable[[Tables, Choices, Request], Asked | None]
    can_lack: bool
    joins: bool = False
    any_table: bool = False


def in_main(rows: Sequence[int] | NDArray[np.int64]) -> Evidence:
    """Rows of the main table as evidence, in table order."""
    return np.sort(np.asarray(rows, np.int64)), NO_ROWS


def listed(values: Sequence[str]) -> str:
    """Several values as one answer."""
    return LIST_SEPARATOR.join(values)


IN_TABLE_ORDER: Sentences = {
    "en": "List the {keys} in the order of the table, separated by commas.",
    "zh": "请按表中顺序列出{key}，用逗号分隔。",
}
TIES_BY_TABLE: Sentences = {
    "en": "If there is a tie, the row that comes first in the table comes first.",
    "zh": "数值相同时，表中靠前的行排在前面。",
}
FIRST_OF_TIES: Sentences = {
    "en": "If there is a tie, take the row that comes first in the table.",
    "zh": "如有并列，取表中靠前的一行。",
}
TWO_DECIMALS: Sentences = {
    "en": "Round to two decimals, halves away from zero.",
    "zh": "结果四舍五入保留两位小数。",
}
AS_NUMBER: Sentences = {"en": "Give it as a plain number, without a unit.", "zh": "答案写成不带单位的数字。"}


def with_article(noun: str) -> str:
    """An English noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def words_of(tables: Tables, **more: str) -> dict[str, str]:
    """The words that any sentence may use: what a row and rows are called, and the key."""
    key = tables.main.key_column.phrase
    plural = key if tables.language == "zh" else key + "s"
    one = tables.main.one
    article = "an" if one[0] in "aeiou" else "a"
    return {
        "one": one,
        "a_one": f"{article} {one}",
        "many": tables.main.many,
        "its": tables.main.its,
        "key": key,
        "keys": plural,
        **more,
    }
