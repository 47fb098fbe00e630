"""The kind `skipalign`: short instructions whose position ids skip, so that a short sample teaches long distances (arXiv 2405.03939)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from packing import skipalign_rows
from packing.chat import ChatTemplate, Rendered, TemplateRowError
from packing.chat_tokens import ChatTokens, chat_tokens, encode_rendered, offsets_of, spells_special, within
from packing.dataset import schema as schemas
from packing.dataset.errors import BadRowError, InputError
from packing.dataset.statistics import Histogram, even_edges, powers_of_two
from packing.draws import Draws
from packing.pieces import rows_between, rows_per_shard, total_rows
from packing.plan import Inputs, Piece, Plan, Shard, Tally
from packing.positions import NO_GAP, NOT_DRAWN, REASONS, SKIPPED, TOO_LONG, Placement, place, position_ids
from packing.records import Conversation, conversations
from packing.spec import CommonSpec, Source

BATCH_ROWS = 512


class Spec(CommonSpec):
    """The spec of a skipalign dataset (contract, `kind: skipalign`)."""

    kind: Literal["skipalign"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is safe)
    source: Source
    strategy: Literal["outer", "inner", "all", "none"] = "outer"
    max_position: Annotated[int, Field(ge=2, le=2**30)] = 131072
    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    draw: Literal["span"] = "span"
    max_length: Annotated[int, Field(ge=1, le=2**24)] = 4096
    truncate: Literal["right", "drop"] = "right"
    group: Literal[1] = 1
    group_attention: Literal["separate", "joint"] = "separate"
    packing: Literal["none"] = "none"
    variants: Annotated[int, Field(ge=1, le=1000)] = 1
    template_date: date = date(2026, 1, 1)
    train_on: Literal["all", "last"] = "all"
    special_tokens_in_text: Literal["escape", "refuse", "allow"] = "escape"

    def sources(self) -> Mapping[str, Source]:
        """The one source."""
        return {"/source": self.source}


def needs_survey(spec: Spec) -> bool:
    """Only shards measured in tokens need to know the rows' lengths beforehand."""
    return spec.shard_tokens is not None


def survey(spec: Spec, piece: Piece, inputs: Inputs) -> pa.Table:
    """Tokens of every row of a piece after truncation: one int32 column `n_tokens`, 0 for a row that gives none."""
    lengths = np.zeros(piece.rows, np.int32)
    template = _template(spec, inputs)
    for batch in _batches(spec, inputs, piece.first_index, piece.rows, template, Tally()):
        lengths[batch.index - piece.first_index] = np.minimum(np.diff(batch.tokens.offsets), spec.max_length)
    return pa.table({"n_tokens": lengths})


def plan(spec: Spec, inputs: Inputs, surveys: Sequence[pa.Table]) -> Plan:
    """Runs of source rows: as many as `shard_rows` says, or `shard_tokens` holds, or make a shard of some seconds' work."""
    rows = total_rows(inputs.pieces)
    if spec.shard_tokens is None:
        size = spec.shard_rows or rows_per_shard(inputs.pieces)
        firsts = np.arange(0, rows, size)
    else:
        lengths = np.concatenate([s.column("n_tokens").to_numpy() for s in surveys]).astype(np.int64) * spec.variants
        firsts = _cut_by_tokens(lengths, spec.shard_tokens)
    ends = np.append(firsts[1:], rows)
    return Plan.of_work([{"first": int(a), "rows": int(b - a)} for a, b in zip(firsts, ends, strict=True)])


def _cut_by_tokens(lengths: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """First rows of shards of at most `most` tokens each; a row larger than that has a shard of its own."""
    ends = np.cumsum(lengths)
    firsts = [0]
    while True:
        before = int(ends[firsts[-1] - 1]) if firsts[-1] else 0
        following = max(int(np.searchsorted(ends, before + most, side="right")), firsts[-1] + 1)
        if following >= len(lengths):
            return np.array(firsts, np.int64)
        firsts.append(following)


def schema(spec: Spec) -> pa.Schema:  # noqa: ARG001 (every kind is asked for the schema of its spec)
    """The columns of every row."""
    return schemas.SKIPALIGN


def build(spec: Spec, shard: Shard, inputs: Inputs, tally: Tally) -> Iterator[pa.RecordBatch]:
    """The rows of one shard, in the order of the source; variants of a conversation follow each other."""
    template = _template(spec, inputs)
    for batch in _batches(spec, inputs, shard.work["first"], shard.work["rows"], template, tally):
        yield from _rows(spec, batch, tally)


def check(spec: Spec, batch: pa.RecordBatch) -> None:
    """Raise DatasetError where a row breaks an invariant: see packing.skipalign_rows."""
    skipalign_rows.check(batch, strategy=spec.strategy, max_position=spec.max_position)


def conclude(spec: Spec, tally: Tally) -> list[str]:
    """Refuse a dataset without rows, or one where the strategy found no gap in any of them; warn of what falls short of it."""
    counts = tally.counts
    rows = counts.get("rows", 0)
    if not rows:
        message = "no row is left: every one was rejected, dropped, or has no token to train on"
        raise InputError(message, param="/source")
    wanted = spec.strategy != "none" and spec.probability > 0
    no_gap, too_long = counts.get(_reason_name(NO_GAP), 0), counts.get(_reason_name(TOO_LONG), 0)
    if wanted and no_gap == rows:
        remedy = (
            "strategy: inner skips inside single turns" if spec.strategy == "outer" else "strategy: all, or other data"
        )
        message = f"strategy {spec.strategy} finds no gap in any of the {rows} rows: nothing would be skipped; {remedy}"
        raise InputError(message, param="/strategy")
    if wanted and too_long:
        return [f"{too_long} of {rows} rows have max_position ({spec.max_position}) tokens or more and are not skipped"]
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Some conversations as tokens; `index` int64 [R] counts source rows from 0."""

    ids: list[str]
    index: NDArray[np.int64]
    tokens: ChatTokens


def _template(spec: Spec, inputs: Inputs) -> ChatTemplate:
    return ChatTemplate(
        spec.chat_template or inputs.tokenizer.chat_template, inputs.tokenizer, today=spec.template_date
    )


def _batches(
    spec: Spec, inputs: Inputs, first: int, rows: int, template: ChatTemplate, tally: Tally
) -> Iterator[_Batch]:
    """The conversations among source rows first..first + rows, tokenised, some hundred at a time."""
    for span in rows_between(inputs, first, rows, most=BATCH_ROWS):
        kept: list[Conversation] = []
        rendered: list[Rendered] = []
        found = conversations(
            span.table,
            container=span.piece.container,
            name=span.piece.name,
            first_row=span.first_row,
            first_index=span.first_index,
            columns=spec.columns,
        )
        for item in found:
            tally.count("source_rows")
            try:
                if not isinstance(item, Conversation):
                    raise TemplateRowError(item.reason)
                layout = template.render(item.messages, train_on=spec.train_on)
                if spec.special_tokens_in_text == "refuse" and spells_special(layout, template):
                    raise TemplateRowError("it spells a special token (special_tokens_in_text: refuse)")
            except TemplateRowError as error:
                reason = error.message
                bad = BadRowError(item.name, item.row, reason)
                tally.reject(bad, source=item.name, row=item.row, reason=reason, skip=spec.on_bad_row == "skip")
                continue
            kept.append(item)
            rendered.append(layout)
        if kept:
            encoded = encode_rendered(rendered, template, inputs.tokenizer, special_tokens=spec.special_tokens_in_text)
            yield _Batch(
                ids=[c.id for c in kept],
                index=np.array([c.index for c in kept], np.int64),
                tokens=chat_tokens(rendered, encoded),
            )


def _select(batch: _Batch, kept: NDArray[np.int64]) -> _Batch:
    """The rows `kept` (indices, repeats allowed) of a batch, in that order."""
    t = batch.tokens
    counts, blocks = np.diff(t.offsets)[kept], np.diff(t.block_offsets)[kept]
    tokens = np.repeat(t.offsets[:-1][kept], counts) + within(counts)
    of_block = np.repeat(t.block_offsets[:-1][kept], blocks) + within(blocks)
    return _Batch(
        ids=[batch.ids[i] for i in kept],
        index=batch.index[kept],
        tokens=ChatTokens(
            ids=t.ids[tokens],
            trained=t.trained[tokens],
            offsets=offsets_of(counts),
            responses=t.responses[of_block],
            lengths=t.lengths[of_block],
            block_offsets=offsets_of(blocks),
        ),
    )


def _truncated(t: ChatTokens, most: int) -> ChatTokens:
    """The first `most` tokens of every row; blocks are cut with them and those behind the cut vanish."""
    counts = np.diff(t.offsets)
    if not (counts > most).any():
        return t
    token = within(counts) < most
    block_row = np.repeat(np.arange(len(counts)), np.diff(t.block_offsets))
    start = offsets_of(t.lengths)[:-1] - t.offsets[block_row]
    lengths = np.clip(most - start, 0, t.lengths)
    kept = lengths > 0
    return ChatTokens(
        ids=t.ids[token],
        trained=t.trained[token],
        offsets=offsets_of(np.minimum(counts, most)),
        responses=t.responses[kept],
        lengths=lengths[kept],
        block_offsets=offsets_of(np.bincount(block_row[kept], minlength=len(counts))),
    )


def _fit(spec: Spec, batch: _Batch, tally: Tally) -> _Batch:
    """Truncate or drop what is too long, then drop what has nothing to train on (the first token of a row has no one to predict it)."""
    counts = np.diff(batch.tokens.offsets)
    too_long = counts > spec.max_length
    if spec.truncate == "drop" and too_long.any():
        tally.count("rows_dropped_too_long", int(too_long.sum()))
        batch = _select(batch, np.flatnonzero(~too_long))
    else:
        tally.count("rows_truncated", int(too_long.sum()))
        batch = replace(batch, tokens=_truncated(batch.tokens, spec.max_length))
    t = batch.tokens
    t.trained[t.offsets[:-1][np.diff(t.offsets) > 0]] = False
    trained = np.diff(np.append(0, np.cumsum(t.trained))[t.offsets])
    if (trained == 0).any():
        tally.count("rows_without_labels", int((trained == 0).sum()))
        batch = _select(batch, np.flatnonzero(trained))
    return batch


def _rows(spec: Spec, batch: _Batch, tally: Tally) -> Iterator[pa.RecordBatch]:
    batch = _fit(spec, batch, tally)
    rows = len(batch.ids)
    if not rows:
        return
    batch = _select(batch, np.repeat(np.arange(rows), spec.variants))
    t = batch.tokens
    placement = place(
        strategy=spec.strategy,
        probability=spec.probability,
        max_position=spec.max_position,
        responses=t.responses,
        lengths=t.lengths,
        block_offsets=t.block_offsets,
        row=batch.index,
        variant=np.tile(np.arange(spec.variants), rows),
        draws=Draws(spec.seed, "skipalign/gaps"),
    )
    positions = position_ids(t.lengths, placement.bias, t.offsets)
    _count(spec, t, placement, positions, tally)
    yield skipalign_rows.assemble(
        ids=t.ids,
        trained=t.trained,
        positions=positions,
        offsets=t.offsets,
        responses=t.responses,
        lengths=t.lengths,
        bias=placement.bias,
        block_offsets=t.block_offsets,
        reasons=[REASONS[i] for i in placement.reason],
        skipped=placement.reason == SKIPPED,
        source_ids=batch.ids,
    )


def _reason_name(reason: int) -> str:
    return "unskipped_" + REASONS[reason].replace(" ", "_")


def _count(spec: Spec, t: ChatTokens, placement: Placement, positions: NDArray[np.int32], tally: Tally) -> None:
    counts = np.diff(t.offsets)
    trained = np.diff(np.append(0, np.cumsum(t.trained))[t.offsets])
    last = positions[t.offsets[1:] - 1].astype(np.int64)
    skipped = placement.reason == SKIPPED
    tally.count("rows", len(counts))
    tally.count("tokens", int(counts.sum()))
    tally.count("trained_tokens", int(trained.sum()))
    tally.count("rows_skipped", int(skipped.sum()))
    tally.count("rows_eligible", int((skipped | (placement.reason == NOT_DRAWN)).sum()))
    for reason in range(1, len(REASONS)):
        tally.count(_reason_name(reason), int((placement.reason == reason).sum()))
    tally.histogram("row_tokens", Histogram(powers_of_two(spec.max_length))).add(counts)
    tally.histogram("trained_tokens", Histogram(powers_of_two(spec.max_length))).add(trained)
    tally.histogram("span_of_skipped_rows", Histogram(even_edges(spec.max_position))).add((last + 1 - counts)[skipped])
    tally.histogram("last_position", Histogram(even_edges(max(spec.max_position, spec.max_length)))).add(last)
