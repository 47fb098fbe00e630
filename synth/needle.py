"""The kind `needle`: probes that ask for something hidden in a long context, exact in length, scored without a judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from packing.dataset import schema as schemas
from packing.dataset.errors import BadRowError, DatasetError, InputError
from packing.dataset.statistics import Histogram, even_edges
from packing.plan import Inputs, Piece, Plan, Shard, Survey, Tally
from packing.spec import CommonSpec, Source, StrictModel
from synth.needles import rows
from synth.needles.probes import Cell, Prober, cells_of
from synth.needles.registry import DEFAULT, RULER, TASKS, Task, task_of

SHARD_TOKENS = 4 * 1024 * 1024
"""Tokens of a shard where the spec says nothing."""
MOST_ROWS = 5_000_000
SAMPLE_ROWS = 4
BATCH_TOKENS = 1024 * 1024
Name = Literal[
    "passkey", "number", "kv", "niah_single", "niah_multikey", "niah_multivalue", "niah_multiquery", "variable_tracking",
    "common_words", "frequent_words", "dictionary", "graph_walks", "coreference", "hidden_fact",
    "niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2", "niah_multikey_3",
    "vt", "cwe", "fwe", "qa_1", "qa_2",
]  # fmt: skip
Kinds = Literal["words", "numbers", "uuids"]
Locale = Literal["en_US", "zh_CN"]
LENGTHS = [4096, 32768, 131072]
ENGLISH: dict[Locale, float] = {"en_US": 1.0}
MOST_DEPTHS = 1001


class SourceText(StrictModel):
    """A haystack of the user's, said as an object."""

    source: Source


class Spec(CommonSpec):
    """The spec of a dataset of needle probes (contract, `kind: needle`)."""

    kind: Literal["needle"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is safe)
    preset: Literal["ruler"] | None = None
    qa_1: Source | None = None
    qa_2: Source | None = None
    tasks: Annotated[list[Name], Field(min_length=1, max_length=32)] | None = None
    lengths: Annotated[list[Annotated[int, Field(ge=64, le=2**21)]], Field(min_length=1, max_length=64)] = LENGTHS
    depths: int | Annotated[list[Annotated[float, Field(ge=0, le=100)]], Field(min_length=1, max_length=1001)] = 11
    repeats: Annotated[int, Field(ge=1, le=100_000)] = 5
    answer_budget: Annotated[int, Field(ge=1, le=2**20)] | None = None
    haystack: Literal["builtin", "noise", "needles"] | Source | SourceText = "builtin"
    repeat: bool = False
    locales: Annotated[dict[Locale, Annotated[float, Field(gt=0, le=1e6)]], Field(min_length=1)] = ENGLISH
    split: Literal["test", "train"] = "test"
    keys: Kinds = "words"
    values: Kinds = "numbers"

    @field_validator("depths", mode="wrap")
    @classmethod
    def _depths_of_one_form(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        try:
            found: int | list[float] = read(value)
        except ValidationError:
            found = 0
        if isinstance(found, int) and not 1 <= found <= MOST_DEPTHS:
            message = f"a number of depths from 1 to {MOST_DEPTHS}, or a list of depths from 0 to 100"
            raise ValueError(message)
        return found

    @field_validator("haystack", mode="wrap")
    @classmethod
    def _haystack_of_one_form(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        try:
            return read(value)
        except ValidationError:
            message = "builtin, noise, needles, or a source with text: one of {upload: id}, {dataset: id}, {path: file or folder}"
            raise ValueError(message) from None

    @field_validator("tasks")
    @classmethod
    def _tasks_that_exist(cls, value: list[str] | None, info: ValidationInfo) -> list[str] | None:
        preset = info.data.get("preset")
        known = RULER if preset == "ruler" else TASKS
        for name in value or ():
            if name not in known:
                message = f"there is no task {name!r} {'with' if preset else 'without'} preset: ruler; there are {', '.join(known)}"
                raise ValueError(message)
            if known[name].questions and info.data.get(name) is None:
                message = f"{name} asks questions of yours: give {name}: a source in SQuAD's or HotpotQA's format"
                raise ValueError(message)
        return value

    @field_validator("tasks", "lengths", "depths")
    @classmethod
    def _nothing_twice(cls, value: Any) -> Any:
        if isinstance(value, list):
            given: list[Any] = value
            twice = next((item for item in given if given.count(item) > 1), None)
            if twice is not None:
                message = f"{twice} stands there twice"
                raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if self.rows() > MOST_ROWS:
            message = (
                f"{self.rows():,} probes are asked for; at most {MOST_ROWS:,} make a dataset: fewer repeats or depths"
            )
            raise ValueError(message)
        return self

    def task_names(self) -> tuple[str, ...]:
        """The tasks: those named, else all of the preset that can be asked, else the default ones."""
        if self.tasks is not None:
            return tuple(self.tasks)
        if self.preset is None:
            return DEFAULT
        return tuple(n for n, task in RULER.items() if not task.questions or getattr(self, n) is not None)

    def task(self, name: str) -> Task:
        """A task by its name."""
        return task_of(name, self.preset)

    def grid(self) -> list[float]:
        """The depths, 0 to 100."""
        if isinstance(self.depths, list):
            return list(self.depths)
        if self.depths == 1:
            return [50.0]
        return [round(100.0 * i / (self.depths - 1), 4) for i in range(self.depths)]

    def cells(self) -> list[Cell]:
        """The cells of the grid in the order of the rows: by length, task, depth."""
        return cells_of(self.lengths, [(n, self.task(n).depth) for n in self.task_names()], self.grid())

    def rows(self) -> int:
        """How many probes there are."""
        with_depth = sum(self.task(name).depth for name in self.task_names())
        depths = self.depths if isinstance(self.depths, int) else len(self.depths)
        return len(self.lengths) * self.repeats * (with_depth * depths + len(self.task_names()) - with_depth)

    def sources(self) -> Mapping[str, Source]:
        """The user's haystack and questions, where there are some."""
        found: dict[str, Source] = {}
        if isinstance(self.haystack, SourceText):
            found["/haystack/source"] = self.haystack.source
        elif isinstance(self.haystack, Source):
            found["/haystack"] = self.haystack
        for name in ("qa_1", "qa_2"):
            if (source := getattr(self, name)) is not None:
                found[f"/{name}"] = source
        return found

    def wanted(self) -> tuple[Literal["rows", "tokens"], int]:
        """The rows that the grid has."""
        return "rows", self.rows()

    def expected_tokens(self) -> int:
        """Every probe as long as it may be: its length less what is kept free for the answer."""
        budgets = {name: self.answer_budget or self.task(name).budget for name in self.task_names()}
        return self.repeats * sum(cell.length - budgets[cell.task] for cell in self.cells())

    def for_sample(self) -> Self:
        """A few rows a shard, and a sample of a corpus may be too short."""
        return self.model_copy(update={"repeat": True, "shard_rows": SAMPLE_ROWS, "shard_tokens": None})


def needs_survey(spec: Spec) -> bool:  # noqa: ARG001 (the protocol)
    """Never: what a haystack needs to be is known from its length alone."""
    return False


def survey(spec: Spec, piece: Piece, inputs: Inputs, tally: Tally) -> Survey:
    """There is none."""
    raise AssertionError((spec.kind, piece.name, inputs, tally))


def plan(spec: Spec, inputs: Inputs, surveys: Sequence[pa.Table]) -> Plan:  # noqa: ARG001 (there are none)
    """Runs of probes in the order of the grid. Raises SpecError for lengths that are too small for a task, naming the least, and
    InputError for a haystack that is too short."""
    Prober.of(spec, inputs).check()
    cells, shards = spec.cells(), list[dict[str, int]]()
    first = rows_in = tokens_in = 0
    for cell in cells:
        for _ in range(spec.repeats):
            full = (
                rows_in >= spec.shard_rows
                if spec.shard_rows
                else rows_in and tokens_in + cell.length > (spec.shard_tokens or SHARD_TOKENS)
            )
            if full:
                shards.append({"first": first, "rows": rows_in})
                first, rows_in, tokens_in = first + rows_in, 0, 0
            rows_in += 1
            tokens_in += cell.length
    shards.append({"first": first, "rows": rows_in})
    return Plan.of_work(shards, split=spec.split)


def schema(spec: Spec) -> pa.Schema:  # noqa: ARG001 (every kind is asked for the schema of its spec)
    """The columns of every row."""
    return schemas.NEEDLE


def build(spec: Spec, shard: Shard, inputs: Inputs, tally: Tally) -> Iterator[pa.RecordBatch]:
    """The probes of one shard."""
    prober, cells = Prober.of(spec, inputs), spec.cells()
    made: list[dict[str, Any]] = []
    tokens = 0
    for number in range(shard.work["first"], shard.work["first"] + shard.work["rows"]):
        probe = prober.probe(cells[number // spec.repeats], number % spec.repeats)
        tally.count(f"probes_{probe.task}")
        tally.count("probes_tokenised_whole", probe.fitted.whole)
        tally.histogram("needle_depth", Histogram(even_edges(100, 20))).add(
            [int(s.depth) for s in probe.fitted.needles]
        )
        tally.histogram("fill_percent", Histogram(even_edges(100, 101))).add(
            [100 * (probe.fitted.n_tokens + probe.budget) // probe.cell.length]
        )
        made.append(rows.row(probe, spec.split))
        tokens += probe.fitted.n_tokens
        if tokens >= BATCH_TOKENS:
            yield pa.RecordBatch.from_pylist(made, schemas.NEEDLE)
            made, tokens = [], 0
    if shard.index == 0:
        for bad in prober.rejected():
            error = BadRowError(bad.name, bad.row, bad.reason)
            tally.reject(error, source=bad.name, row=bad.row, reason=bad.reason, skip=spec.on_bad_row == "skip")
    if made:
        yield pa.RecordBatch.from_pylist(made, schemas.NEEDLE)


def check(spec: Spec, batch: pa.RecordBatch) -> None:
    """Raise DatasetError where a row breaks an invariant: see synth.needles.rows."""
    problem = rows.problem(batch, lengths=spec.lengths, tasks=spec.task_names(), split=spec.split)
    if problem:
        raise DatasetError(problem)


def conclude(spec: Spec, tally: Tally) -> list[str]:
    """Nothing to warn of: a probe that does not fit has failed before. Rows of a corpus that were left out are in the manifest."""
    made = sum(
        by for name, by in tally.counts.items() if name.startswith("probes_") and name != "probes_tokenised_whole"
    )
    if not made:
        message = "no probe was made"
        raise InputError(message, param="/tasks")
    return [] if made >= spec.repeats else ["fewer probes than repeats were made"]


def charts(spec: Spec, tally: Tally) -> dict[str, Any]:  # noqa: ARG001 (the histograms say it all)
    """None but the histograms."""
    return {}
