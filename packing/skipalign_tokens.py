"""Conversations of a source as token batches: rendered, tokenised, cut to length, and rid of what has nothing to train on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from packing.bare_rows import Bare, Take, nobody
from packing.chat import ChatTemplate, Tools
from packing.chat_layout import Joined, Layout, Layouts, TemplateRowError
from packing.chat_shapes import Messages
from packing.chat_tokens import ChatTokens, chat_tokens, encode_rendered, require_escapable, spells_special
from packing.dataset.errors import BadRowError
from packing.dataset.writer import GROUP_ROWS, closed_rows
from packing.fast_engine import tried_of
from packing.pieces import RowSpan, rows_at
from packing.plan import Inputs, Tally
from packing.records import Conversation, Rejected, conversations
from packing.runs import offsets_of, runs_of, within
from packing.spec import Columns
from packing.tokenizers import Encoded, Tokenizer

MOST_ROWS, BATCH_BYTES = 16384, 8 * 1024 * 1024
"""The most rows of a batch, and about how many bytes they are: short rows by the thousand, for a batch costs some hundred calls of numpy.
Where batches end leaves no trace in a file."""


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
    for span in rows_at(inputs, index, most=MOST_ROWS, most_bytes=BATCH_BYTES, multiple=GROUP_ROWS):
        laid, encoded = _encoded(spec, span, template, inputs.tokenizer, unseen=True)
        disagreed = template.disagreements(_tried(spec, span, laid, encoded)) if template.joins else 0
        if disagreed:
            laid, encoded = _encoded(spec, span, template, inputs.tokenizer, unseen=False)
        tally.count("template_disagreements", disagreed)
        tally.count("source_rows", len(laid.ids) + len(laid.rejected))
        for item, reason in laid.rejected:
            bad = BadRowError(item.name, item.row, reason)
            tally.reject(bad, source=item.name, row=item.row, reason=reason, skip=spec.on_bad_row == "skip")
        if laid.ids:
            tally.count("tokenizer_disagreements", encoded.disagreed)
            tokens = chat_tokens(laid.layouts, encoded)
            yield fit(spec, Batch(ids=laid.ids, index=np.array(laid.index, np.int64), tokens=tokens), tally)


def _rows_of(spec: ChatSpec, span: RowSpan, take: Take) -> Iterator[Bare | Conversation | Rejected]:
    return conversations(
        span.table,
        container=span.piece.container,
        name=span.piece.name,
        row=span.row.tolist(),
        index=span.index.tolist(),
        columns=spec.columns,
        take=take,
    )


def _encoded(
    spec: ChatSpec, span: RowSpan, template: ChatTemplate, tokenizer: Tokenizer, *, unseen: bool
) -> tuple[_LaidOut, Encoded]:
    laid = _laid_out(spec, span, template, tokenizer, unseen=unseen)
    return laid, encode_rendered(laid.layouts, template, tokenizer, special_tokens=spec.special_tokens_in_text)


def _tried(spec: ChatSpec, span: RowSpan, laid: _LaidOut, encoded: Encoded) -> Iterator[tuple[Messages, str]]:
    """Messages and texts of the rows that are tried (ChatTemplate.disagreements), read once more, since nothing but texts was kept."""
    for row in tried_of(encoded.ids, encoded.offsets):
        at = np.searchsorted(span.index, laid.index[row : row + 1])
        alone = replace(span, row=span.row[at], index=span.index[at], table=span.table.slice(int(at[0]), 1))
        for item in _rows_of(spec, alone, nobody):
            if isinstance(item, Bare) or (isinstance(item, Conversation) and item.tools is None):
                yield item.messages, laid.layouts.texts[row]


@dataclass(slots=True)
class _LaidOut:
    """Rows of a batch that can be laid out: names, numbers, layouts; and the others with why not."""

    ids: list[str] = field(default_factory=list[str])
    index: list[int] = field(default_factory=list[int])
    layouts: Layouts = field(default_factory=Layouts)
    rejected: list[tuple[Bare | Conversation | Rejected, str]] = field(default_factory=list[Any])


def _laid_out(spec: ChatSpec, span: RowSpan, template: ChatTemplate, tokenizer: Tokenizer, *, unseen: bool) -> _LaidOut:
    """Lay rows out as they are read, so that what was parsed of one is gone before the next."""
    laid, how = _LaidOut(), _spelling(spec)
    take = _joined_into(laid, template, how) if unseen and how is not None else nobody
    for item in _rows_of(spec, span, take):
        if isinstance(item, Rejected):
            laid.rejected.append((item, item.reason))
            continue
        try:
            if how is not None and isinstance(item, Bare):
                layout = _checked(spec, template.fitted(item.roles, item.contents, **how), template, tokenizer)
            else:
                tools = item.tools if isinstance(item, Conversation) else None
                layout = _render(spec, item.messages, tools, template, tokenizer, unseen=unseen)
        except TemplateRowError as error:
            laid.rejected.append((item, error.message))
            continue
        laid.ids.append(item.id)
        laid.index.append(item.index)
        laid.layouts.add(layout)
    return laid


def _joined_into(laid: _LaidOut, template: ChatTemplate, how: Mapping[str, Any]) -> Take:
    """Takes rows that can be joined unrendered as they are read, without an object for any of them."""
    join, named, numbered = template.joiner(laid.layouts, **how), laid.ids.append, laid.index.append

    def take(index: int, name: str, roles: tuple[str, ...], contents: list[str]) -> bool:
        try:
            if not join(roles, contents):
                return False
        except TemplateRowError:  # it will say so again to who asks for the row's own rendering
            return False
        named(name)
        numbered(index)
        return True

    return take


def _spelling(spec: ChatSpec) -> dict[str, Any] | None:
    """How ChatTemplate.joined is asked for rows of nothing but roles and texts; None where it is not."""
    spelled, escaped = (spec.special_tokens_in_text == what for what in ("allow", "escape"))
    return {"train_on": spec.train_on, "spelled": spelled, "escaped": escaped} if spec.thinking == "train" else None


def _render(
    spec: ChatSpec,
    messages: Messages,
    tools: Tools | None,
    template: ChatTemplate,
    tokenizer: Tokenizer,
    *,
    unseen: bool,
) -> Layout:
    layout = template.render(messages, tools=tools, train_on=spec.train_on, thinking=spec.thinking, unseen=unseen)
    return _checked(spec, layout, template, tokenizer)


def _checked(spec: ChatSpec, layout: Layout, template: ChatTemplate, tokenizer: Tokenizer) -> Layout:
    """A layout that may be tokenised; raises TemplateRowError where special tokens that it spells forbid it."""
    if isinstance(layout, Joined):
        return layout
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
    if len(batches) == 1:
        return batches[0]
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


def whole_groups(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The rows of batches in batches that end where row groups do (but for the last), so that the writer puts rows down as they lie."""
    pending: list[Batch] = []
    for batch in batches:
        if pending:
            counts = np.concatenate([np.diff(part.tokens.offsets) for part in pending])
            closed = closed_rows(counts)
            if closed:
                whole = concatenate(pending)
                yield _rows(whole, 0, closed)
                pending = [_rows(whole, closed, len(counts))] if closed < len(counts) else []
        pending.append(batch)
    if pending:
        yield concatenate(pending)


def _rows(batch: Batch, first: int, end: int) -> Batch:
    """Some rows of a batch that follow each other, nothing copied."""
    if first == 0 and end == len(batch.ids):
        return batch
    t = batch.tokens
    offsets, blocks = t.offsets[first : end + 1], t.block_offsets[first : end + 1]
    tokens, of_block = slice(*offsets[[0, -1]].tolist()), slice(*blocks[[0, -1]].tolist())
    return Batch(
        ids=batch.ids[first:end],
        index=batch.index[first:end],
        documents=batch.documents,
        tokens=ChatTokens(
            ids=t.ids[tokens],
            trained=t.trained[tokens],
            offsets=offsets - offsets[0],
            responses=t.responses[of_block],
            lengths=t.lengths[of_block],
            block_offsets=blocks - blocks[0],
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
    trained, filled = t.trained, np.flatnonzero(np.diff(t.offsets))
    if trained[t.offsets[filled]].any():
        trained = trained.copy()
        trained[t.offsets[filled]] = False
        batch = replace(batch, tokens=replace(t, trained=trained))
    labels = np.zeros(len(batch.ids), bool)
    labels[filled] = np.logical_or.reduceat(trained, t.offsets[filled]) if len(filled) else False
    tally.count("rows_without_labels", int((~labels).sum()))
    return batch if labels.all() else select(batch, np.flatnonzero(labels))
