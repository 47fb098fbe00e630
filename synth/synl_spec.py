"""The spec of a SynL dataset (contract, `kind: synl`): weights, lengths, shares, every one checked by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from packing.spec import CommonSpec, StrictModel
from synth.tables.fit import SPARE_ROWS
from synth.tables.outline import FEWEST_ROWS, KEY_FIRST, QUESTION_FIRST, TOKENS_PER_TURN, Mix, Small, able_columns
from synth.tables.render.formats import FORMATS
from synth.tables.schemas.catalogue import SCHEMAS
from synth.tables.tasks.catalogue import TASKS
from synth.values.pools import is_served

SHORTEST, LONGEST = 64, 2**20
Tokens = Annotated[int, Field(ge=SHORTEST, le=LONGEST)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Range(StrictModel):
    """A least and a most."""

    min: int
    max: int

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            message = f"min ({self.min}) is above max ({self.max})"
            raise ValueError(message)
        return self


class Span(_Range):
    """Lengths from `min` to `max` tokens, drawn evenly (`uniform`) or evenly on a logarithmic scale."""

    min: Tokens = 2000
    max: Tokens = 100_000
    draw: Literal["log_uniform", "uniform"] = "log_uniform"


class Turns(_Range):
    """How many questions a conversation has."""

    min: Annotated[int, Field(ge=1, le=64)] = 1
    max: Annotated[int, Field(ge=1, le=64)] = 4


ColumnSort = Literal["reference", "text", "category", "number", "date"]
SORTS_OF_COLUMNS: tuple[ColumnSort, ...] = get_args(ColumnSort)
MOST_COLUMNS = 16


class Columns(_Range):
    """How many columns a table has, the key among them."""

    min: Annotated[int, Field(ge=2, le=MOST_COLUMNS)] = 2
    max: Annotated[int, Field(ge=2, le=MOST_COLUMNS)] = MOST_COLUMNS


class SmallTables(StrictModel):
    """Tables smaller than their schemas: some columns beside the key, of some sorts, and few rows; with `most_rows`, lengths are upper
    bounds."""

    columns: Columns = Columns()
    sorts: Annotated[list[ColumnSort], Field(min_length=1)] = Field(default_factory=lambda: list(SORTS_OF_COLUMNS))
    least_rows: Annotated[int, Field(ge=2, le=SPARE_ROWS // 2)] = FEWEST_ROWS
    most_rows: Annotated[int, Field(ge=2, le=LONGEST)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.most_rows is not None and self.most_rows < self.least_rows:
            message = f"most_rows ({self.most_rows}) is below least_rows ({self.least_rows})"
            raise ValueError(message)
        return self


_LISTED: TypeAdapter[list[int]] = TypeAdapter(Annotated[list[Tokens], Field(min_length=1, max_length=1000)])


def _length(value: Any) -> Span | list[int]:
    """A list is a list and anything else a span, so that an error names the field and not the kind of length it might have been."""
    if isinstance(value, Span):
        return value
    return _LISTED.validate_python(value, strict=True) if isinstance(value, list) else Span.model_validate(value)


def _problems(found: Mapping[tuple[str, ...], str]) -> ValidationError:
    """Sentences about fields further in, each under its own name."""
    lines = [
        InitErrorDetails(type=PydanticCustomError("spec", "{sentence}", {"sentence": text}), loc=steps, input=None)
        for steps, text in found.items()
    ]
    return ValidationError.from_exception_data("weights", lines)


def _weights(what: str, names: str, known: Mapping[str, object] | None = None) -> AfterValidator:
    """Weights by name: every name known, every weight finite and not negative, one of them above zero."""

    def check(weights: dict[str, float]) -> dict[str, float]:
        found: dict[tuple[str, ...], str] = {}
        for name, weight in weights.items():
            if not (name in known if known is not None else is_served(name)):
                found[name,] = f"there is no {what} {name!r}; there are {names}"
            elif not math.isfinite(weight) or weight < 0:
                found[name,] = f"the weight of {name!r} is {weight!r}: a weight is a number from 0 up"
        if found:
            raise _problems(found)
        if not any(weight > 0 for weight in weights.values()):
            message = f"no {what} has a weight above zero: give one to any of {names}"
            raise ValueError(message)
        return weights

    return AfterValidator(check)


Weights = Annotated[dict[str, float], Field(max_length=256)]
LOCALES = "en_US and zh_CN, and every other locale of Faker (de_DE, fr_FR, ja_JP, …) with English sentences"
LOCALE_WEIGHTS = {"en_US": 3.0, "zh_CN": 1.0}
SAMPLE_ROWS = 4096
"""Rows that a plan for a preview or an estimate has at most."""
SPLIT_WEIGHTS = {"train": 0.98, "test": 0.02}


class Spec(CommonSpec):
    """The spec of a SynL dataset."""

    kind: Literal["synl"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is safe)
    samples: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    length: Annotated[Span | list[int], BeforeValidator(_length)] = Span()
    tasks: Annotated[Weights, _weights("task", ", ".join(TASKS), TASKS)] = dict.fromkeys(TASKS, 1.0)
    formats: Annotated[Weights, _weights("format", ", ".join(FORMATS), FORMATS)] = dict.fromkeys(FORMATS, 1.0)
    locales: Annotated[Weights, _weights("locale", LOCALES)] = LOCALE_WEIGHTS
    schemas: Annotated[Weights, _weights("schema", ", ".join(SCHEMAS), SCHEMAS)] = dict.fromkeys(SCHEMAS, 1.0)
    turns: Turns = Turns()
    small_tables: SmallTables | None = None
    reasoning: Share = 0.5
    unanswerable: Share = 0.05
    distractors: Share = 0.1
    question_first: Share = QUESTION_FIRST
    key_first: Share = KEY_FIRST
    split: Annotated[Weights, _weights("split", "train and test", SPLIT_WEIGHTS)] = SPLIT_WEIGHTS
    template_date: date = date(2026, 1, 1)

    @model_validator(mode="after")
    def _served(self) -> Self:
        used = [name for name, weight in self.schemas.items() if weight > 0]
        if self.tasks.get("join", 0) > 0 and all(SCHEMAS[name].second is None for name in used):
            able = ", ".join(name for name, schema in SCHEMAS.items() if schema.second is not None)
            message = (
                "join needs a schema with a second table, and none of those in schemas has one: "
                f"add one of {able}, or give join the weight 0"
            )
            raise _problems({("tasks", "join"): message})
        return self

    @model_validator(mode="after")
    def _small(self) -> Self:
        small = self.small_tables
        if small is None:
            return self
        found: dict[tuple[str, ...], str] = {}
        able = ", ".join(name for name, task in TASKS.items() if task.any_table)
        lacking = [name for name, weight in self.tasks.items() if weight > 0 and not TASKS[name].any_table]
        if lacking and "tasks" not in self.model_fields_set:
            found["tasks",] = f"small_tables may lack what most tasks need: say tasks, with weights for {able} alone"
            lacking = []
        for name in lacking:
            found["tasks", name] = (
                f"small_tables may lack what {name} needs: give it the weight 0, and one to any of {able}"
            )
        for name, weight in self.schemas.items():
            most = 1 + len(able_columns(SCHEMAS[name], small.sorts))
            if weight > 0 and most < small.columns.min:
                found["schemas", name] = (
                    f"{name} has {most} column{'s' * (most > 1)} of small_tables.sorts, the key among them, "
                    f"and small_tables.columns.min is {small.columns.min}: ask for fewer, allow more sorts, or give it the weight 0"
                )
        if not found and small.most_rows is not None and self.unanswerable == 0:
            most = self._most_questions(small, small.most_rows)
            longest = self.length.max if isinstance(self.length, Span) else max(self.length)
            if max(self.turns.min, min(self.turns.max, longest // TOKENS_PER_TURN)) > most:
                found["turns", "max"] = (
                    f"{most} different questions at most can be asked about small_tables.most_rows ({small.most_rows}) rows by these "
                    "tasks: ask for fewer turns, or allow more rows"
                )
        if found:
            raise _problems(found)
        return self

    def _most_questions(self, small: SmallTables, rows: int) -> int:
        """Questions with an answer that so many rows lend themselves to: each row as a whole, and each of its cells but the key."""
        whole, cells = (self.tasks.get(name, 0) > 0 for name in ("row", "lookup"))
        return rows * (whole + cells * (small.columns.max - 1))

    def wanted(self) -> tuple[Literal["rows", "tokens"], int]:
        """As many rows as `samples` says."""
        return "rows", self.samples

    def for_sample(self) -> Self:
        """The first rows alone, where their split has many: a row is the same however many follow."""
        share = self.split.get("test", 0) / sum(self.split.values())
        first, rows = ("test", self.samples) if share == 1 else ("train", self.samples * (1 - share) - 1)
        if rows < SAMPLE_ROWS:
            return self
        return self.model_copy(update={"samples": SAMPLE_ROWS, "split": {first: 1.0}})

    def mix(self) -> Mix:
        """What conversations are drawn from."""
        return Mix(
            tasks=self.tasks,
            formats=self.formats,
            locales=self.locales,
            schemas=self.schemas,
            turns=(self.turns.min, self.turns.max),
            reasoning=self.reasoning,
            unanswerable=self.unanswerable,
            distractors=self.distractors,
            question_first=self.question_first,
            key_first=self.key_first,
            small=self._small_mix(),
        )

    def _small_mix(self) -> Small | None:
        small = self.small_tables
        if small is None:
            return None
        columns, rows = (small.columns.min, small.columns.max), (small.least_rows, small.most_rows)
        return Small(columns=columns, sorts=tuple(small.sorts), rows=rows)
