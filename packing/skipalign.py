"""The kind `skipalign`: short instructions whose position ids skip, so that a short sample teaches long distances (arXiv 2405.03939)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from packing import skipalign_rows
from packing.bins import best_fit
from packing.chat import ChatTemplate
from packing.chat_tokens import offsets_of
from packing.dataset import schema as schemas
from packing.dataset.errors import InputError
from packing.dataset.statistics import Histogram, even_edges, powers_of_two
from packing.draws import Draws
from packing.pieces import rows_per_shard, total_rows
from packing.plan import Inputs, Piece, Plan, Shard, Tally
from packing.positions import NO_GAP, NOT_DRAWN, REASONS, SKIPPED, TOO_LONG, Placement, Sequences, place
from packing.skipalign_tokens import Batch, concatenate, select, token_batches
from packing.spec import CommonSpec, Source

SHARD_TOKENS = 2 * 1024 * 1024
"""Tokens of a shard of packed rows where the spec says nothing."""


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
    group: Literal[1] = 1
    group_attention: Literal["separate", "joint"] = "separate"
    packing: Literal["none", "best_fit"] = "none"
    variants: Annotated[int, Field(ge=1, le=1000)] = 1
    template_date: date = date(2026, 1, 1)
    train_on: Literal["all", "last"] = "all"
    special_tokens_in_text: Literal["escape", "refuse", "allow"] = "escape"

    def sources(self) -> Mapping[str, Source]:
        """The one source."""
        return {"/source": self.source}


def needs_survey(spec: Spec) -> bool:
    """Packing, and shards measured in tokens, need to know the rows' lengths beforehand."""
    return spec.shard_tokens is not None or spec.packing != "none"


def survey(spec: Spec, piece: Piece, inputs: Inputs) -> pa.Table:
    """Tokens of every row of a piece as it will be written: one int32 column `n_tokens`, 0 for a row that gives none."""
    lengths = np.zeros(piece.rows, np.int32)
    index = np.arange(piece.first_index, piece.first_index + piece.rows)
    for batch in token_batches(spec, inputs, index, _template(spec, inputs), Tally()):
        lengths[batch.index - piece.first_index] = np.diff(batch.tokens.offsets)
    return pa.table({"n_tokens": lengths})


def plan(spec: Spec, inputs: Inputs, surveys: Sequence[pa.Table]) -> Plan:
    """Runs of source rows: as many as `shard_rows` says, or `shard_tokens` holds, or make a shard of some seconds' work. With packing,
    runs of packed rows, which were planned over the whole dataset."""
    rows = total_rows(inputs.pieces)
    if not needs_survey(spec):
        firsts = np.arange(0, rows, spec.shard_rows or rows_per_shard(inputs.pieces))
        return Plan.of_work([{"first": a, "rows": b - a} for a, b in _runs(firsts, rows)])
    lengths = np.concatenate([s.column("n_tokens").to_numpy() for s in surveys]).astype(np.int64)
    if spec.packing == "none":
        firsts = _cut_by_tokens(lengths * spec.variants, spec.shard_tokens or SHARD_TOKENS)
        return Plan.of_work([{"first": a, "rows": b - a} for a, b in _runs(firsts, rows)])
    return _plan_packed(spec, lengths)


def _plan_packed(spec: Spec, lengths: NDArray[np.int64]) -> Plan:
    """Items are (row, variant) with something to train on; `lost` rows are handed out too, so that their reasons are counted."""
    whole, lost = np.flatnonzero(lengths), np.flatnonzero(lengths == 0)
    of_item = np.repeat(whole, spec.variants)
    items, offsets = best_fit(lengths[of_item], spec.max_length)
    variant = np.tile(np.arange(spec.variants), len(whole))
    bins = len(offsets) - 1
    if spec.shard_rows:
        firsts = np.arange(0, bins, spec.shard_rows)
    else:
        fills = np.diff(np.append(0, np.cumsum(lengths[of_item][items]))[offsets])
        firsts = _cut_by_tokens(fills, spec.shard_tokens or SHARD_TOKENS)
    runs = _runs(firsts, bins) or [(0, 0)]
    shares = np.array_split(lost, len(runs))
    return Plan.of_work(
        [
            {
                "rows": of_item[items[offsets[a] : offsets[b]]].tolist(),
                "variants": variant[items[offsets[a] : offsets[b]]].tolist(),
                "sequences": np.diff(offsets[a : b + 1]).tolist(),
                "lost": share.tolist(),
            }
            for (a, b), share in zip(runs, shares, strict=True)
        ]
    )


def _runs(firsts: NDArray[np.int64], end: int) -> list[tuple[int, int]]:
    """(first, one past the last) of consecutive runs that begin at `firsts` and end at `end`."""
    return list(zip(firsts.tolist(), [*firsts[1:].tolist(), end], strict=True)) if len(firsts) else []


def _cut_by_tokens(lengths: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """First rows of shards of at most `most` tokens each; a row larger than that has a shard of its own."""
    ends = np.cumsum(lengths)
    firsts = [0] if len(lengths) else []
    while firsts:
        before = int(ends[firsts[-1] - 1]) if firsts[-1] else 0
        following = max(int(np.searchsorted(ends, before + most, side="right")), firsts[-1] + 1)
        if following >= len(lengths):
            break
        firsts.append(following)
    return np.array(firsts, np.int64)


def schema(spec: Spec) -> pa.Schema:  # noqa: ARG001 (every kind is asked for the schema of its spec)
    """The columns of every row."""
    return schemas.SKIPALIGN


def build(spec: Spec, shard: Shard, inputs: Inputs, tally: Tally) -> Iterator[pa.RecordBatch]:
    """The rows of one shard: in the order of the source, variants of a conversation behind each other; or packed as planned."""
    template = _template(spec, inputs)
    work = shard.work
    if spec.packing != "none":
        yield from _build_packed(spec, work, inputs, template, tally)
        return
    index = np.arange(work["first"], work["first"] + work["rows"])
    for batch in token_batches(spec, inputs, index, template, tally):
        chosen = np.repeat(np.arange(len(batch.ids)), spec.variants)
        if len(chosen):
            variant = np.tile(np.arange(spec.variants), len(batch.ids))
            yield _rows(spec, select(batch, chosen), variant, np.arange(len(chosen) + 1), tally)


def _build_packed(
    spec: Spec, work: Mapping[str, Any], inputs: Inputs, template: ChatTemplate, tally: Tally
) -> Iterator[pa.RecordBatch]:
    rows, lost = np.array(work["rows"], np.int64), np.array(work["lost"], np.int64)
    needed = np.unique(rows)
    batches = list(token_batches(spec, inputs, np.union1d(needed, lost), template, tally))
    if not len(rows):
        return
    batch = concatenate(batches)
    chosen = select(batch, np.searchsorted(batch.index, rows))
    yield _rows(spec, chosen, np.array(work["variants"], np.int64), offsets_of(np.array(work["sequences"])), tally)


def check(spec: Spec, batch: pa.RecordBatch) -> None:
    """Raise DatasetError where a row breaks an invariant: see packing.skipalign_rows."""
    skipalign_rows.check(batch, strategy=spec.strategy, max_position=spec.max_position)


def conclude(spec: Spec, tally: Tally) -> list[str]:
    """Refuse a dataset without rows, or one where the strategy found no gap in any of them; warn of what falls short of it."""
    counts = tally.counts
    sequences = counts.get("sequences", 0)
    if not sequences:
        message = "no row is left: every one was rejected, dropped, or has no token to train on"
        raise InputError(message, param="/source")
    wanted = spec.strategy != "none" and spec.probability > 0
    no_gap, too_long = counts.get(_reason_name(NO_GAP), 0), counts.get(_reason_name(TOO_LONG), 0)
    if wanted and no_gap == sequences:
        remedy = (
            "strategy: inner skips inside single turns" if spec.strategy == "outer" else "strategy: all, or other data"
        )
        message = f"strategy {spec.strategy} finds no gap in any of the {sequences} conversations: nothing would be skipped; {remedy}"
        raise InputError(message, param="/strategy")
    if wanted and too_long:
        return [
            f"{too_long} of {sequences} conversations have max_position ({spec.max_position}) tokens or more: they are not skipped"
        ]
    return []


def _template(spec: Spec, inputs: Inputs) -> ChatTemplate:
    source = spec.chat_template or inputs.tokenizer.chat_template
    return ChatTemplate(source, inputs.tokenizer, today=spec.template_date)


def _rows(
    spec: Spec, batch: Batch, variant: NDArray[np.int64], row_offsets: NDArray[np.int64], tally: Tally
) -> pa.RecordBatch:
    """Place a batch's sequences and lay them out as rows: `row_offsets` int64 [rows + 1] says which sequences make each."""
    t = batch.tokens
    sequences = Sequences(
        responses=t.responses, lengths=t.lengths, offsets=t.block_offsets, row=batch.index, variant=variant
    )
    placement = place(
        sequences,
        strategy=spec.strategy,
        probability=spec.probability,
        max_position=spec.max_position,
        draw=spec.draw,
        draws=Draws(spec.seed, "skipalign/gaps"),
    )
    _count(spec, batch, placement, row_offsets, tally)
    return skipalign_rows.assemble(
        ids=t.ids,
        trained=t.trained,
        offsets=t.offsets,
        placement=placement,
        row_offsets=row_offsets,
        source_ids=batch.ids,
    )


def _reason_name(reason: int) -> str:
    return "unskipped_" + REASONS[reason].replace(" ", "_")


def _count(spec: Spec, batch: Batch, placement: Placement, row_offsets: NDArray[np.int64], tally: Tally) -> None:
    t = batch.tokens
    counts = np.diff(t.offsets)
    trained = np.diff(np.append(0, np.cumsum(t.trained))[t.offsets])
    last = placement.positions[t.offsets[1:] - 1].astype(np.int64)
    skipped = placement.reason == SKIPPED
    tally.count("rows", len(row_offsets) - 1)
    tally.count("sequences", len(counts))
    tally.count("tokens", int(counts.sum()))
    tally.count("trained_tokens", int(trained.sum()))
    tally.count("sequences_skipped", int(skipped.sum()))
    tally.count("sequences_eligible", int((skipped | (placement.reason == NOT_DRAWN)).sum()))
    for reason in range(1, len(REASONS)):
        tally.count(_reason_name(reason), int((placement.reason == reason).sum()))
    longest, farthest = spec.max_length, max(spec.max_position, spec.max_length)
    tally.histogram("row_tokens", Histogram(powers_of_two(longest))).add(np.diff(t.offsets[row_offsets]))
    tally.histogram("sequence_tokens", Histogram(powers_of_two(longest))).add(counts)
    tally.histogram("trained_tokens", Histogram(powers_of_two(longest))).add(trained)
    tally.histogram("span_of_skipped", Histogram(even_edges(spec.max_position))).add((last + 1 - counts)[skipped])
    tally.histogram("last_position", Histogram(even_edges(farthest))).add(last)
    tally.histogram("positions", Histogram(even_edges(farthest, 128))).add(placement.positions)
