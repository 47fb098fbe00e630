"""The kind `skipalign`: short instructions whose position ids skip, so that a short sample teaches long distances (arXiv 2405.03939)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from packing import skipalign_kept, skipalign_rows
from packing.chat import ChatTemplate
from packing.chat_tokens import offsets_of
from packing.dataset import schema as schemas
from packing.dataset.errors import InputError
from packing.document_tokens import document_batches, holds_documents
from packing.draws import Draws
from packing.pieces import rows_per_shard, total_rows
from packing.plan import Inputs, Piece, Plan, Shard, Survey, Tally
from packing.positions import NO_GAP, TOO_LONG, Sequences, place
from packing.skipalign_plan import compose, cut_by_tokens, runs, shards_of
from packing.skipalign_statistics import count_rows, reason_name
from packing.skipalign_tokens import Batch, select, token_batches, whole_groups
from packing.spec import CommonSpec, Source

WITHOUT_TURNS = frozenset({"pose", "random", "cream"})
SHARD_TOKENS = 2 * 1024 * 1024
"""Tokens of a shard of packed rows where the spec says nothing."""

SAMPLE_ROWS = 32
"""Source rows of a shard of a sample."""


class Spec(CommonSpec):
    """The spec of a skipalign dataset (contract, `kind: skipalign`)."""

    kind: Literal["skipalign"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is safe)
    source: Source
    strategy: Literal["outer", "inner", "all", "pose", "random", "cream", "none"] = "outer"
    max_position: Annotated[int, Field(ge=2, le=2**30)] = 131072
    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    draw: Literal["span", "chain", "slots"] = "span"
    max_length: Annotated[int, Field(ge=1, le=2**24)] = 4096
    truncate: Literal["right", "drop"] = "right"
    group: Annotated[int, Field(ge=1, le=1024)] = 1
    group_attention: Literal["separate", "joint"] = "separate"
    packing: Literal["none", "best_fit"] = "none"
    variants: Annotated[int, Field(ge=1, le=1000)] = 1
    template_date: date = date(2026, 1, 1)
    train_on: Literal["all", "last"] = "all"
    thinking: Literal["train", "mask"] = "train"
    special_tokens_in_text: Literal["escape", "refuse", "allow"] = "escape"

    def sources(self) -> Mapping[str, Source]:
        """The one source."""
        return {"/source": self.source}

    def for_sample(self) -> Self:
        """The same rows by small shards, for who looks at the first rows waits for their shard."""
        smaller = {"shard_rows": min(self.shard_rows or SAMPLE_ROWS, SAMPLE_ROWS), "shard_tokens": None}
        return self if _is_planned(self) else self.model_copy(update=smaller)


def needs_survey(spec: Spec) -> bool:
    """Packing, groups, and shards measured in tokens need to know the rows beforehand."""
    return spec.shard_tokens is not None or _is_planned(spec)


def _is_planned(spec: Spec) -> bool:
    """Whether rows are composed by the plan, and not one by one as the source has them."""
    return spec.packing != "none" or spec.group > 1


def survey(spec: Spec, piece: Piece, inputs: Inputs, tally: Tally) -> Survey:
    """What every row of a piece will be: `n_tokens` int32, 0 for a row that gives none. Of rows that the plan will compose, also all that
    packing.skipalign_kept names, and their tokens; those are counted here, the others when they are built."""
    index = np.arange(piece.first_index, piece.first_index + piece.rows)
    if _is_planned(spec):
        return skipalign_kept.keep(_batches(spec, inputs, index, tally), piece)
    lengths = np.zeros(piece.rows, np.int32)
    for batch in _batches(spec, inputs, index, Tally()):
        lengths[batch.index - piece.first_index] = np.diff(batch.tokens.offsets)
    return Survey(table=pa.table({"n_tokens": lengths}))


def plan(spec: Spec, inputs: Inputs, surveys: Sequence[pa.Table]) -> Plan:
    """Runs of source rows: as many as `shard_rows` says, or `shard_tokens` holds, or make a shard of some seconds' work. With groups or
    packing, runs of composed rows, which were planned over the whole dataset."""
    rows = total_rows(inputs.pieces)
    if not needs_survey(spec):
        firsts = np.arange(0, rows, spec.shard_rows or rows_per_shard(inputs.pieces))
        return Plan.of_work([{"first": a, "rows": b - a} for a, b in runs(firsts, rows)])
    if _is_planned(spec):
        return _plan_rows(spec, surveys)
    lengths = np.concatenate([s.column("n_tokens").to_numpy() for s in surveys]).astype(np.int64)
    firsts = cut_by_tokens(lengths * spec.variants, spec.shard_tokens or SHARD_TOKENS)
    return Plan.of_work([{"first": a, "rows": b - a} for a, b in runs(firsts, rows)])


def _plan_rows(spec: Spec, surveys: Sequence[pa.Table]) -> Plan:
    """Shards of composed rows; the table of each says where the rows that it needs are kept."""
    found = skipalign_kept.rows_of(surveys)
    lengths, turns = (found.column(name).to_numpy().astype(np.int64) for name in ("n_tokens", "turns"))
    composed = compose(
        lengths,
        turns,
        group=spec.group,
        variants=spec.variants,
        capacity=spec.max_length,
        packed=spec.packing != "none",
    )
    work = shards_of(composed, rows=spec.shard_rows, tokens=spec.shard_tokens or SHARD_TOKENS)
    return Plan.of_work(work, tables=[found.take(pa.array(np.unique(w["rows"]).astype(np.int64))) for w in work])


def schema(spec: Spec) -> pa.Schema:  # noqa: ARG001 (every kind is asked for the schema of its spec)
    """The columns of every row."""
    return schemas.SKIPALIGN


def build(spec: Spec, shard: Shard, inputs: Inputs, tally: Tally) -> Iterator[pa.RecordBatch]:
    """The rows of one shard: in the order of the source, variants of a conversation behind each other; or composed as planned."""
    work = shard.work
    if _is_planned(spec):
        yield from _build_planned(spec, shard, inputs, tally)
        return
    index = np.arange(work["first"], work["first"] + work["rows"])
    found = (_varied(batch, spec.variants) for batch in _batches(spec, inputs, index, tally) if batch.ids)
    # A batch has all variants of a row or, where a row group ends between them, begins or ends with some.
    before = 0
    for batch in whole_groups(found):
        one = np.ones(len(batch.ids), np.int64)
        yield lay_out(spec, batch, (before + np.arange(len(batch.ids))) % spec.variants, one, one, tally)
        before += len(batch.ids)


def _varied(batch: Batch, variants: int) -> Batch:
    return select(batch, np.repeat(np.arange(len(batch.ids)), variants)) if variants > 1 else batch


def _build_planned(spec: Spec, shard: Shard, inputs: Inputs, tally: Tally) -> Iterator[pa.RecordBatch]:
    assert shard.table is not None
    rows, variants, samples, units = (
        np.array(shard.work[name], np.int64) for name in ("rows", "variants", "samples", "units")
    )
    if not len(rows):
        return
    yield lay_out(spec, skipalign_kept.read(shard.table, inputs, rows), variants, samples, units, tally)


def check(spec: Spec, batch: pa.RecordBatch) -> None:
    """Raise DatasetError where a row breaks an invariant: see packing.skipalign_rows."""
    apart = spec.group > 1 and spec.group_attention == "separate"
    skipalign_rows.check(batch, strategy=spec.strategy, max_position=spec.max_position, groups_apart=apart)


def conclude(spec: Spec, tally: Tally) -> list[str]:
    """Refuse a dataset without rows, or one where the strategy found no gap in any of them; warn of what falls short of it."""
    counts = tally.counts
    units = counts.get("conversations", 0)
    if not units:
        message = "no row is left: every one was rejected, dropped, or has no token to train on"
        raise InputError(message, param="/source")
    wanted = spec.strategy != "none" and spec.probability > 0
    no_gap, too_long = counts.get(reason_name(NO_GAP), 0), counts.get(reason_name(TOO_LONG), 0)
    if wanted and no_gap == units:
        remedy = (
            "group: 4 lays single turns out as turns of one row, strategy: inner skips inside them"
            if spec.strategy == "outer"
            else "strategy: all, or other data"
        )
        message = f"strategy {spec.strategy} finds no gap in any of the {units} conversations: nothing would be skipped; {remedy}"
        raise InputError(message, param="/strategy")
    if wanted and too_long:
        return [
            f"{too_long} of {units} conversations have max_position ({spec.max_position}) tokens or more: they are not skipped"
        ]
    return []


def charts(spec: Spec, tally: Tally) -> dict[str, Any]:  # noqa: ARG001 (every kind is asked)
    """None beside the histograms'."""
    return {}


def _batches(spec: Spec, inputs: Inputs, index: NDArray[np.int64], tally: Tally) -> Iterator[Batch]:
    """The source rows `index` as token batches: conversations, or for strategies without turns whatever the source holds."""
    if spec.strategy in WITHOUT_TURNS and holds_documents(spec, inputs):
        return document_batches(spec, inputs, index, spec.eos_token, tally)
    return conversation_batches(spec, inputs, index, tally)


def conversation_batches(spec: Spec, inputs: Inputs, index: NDArray[np.int64], tally: Tally) -> Iterator[Batch]:
    """The source rows `index` as conversations under the spec's chat template, or the tokenizer's."""
    source = spec.chat_template or inputs.tokenizer.chat_template
    template = ChatTemplate.of(source, inputs.tokenizer, today=spec.template_date)
    return token_batches(spec, inputs, index, template, tally)


def lay_out(
    spec: Spec,
    batch: Batch,
    variants: NDArray[np.int64],
    samples: NDArray[np.int64],
    units: NDArray[np.int64],
    tally: Tally,
) -> pa.RecordBatch:
    """Place a batch's units and lay them out as rows: a unit, of `samples` int64 [U] conversations each, is placed as one conversation
    under its draw's `variants` int64 [U]; a row holds `units` int64 [rows] of them."""
    t = batch.tokens
    firsts = offsets_of(samples)
    sequences = Sequences(
        responses=t.responses,
        lengths=t.lengths,
        offsets=t.block_offsets[firsts],
        row=batch.index[firsts[:-1]],
        variant=variants,
    )
    placement = place(
        sequences,
        strategy=spec.strategy,
        probability=spec.probability,
        max_position=spec.max_position,
        draw=spec.draw,
        draws=Draws(spec.seed, "skipalign/gaps"),
    )
    joint = spec.group_attention == "joint"
    layout = skipalign_rows.Layout(
        tokens=t.offsets,
        units=firsts,
        rows=offsets_of(units),
        sequences=firsts if joint else np.arange(len(batch.ids) + 1),
    )
    count_rows(spec, t.trained, layout, placement, tally)
    return skipalign_rows.assemble(
        ids=t.ids,
        trained=t.trained,
        layout=layout,
        placement=placement,
        source_ids=batch.ids,
        trained_role="text" if batch.documents else "assistant",
    )
