"""Conversations of a source as token batches: rendered, tokenised, cut to length, and rid of what has nothing to train on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from packing.chat import ChatTemplate
from packing.chat_layout import Joined, Layout, Rendered, TemplateRowError
from packing.chat_tokens import (
    ChatTokens,
    chat_tokens,
    encode_rendered,
    offsets_of,
    require_escapable,
    spells_special,
    within,
)
from packing.dataset.errors import BadRowError
from packing.kept import runs_of
from packing.pieces import rows_at
from packing.plan import Inputs, Tally
from packing.records import Conversation, Rejected, conversations
from packing.spec import Columns
from packing.tokenizers import Tokenizer

FIRST_ROWS, BATCH_ROWS = 32, 512
"""Rows of the first batch, which a preview waits for, and of every other; where batches end leaves no trace in a file."""


class ChatSpec(Protocol):
    """What a spec says of how conversations become tokens."""

    @property
    def columns(self) -> Columns: ...
    @property
    def on_bad_row(self) -> str: ...
    @property
    def train_on(self) -> str: ...
    @property
    def thinking(self) -> str: ...
    @property
    def special_tokens_in_text(self) -> str: ...
    @property
    def max_length(self) -> int: ...
    @property
    def truncate(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """R conversations (or documents) as tokens; `index` int64 [R] counts source rows from 0."""

    ids: list[str]
    index: NDArray[np.int64]
    tokens: ChatTokens
    documents: bool = False


def token_batches(
    spec: ChatSpec, inputs: Inputs, index: NDArray[np.int64], template: ChatTemplate, tally: Tally
) -> Iterator[Batch]:
    """The conversations among the source rows `index` that can be trained on, some hundred at a time, in order.

    Raises BadRowError for the first row that cannot be used, or counts such rows where the spec says so.
    """
    for span in rows_at(inputs, index, most=BATCH_ROWS, first=FIRST_ROWS):
        found = conversations(
            span.table,
            container=span.piece.container,
            name=span.piece.name,
            row=span.row.tolist(),
            index=span.index.tolist(),
            columns=spec.columns,
        )
        kept, rendered = _usable(spec, list(found), template, inputs.tokenizer, tally)
        if kept:
            encoded = encode_rendered(rendered, template, inputs.tokenizer, special_tokens=spec.special_tokens_in_text)
            tally.count("tokenizer_disagreements", encoded.disagreed)
            indices = np.array([c.index for c in kept], np.int64)
            batch = Batch(ids=[c.id for c in kept], index=indices, tokens=chat_tokens(rendered, encoded))
            yield fit(spec, batch, tally)


def _usable(
    spec: ChatSpec, found: Sequence[Conversation | Rejected], template: ChatTemplate, tokenizer: Tokenizer, tally: Tally
) -> tuple[list[Conversation], list[Layout]]:
    """The conversations of a batch that can be laid out, and their renderings; the others are counted, or the first of them raised."""
    layouts = [_attempt(spec, item, template, tokenizer, unseen=True) for item in found]
    usable = [
        (item.messages, item.tools, layout)
        for item, layout in zip(found, layouts, strict=True)
        if isinstance(item, Conversation) and isinstance(layout, Rendered | Joined)
    ]
    disagreed = template.disagreements(usable)
    tally.count("template_disagreements", disagreed)
    if disagreed:
        layouts = [_attempt(spec, item, template, tokenizer, unseen=False) for item in found]
    kept: list[Conversation] = []
    rendered: list[Layout] = []
    for item, layout in zip(found, layouts, strict=True):
        tally.count("source_rows")
        if isinstance(item, Conversation) and isinstance(layout, Rendered | Joined):
            kept.append(item)
            rendered.append(layout)
        else:
            reason = str(layout)
            bad = BadRowError(item.name, item.row, reason)
            tally.reject(bad, source=item.name, row=item.row, reason=reason, skip=spec.on_bad_row == "skip")
    return kept, rendered


def _attempt(
    spec: ChatSpec, item: Conversation | Rejected, template: ChatTemplate, tokenizer: Tokenizer, *, unseen: bool
) -> Layout | str:
    """A row's rendering, or why it has none."""
    if not isinstance(item, Conversation):
        return item.reason
    if unseen and item.tools is None and spec.thinking == "train":
        joined = template.joined(item.messages, train_on=spec.train_on)
        if joined is not None and (
            spec.special_tokens_in_text == "allow" or not template.spells_special(joined.values)
        ):
            return joined
    try:
        return _render(spec, item, template, tokenizer, unseen=unseen)
    except TemplateRowError as error:
        return error.message


def _render(
    spec: ChatSpec, item: Conversation, template: ChatTemplate, tokenizer: Tokenizer, *, unseen: bool
) -> Rendered:
    layout = template.render(
        item.messages, tools=item.tools, train_on=spec.train_on, thinking=spec.thinking, unseen=unseen
    )
    if spec.special_tokens_in_text == "refuse" and spells_special(layout, template):
        message = "it spells a special token (special_tokens_in_text: refuse)"
        raise TemplateRowError(message)
    if spec.special_tokens_in_text == "escape":
        require_escapable(layout, template, tokenizer)
    return layout


def select(batch: Batch, chosen: NDArray[np.int64]) -> Batch:
    """The rows `chosen` (numbers in the batch, repeats allowed) in that order."""
    t = batch.tokens
    counts, blocks = np.diff(t.offsets)[chosen], np.diff(t.block_offsets)[chosen]
    of_block = np.repeat(t.block_offsets[:-1][chosen], blocks) + within(blocks)
    return Batch(
        ids=[batch.ids[i] for i in chosen.tolist()],
        index=batch.index[chosen],
        documents=batch.documents,
        tokens=ChatTokens(
            ids=runs_of(t.ids, t.offsets[chosen], counts),
            trained=runs_of(t.trained, t.offsets[chosen], counts),
            offsets=offsets_of(counts),
            responses=t.responses[of_block],
            lengths=t.lengths[of_block],
            block_offsets=offsets_of(blocks),
        ),
    )


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Batches end to end; at least one."""
    parts = [batch.tokens for batch in batches]
    return Batch(
        ids=[name for batch in batches for name in batch.ids],
        index=np.concatenate([batch.index for batch in batches]),
        documents=batches[0].documents,
        tokens=ChatTokens(
            ids=np.concatenate([t.ids for t in parts]),
            trained=np.concatenate([t.trained for t in parts]),
            offsets=offsets_of(np.concatenate([np.diff(t.offsets) for t in parts])),
            responses=np.concatenate([t.responses for t in parts]),
            lengths=np.concatenate([t.lengths for t in parts]),
            block_offsets=offsets_of(np.concatenate([np.diff(t.block_offsets) for t in parts])),
        ),
    )


def _truncated(t: ChatTokens, most: int) -> ChatTokens:
    """The first `most` tokens of every row; blocks are cut with them and those behind the cut vanish."""
    counts = np.diff(t.offsets)
    if not (counts > most).any():
        return t
    stays = np.minimum(counts, most)
    token = np.repeat(np.tile([True, False], len(counts)), np.stack([stays, counts - stays], 1).ravel())
    block_row = np.repeat(np.arange(len(counts)), np.diff(t.block_offsets))
    start = offsets_of(t.lengths)[:-1] - t.offsets[block_row]
    lengths = np.clip(most - start, 0, t.lengths)
    kept = lengths > 0
    return ChatTokens(
        ids=t.ids[token],
        trained=t.trained[token],
        offsets=offsets_of(stays),
        responses=t.responses[kept],
        lengths=lengths[kept],
        block_offsets=offsets_of(np.bincount(block_row[kept], minlength=len(counts))),
    )


def fit(spec: ChatSpec, batch: Batch, tally: Tally) -> Batch:
    """Cut or drop what is too long, then drop what has nothing to train on (nothing predicts the first token of a row)."""
    too_long = np.diff(batch.tokens.offsets) > spec.max_length
    if spec.truncate == "drop":
        tally.count("rows_dropped_too_long", int(too_long.sum()))
        batch = select(batch, np.flatnonzero(~too_long))
    else:
        tally.count("rows_truncated", int(too_long.sum()))
        batch = replace(batch, tokens=_truncated(batch.tokens, spec.max_length))
    t = batch.tokens
    trained, filled = t.trained.copy(), np.flatnonzero(np.diff(t.offsets))
    trained[t.offsets[filled]] = False
    batch = replace(batch, tokens=replace(t, trained=trained))
    labels = np.zeros(len(batch.ids), bool)
    labels[filled] = np.logical_or.reduceat(trained, t.offsets[filled]) if len(filled) else False
    tally.count("rows_without_labels", int((~labels).sum()))
    return batch if labels.all() else select(batch, np.flatnonzero(labels))
