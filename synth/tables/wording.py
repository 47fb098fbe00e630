"""Wordings: sentences with places to fill, some for the training split and others for the test split, in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synth.tables.schema import Language
from synth.tables.table import Column
from synth.values.pools import Split

NOT_IN_TABLE: dict[Language, str] = {"en": "Not in the table", "zh": "表中没有"}
"""The answer to a question that the table does not answer."""
YES: dict[Language, str] = {"en": "Yes", "zh": "是"}
NO: dict[Language, str] = {"en": "No", "zh": "否"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wordings:
    """The ways to say one thing in one language; no sentence of `train` is one of `test`."""

    train: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """Those of a split."""
        return self.test if split == "test" else self.train


Bilingual = Mapping[Language, Wordings]
Sentences = Mapping[Language, str]


def fill(sentence: str, words: Mapping[str, str]) -> str:
    """The sentence with its places filled, beginning with a capital letter."""
    text = sentence.format_map(words)
    return text[:1].upper() + text[1:]


def quantity(column: Column, text: str, language: Language) -> str:
    """A number with its unit, as a sentence says it."""
    if not column.unit:
        return text
    return f"{text}{column.unit}" if language == "zh" or column.unit in ("%", "°C") else f"{text} {column.unit}"


def quoted(text: str, language: Language) -> str:
    """Words inside a sentence: bare in English, in quotation marks in Chinese."""
    return f"“{text}”" if language == "zh" and "“" not in text else text


def asked_for(column: Column, language: Language) -> str:
    """What a Chinese question asks for: how much, which day, what. English needs no such word."""
    if language == "en":
        return ""
    return {"number": "多少", "date": "哪一天"}.get(column.sort, "什么")
