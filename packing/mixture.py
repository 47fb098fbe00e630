"""The kind `mixture`: rows of several datasets and sources in given shares, tokenised on the way where they are still messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, model_validator

from packing import skipalign_rows
from packing.dataset import schema as schemas
from packing.dataset.errors import BadRowError, InputError
from packing.dataset.statistics import Histogram, powers_of_two
from packing.draws import Draws
from packing.kept import checksums, narrowed
from packing.mixture_plan import plan as plan_parts
from packing.mixture_records import read_rows, record_lengths, records
from packing.mixture_rows import laid_out, part_rows
from packing.plan import Inputs, Piece, Plan, Shard, Survey, Tally
from packing.spec import Columns, CommonSpec, Source, StrictModel, field_error
from packing.token_rows import TokenRows, selected, truncated

RECIPES: dict[str, dict[str, float]] = {
    "longskywork": {"sft": 0.2, "synthetic": 0.8},
    "longskywork_st": {"sft": 0.2, "synthetic": 0.4, "long": 0.4},
}
"""Shares of LongSkywork's long SFT (arXiv 2406.00605): normal and synthetic; normal, synthetic and long documents."""
Weight = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
PartName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]


class Part(StrictModel):
    """One part: a source of rows, or the spec of a dataset that is built with the mixture."""

    name: PartName
    source: Source | None = None
    spec: dict[str, Any] | None = None
    weight: Weight | None = None
    columns: Columns | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.source is None) == (self.spec is None):
            message = "a part is a source or the spec of a dataset: give one of them"
            raise ValueError(message)
        return self


class Spec(CommonSpec):
    """The spec of a mixture (contract, `kind: mixture`)."""

    kind: Literal["mixture"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is safe)
    parts: Annotated[list[Part], Field(min_length=1, max_length=64)]
    recipe: Literal["longskywork", "longskywork_st"] | None = None
    unit: Literal["tokens", "rows"] = "tokens"
    total: Annotated[int, Field(ge=1, le=10**13)] | None = 10_000_000
    max_epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    max_length: Annotated[int, Field(ge=2, le=2**24)] | None = None
    truncate: Literal["refuse", "right", "drop"] = "refuse"
    packing: Literal["none", "best_fit"] = "none"
    template_date: date = date(2026, 1, 1)
    train_on: Literal["all", "last"] = "all"
    thinking: Literal["train", "mask"] = "train"
    special_tokens_in_text: Literal["escape", "refuse", "allow"] = "escape"

    @model_validator(mode="after")
    def _parts_and_shares(self) -> Self:
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            message = f"two parts have one name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}"
            raise field_error("parts", message, None)
        recipe = RECIPES.get(self.recipe or "")
        if recipe is not None and set(names) != set(recipe):
            message = f"recipe {self.recipe} wants parts named {', '.join(recipe)}; these are {', '.join(names)}"
            raise field_error("parts", message, None)
        for part in self.parts:
            if recipe is not None and part.weight not in (None, recipe[part.name]):
                message = f"recipe {self.recipe} says {recipe[part.name]} for {part.name}: leave its weight out, or the recipe"
                raise field_error("recipe", message, self.recipe)
            if recipe is None and part.weight is None:
                message = f"part {part.name!r} has no weight: say one, or a recipe"
                raise field_error("parts", message, None)
        if self.packing != "none" and self.max_length is None:
            message = "packing needs max_length: the tokens of a packed row"
            raise field_error("max_length", message, None)
        return self

    def sources(self) -> Mapping[str, Source]:
        """The sources of the parts that have one."""
        return {f"/parts/{i}/source": part.source for i, part in enumerate(self.parts) if part.source is not None}

    def part_specs(self) -> Mapping[str, Mapping[str, Any]]:
        """The specs of the parts that are built with the mixture."""
        return {f"/parts/{i}/spec": part.spec for i, part in enumerate(self.parts) if part.spec is not None}

    def with_part_specs(self, specs: Mapping[str, Mapping[str, Any]]) -> Self:
        """The same spec with its parts in the form they were understood."""
        parts = [
            part.model_copy(update={"spec": dict(specs[f"/parts/{i}/spec"])}) if part.spec is not None else part
            for i, part in enumerate(self.parts)
        ]
        return self.model_copy(update={"parts": parts})

    def wanted(self) -> tuple[Literal["rows", "tokens"], int] | None:
        """The total, where there is one."""
        return None if self.total is None else (self.unit, self.total)

    def for_sample(self) -> Self:
        """A sample has as much as its parts give."""
        return self.model_copy(update={"total": None})

    def shares(self) -> list[float]:
        """The weight of every part, its own or the recipe's."""
        recipe = RECIPES.get(self.recipe or "", {})
        return [part.weight if part.weight is not None else recipe[part.name] for part in self.parts]


def part_of(piece: Piece) -> int:
    """The number of the part that a piece belongs to, from the pointer of its source."""
    return int(piece.field.split("/")[2])


def needs_survey(spec: Spec) -> bool:  # noqa: ARG001 (every kind is asked)
    """Always: shares are of rows whose lengths are known."""
    return True


def survey(spec: Spec, piece: Piece, inputs: Inputs, tally: Tally) -> Survey:
    """The rows of a piece in their drawn order, and the rows themselves as records; what is too long is refused, cut or dropped."""
    number = part_of(piece)
    part = spec.parts[number]
    rows = part_rows(spec, part.columns or spec.columns, piece, inputs, tally)
    rows = _fitting(spec, rows, piece, tally)
    key = Draws(spec.seed, "mixture/order").uniform(rows.index, number)
    rows, key = selected(rows, np.argsort(key, kind="stable")), np.sort(key, kind="stable")
    counts = {"n_tokens": rows.tokens, "sequences": rows.sequences, "blocks": rows.blocks}
    sizes = {name: np.diff(offsets) for name, offsets in counts.items()}
    kept = narrowed(records(rows))
    table = pa.table(
        {
            "row": rows.index,
            "key": key,
            **{name: size.astype(np.int32) for name, size in sizes.items()},
            "checksum": checksums(kept, record_lengths(**sizes)),
            "reasons": rows.reasons,
            "source_ids": rows.names,
        }
    )
    return Survey(table=table, kept=kept)


def _fitting(spec: Spec, rows: TokenRows, piece: Piece, tally: Tally) -> TokenRows:
    """Rows of at most `max_length` tokens that have something to train on."""
    if spec.max_length is not None:
        length = np.diff(rows.tokens)
        over = length > spec.max_length
        if spec.truncate == "right":
            tally.count("rows_truncated", int(over.sum()))
            rows = truncated(rows, spec.max_length)
        else:
            _refuse(spec, piece, rows.index[over], length[over], tally)
            rows = selected(rows, np.flatnonzero(~over))
    labels = np.append(0, np.cumsum(rows.labels != skipalign_rows.IGNORED))
    trained = np.diff(labels[rows.tokens]) > 0
    tally.count("rows_without_labels", int((~trained).sum()))
    return rows if trained.all() else selected(rows, np.flatnonzero(trained))


def _refuse(spec: Spec, piece: Piece, index: NDArray[np.int64], length: NDArray[np.int64], tally: Tally) -> None:
    """Rows that are too long: an error, or counted where the spec says so."""
    if spec.truncate == "drop":
        tally.count("rows_dropped_too_long", len(index))
        return
    for at, tokens in zip(index.tolist(), length.tolist(), strict=True):
        row = piece.first_row + at - piece.first_index
        reason = f"it has {tokens} tokens, more than max_length ({spec.max_length}); truncate: right cuts such rows, drop leaves them out"
        bad = BadRowError(piece.name, row, reason)
        tally.reject(bad, source=piece.name, row=row, reason=reason, skip=spec.on_bad_row == "skip")


def plan(spec: Spec, inputs: Inputs, surveys: Sequence[pa.Table]) -> Plan:
    """Shards that hold the shares to one row a part: see packing.mixture_plan."""
    return plan_parts(
        surveys,
        [part_of(piece) for piece in inputs.pieces],
        names=[part.name for part in spec.parts],
        weights=spec.shares(),
        unit=spec.unit,
        total=spec.total,
        max_epochs=spec.max_epochs,
        shard_rows=spec.shard_rows,
        shard_tokens=spec.shard_tokens,
        capacity=spec.max_length if spec.packing == "best_fit" else None,
        seed=spec.seed,
    )


def schema(spec: Spec) -> pa.Schema:  # noqa: ARG001 (every kind is asked for the schema of its spec)
    """The columns of every row."""
    return schemas.MIXTURE


def build(spec: Spec, shard: Shard, inputs: Inputs, tally: Tally) -> Iterator[pa.RecordBatch]:
    """The rows of one shard."""
    assert shard.table is not None
    if not shard.table.num_rows:
        return
    rows = read_rows(shard.table, inputs)
    unit, part = (shard.table.column(name).to_numpy() for name in ("unit", "part"))
    names = pa.array([part.name for part in spec.parts])
    batch = laid_out(rows, unit, names.take(pa.array(part)))
    tokens = batch.column("n_tokens").to_numpy()
    labels = batch.column("labels").flatten().to_numpy()
    tally.count("sequences", len(rows.lengths))
    tally.count("trained_tokens", int((labels != skipalign_rows.IGNORED).sum()))
    edges = powers_of_two(spec.max_length or 2**24)
    tally.histogram("row_tokens", Histogram(edges)).add(tokens)
    for number, one in enumerate(spec.parts):
        tally.histogram(f"row_tokens_{one.name}", Histogram(edges)).add(np.diff(rows.tokens)[part == number])
    yield batch


def check(spec: Spec, batch: pa.RecordBatch) -> None:
    """Raise DatasetError where a row breaks an invariant: those of skipalign rows, whose jumps may stand anywhere here; the part is one of
    the spec's."""
    plain = batch.select(schemas.SKIPALIGN.names)
    skipalign_rows.check(plain, strategy="random", max_position=2**31, groups_apart=True)
    names = {part.name for part in spec.parts}
    skipalign_rows.require(
        np.isin(batch.column("part").to_numpy(zero_copy_only=False), list(names)),
        np.arange(batch.num_rows),
        f"its part is none of {', '.join(sorted(names))}",
    )
    if spec.max_length is not None:
        fits = batch.column("n_tokens").to_numpy() <= spec.max_length
        skipalign_rows.require(
            fits, np.arange(batch.num_rows), f"it has more than max_length ({spec.max_length}) tokens"
        )


def conclude(spec: Spec, tally: Tally) -> list[str]:
    """Refuse a dataset without rows; warn where rows come more than once."""
    counts = tally.counts
    if not counts.get("sequences"):
        message = "no row is left: every one was rejected, dropped, or has no token to train on"
        raise InputError(message, param="/parts")
    repeated = {part.name: counts.get(f"part_{part.name}_repeated_rows", 0) for part in spec.parts}
    return [
        f"part {name}: {count:,} of {counts[f'part_{name}_rows']:,} rows are repeats (max_epochs {spec.max_epochs})"
        for name, count in repeated.items()
        if count
    ]


def charts(spec: Spec, tally: Tally) -> dict[str, Any]:
    """What was wanted of every part, and what is there."""
    counts = tally.counts
    shares = spec.shares()
    have = [counts.get(f"part_{part.name}_{spec.unit}", 0) for part in spec.parts]
    values = [
        {"part": part.name, "share": value, "what": what}
        for what, numbers, whole in (("wanted", shares, sum(shares)), ("there", have, max(sum(have), 1)))
        for part, value in zip(spec.parts, (number / whole for number in numbers), strict=True)
    ]
    return {
        "parts": {
            "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
            "title": {"text": f"shares of the parts, by {spec.unit}"},
            "width": 480,
            "height": {"step": 18},
            "data": {"values": values},
            "mark": {"type": "bar", "tooltip": True},
            "encoding": {
                "y": {"field": "part", "type": "nominal", "title": None},
                "yOffset": {"field": "what"},
                "x": {"field": "share", "type": "quantitative", "axis": {"format": "%"}, "title": None},
                "color": {"field": "what", "type": "nominal", "title": None},
            },
        }
    }
