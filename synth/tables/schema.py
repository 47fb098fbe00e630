"""What a table can be: its columns with their titles in English and Chinese, what a row is called, and a second table to join."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np

from synth.values.columns import Category, Content, Key, uniforms_of

Language = Literal["en", "zh"]
_UNIT = re.compile(r"^(?P<phrase>.*?)\s*[(（](?P<unit>[^)）]+)[)）]$")


def language_of(locale: str) -> Language:
    """The language of wordings and titles: Chinese for zh_CN, English for every other locale."""
    return "zh" if locale == "zh_CN" else "en"


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One column of a schema: a title in either language, with the unit in parentheses, and what it holds. Itself alone is its equal, so
    that what is remembered of it is found at once."""

    english: str
    chinese: str
    content: Content

    def title(self, language: Language) -> str:
        """The column's heading."""
        return self.chinese if language == "zh" else self.english


@dataclass(frozen=True, kw_only=True)
class Part:
    """One table of a schema: its name and what one row and several rows are called, each in (English, Chinese); whether a
    row is about a person."""

    name: tuple[str, str]
    one: tuple[str, str]
    many: tuple[str, str]
    person: bool = False
    fields: tuple[Field, ...]

    def word(self, pair: tuple[str, str], language: Language) -> str:
        """One of the two."""
        return pair[1] if language == "zh" else pair[0]

    @cached_property
    def key(self) -> int:
        """The number of the key column."""
        return next(i for i, field in enumerate(self.fields) if isinstance(field.content, Key))

    @cached_property
    def uniforms(self) -> tuple[slice, ...]:
        """Which of the uniforms of a row each column takes."""
        ends = np.cumsum([0, *(uniforms_of(field.content) for field in self.fields)]).tolist()
        return tuple(slice(a, b) for a, b in pairwise(ends))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """A kind of table, found by its `id` in a spec; `second` is the table that the main one refers to, where there is one."""

    id: str
    main: Part
    second: Part | None = None


@lru_cache(maxsize=1024)
def phrase_of(title: str, language: Language) -> tuple[str, str]:
    """How a sentence speaks of a column, and its unit ("" where it has none): "Annual salary (USD)" is the annual salary, in USD."""
    match = _UNIT.match(title)
    phrase, unit = (match["phrase"], match["unit"]) if match else (title, "")
    if language == "en" and phrase[1:2].islower():
        phrase = phrase[0].lower() + phrase[1:]
    return phrase, unit


def category(text: str) -> Category:
    """Categories written as "Sales|销售部; Finance|财务部"."""
    pairs = [item.strip().split("|") for item in text.split(";")]
    return Category(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs))


def field(titles: str, content: Content) -> Field:
    """A column with its titles written as "Hire date|入职日期"."""
    english, chinese = titles.split("|")
    return Field(english, chinese, content)


def pair(text: str) -> tuple[str, str]:
    """Two words written as "order|订单"."""
    english, chinese = text.split("|")
    return english, chinese
