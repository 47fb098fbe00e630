"""Rendered conversations as flat token arrays: ids, blocks x1, y1, …, xn, yn, and which tokens are trained.

A token belongs to the block in which it begins, so one that straddles the border between a prompt and its response stays with the
prompt and is not trained: at inference the header is already tokenised when the response begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packing.chat import ChatTemplate
from packing.chat_layout import Layouts, Outline, Rendered, TemplateRowError
from packing.runs import Number, offsets_of, runs_of, within
from packing.tokenizers import Encoded, Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTokens:
    """R conversations end to end.

    `ids` int32 [T], `trained` bool [T]; `offsets` int64 [R + 1] into them. Blocks: `responses` bool [B] (False: a prompt), `lengths`
    int64 [B] in tokens; `block_offsets` int64 [R + 1] into those. Blocks of a row follow each other without a gap and none is empty.
    """

    ids: NDArray[np.int32]
    trained: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    responses: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    block_offsets: NDArray[np.int64]


def spells_special(rendered: Rendered, template: ChatTemplate) -> bool:
    """Whether a message's content holds the spelling of a special token."""
    return any(part.content and template.specials(part.text) for part in rendered.parts)


def encode_rendered(layouts: Layouts, template: ChatTemplate, tokenizer: Tokenizer, *, special_tokens: str) -> Encoded:
    """Tokens of every conversation. With `special_tokens` = "escape", a special token spelled inside a content stays ordinary text; with
    "allow" it becomes the token; "refuse" expects that no content spells one."""
    texts, hidden = layouts.texts, dict(layouts.hidden)
    if special_tokens == "escape":
        for place, row in layouts.rendered.items():
            if spells_special(row, template):
                hidden[place] = tokenizer.hidden(row.text, _own(row, template))
    if not hidden:
        return tokenizer.encode(texts)
    places = sorted(hidden)
    apart = tokenizer.encode_hidden([texts[i] for i in places], [hidden[i] for i in places])
    if len(places) == len(texts):
        return apart
    escaped = np.zeros(len(texts), bool)
    escaped[places] = True
    natural = tokenizer.encode([text for i, text in enumerate(texts) if i not in hidden])
    return _interleave(escaped, natural, apart)


def require_escapable(rendered: Rendered, template: ChatTemplate, tokenizer: Tokenizer) -> None:
    """Raise TemplateRowError for the one kind of row that cannot be escaped: special tokens stand behind private-use characters while
    the others are encoded, so such a row may not hold those itself."""
    found = tokenizer.guard_characters.search(rendered.text) if spells_special(rendered, template) else None
    if found is not None:
        message = f"it spells a special token and holds the private-use character U+{ord(found[0]):X}, so it cannot be escaped"
        raise TemplateRowError(message)


def _own(rendered: Rendered, template: ChatTemplate) -> list[tuple[int, int]]:
    """The special tokens that the template wrote itself: (start, end) in characters of the rendering."""
    spans: list[tuple[int, int]] = []
    position = 0
    for part in rendered.parts:
        if not part.content:
            spans += [(position + start, position + end) for start, end in template.specials(part.text)]
        position += len(part.text)
    return spans


def _interleave(chosen: NDArray[np.bool_], no: Encoded, yes: Encoded) -> Encoded:
    """Rows of two encodings in one order: row i comes from `yes` where chosen[i]."""
    rank = np.where(chosen, np.cumsum(chosen) - 1 + len(no.offsets) - 1, np.cumsum(~chosen) - 1)
    counts = np.concatenate([np.diff(no.offsets), np.diff(yes.offsets)])
    firsts = np.concatenate([no.offsets[:-1], yes.offsets[:-1] + len(no.ids)])[rank]
    counts = counts[rank]

    def rows(one: NDArray[Number], other: NDArray[Number]) -> NDArray[Number]:
        return runs_of(np.concatenate([one, other]), firsts, counts)

    ids, disagreed = rows(no.ids, yes.ids), no.disagreed + yes.disagreed
    if no.edges is None or yes.edges is None:
        return Encoded(ids, offsets_of(counts), rows(no.starts, yes.starts), disagreed=disagreed)
    kind = np.int32 if int(no.edges[-1]) + int(yes.edges[-1]) < 2**31 else np.int64
    edges = np.zeros(len(ids) + 1, kind)
    np.cumsum(rows(np.diff(no.edges), np.diff(yes.edges)), dtype=kind, out=edges[1:])
    return Encoded(ids, offsets_of(counts), edges=edges, disagreed=disagreed)


def chat_tokens(layouts: Layouts, encoded: Encoded) -> ChatTokens:
    """Find every block's and every trained span's tokens, for all rows at once; raises TemplateRowError where tokens run backwards."""
    found = _borders(layouts)
    line, base = _line(encoded, found.bytes)
    turns = np.bincount(found.turn_row, minlength=len(layouts)).astype(np.int64)
    turn_ends, span_ends = (
        (ends + base[row, None]).astype(line.dtype, copy=False).T
        for ends, row in ((found.turns, found.turn_row), (found.spans, found.span_row))
    )
    edges = np.stack([np.searchsorted(line, ends) for ends in turn_ends], 1)
    # Most times all of a response is trained but its end, and a search is a walk through memory: what is known is not looked for again.
    begins = edges[:, 0] if np.array_equal(turn_ends[0], span_ends[0]) else np.searchsorted(line, span_ends[0])
    spans = np.stack([begins, np.searchsorted(line, span_ends[1])], 1)
    responses, lengths, block_offsets = _blocks(edges, found.turn_row, turns, encoded.offsets)
    return ChatTokens(
        ids=encoded.ids,
        trained=marked(spans, len(encoded.ids)),
        offsets=encoded.offsets,
        responses=responses,
        lengths=lengths,
        block_offsets=block_offsets,
    )


def _line(encoded: Encoded, sizes: NDArray[np.int64]) -> tuple[NDArray[np.signedinteger[Any]], NDArray[np.int64]]:
    """Rows on one line of bytes, so that one search finds the tokens of all borders: where every token begins on it [T], and every row of
    `sizes` int64 [R] bytes, int64 [R]; raises TemplateRowError where tokens run backwards."""
    if encoded.edges is not None:
        return encoded.edges[:-1], encoded.edges[encoded.offsets[:-1]].astype(np.int64)
    # Tokens that a normaliser left without bytes may stand at a row's end: rows lie a byte apart.
    base = offsets_of(sizes + 1)[:-1]
    line = encoded.starts + np.repeat(base, np.diff(encoded.offsets))
    if len(line) and (np.diff(line) < 0).any():
        raise TemplateRowError("the tokenizer's offsets run backwards: its borders cannot be found")
    return line, base


def marked(spans: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Which of `size` tokens lie in one of the `spans` int64 [S, 2], in any order: bool [size]."""
    begins, ends = spans[np.argsort(spans[:, 0], kind="stable")].T
    ends = np.maximum.accumulate(ends)
    begins = np.maximum(begins, np.concatenate([np.zeros(1, np.int64), ends[:-1]])) if len(ends) else begins
    edges = np.concatenate([np.zeros(1, np.int64), np.stack([begins, ends], 1).ravel(), np.array([size])])
    return np.repeat(np.arange(len(edges) - 1) % 2 == 1, np.diff(edges))


@dataclass(frozen=True, slots=True)
class _Borders:
    """Of R conversations: `bytes` int64 [R]; the ends `turns` int64 [turns, 2] of responses in bytes of their row `turn_row` int64 [turns],
    which rises; and of what is trained, `spans` int64 [spans, 2] by `span_row` int64 [spans]."""

    bytes: NDArray[np.int64]
    turns: NDArray[np.int64]
    turn_row: NDArray[np.int64]
    spans: NDArray[np.int64]
    span_row: NDArray[np.int64]


def _borders(layouts: Layouts) -> _Borders:
    """Where responses and what is trained of them begin and end, in rendered rows one by one, in joined ones all at once."""
    laid = layouts.rendered
    turns = np.array([(i, t.start, t.end) for i, r in laid.items() for t in r.turns], np.int64).reshape(-1, 3)
    spans = np.array([(i, *s) for i, r in laid.items() for t in r.turns for s in t.trained], np.int64).reshape(-1, 3)
    size = np.zeros(len(layouts), np.int64)
    size[list(laid)] = [r.bytes for r in laid.values()]
    if layouts.outlines:
        of = np.delete(np.arange(len(layouts)), list(laid)) if laid else np.arange(len(layouts))
        size[of], more_turns, more_spans = _of_outlines(layouts.outlines, layouts.sizes)
        for more in (more_turns, more_spans):
            more[:, 0] = of[more[:, 0]]
        turns, spans = np.concatenate([turns, more_turns]), np.concatenate([spans, more_spans])
        turns = turns[np.argsort(turns[:, 0], kind="stable")] if laid else turns
    return _Borders(size, turns[:, 1:], turns[:, 0], spans[:, 1:], spans[:, 0])


def _of_outlines(
    outlines: Sequence[Outline], values: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Bytes int64 [R] of joined rows, and what their outlines say of them: (row, start, end) of responses and of what is trained."""
    _, first, of = np.unique(np.array(list(map(id, outlines))), return_index=True, return_inverse=True)
    shapes = [outlines[i] for i in first.tolist()]

    def each(arrays: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every row's array, end to end, and how long each is: an outline's, so few are looked at."""
        counts = np.array([len(array) for array in arrays])
        rows = counts[of]
        return np.concatenate(arrays)[np.repeat(offsets_of(counts)[of], rows) + within(rows)], rows

    gaps = np.array([len(o.parts) // 2 for o in shapes])[of]
    ends, first = offsets_of(np.array(values, np.int64)), offsets_of(gaps)

    def placed(edges: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        found, counts = each(edges)
        row = np.repeat(np.arange(len(outlines)), counts)
        before, own = np.moveaxis(found, 2, 0)
        begin = first[row, None]
        return np.column_stack([row, ends[begin + before] - ends[begin] + own])

    spans = placed([o.spans for o in shapes])
    turns = placed([o.turns for o in shapes])
    own = np.array([o.bytes for o in shapes])[of]
    return own + np.diff(ends[first]), turns, spans[spans[:, 1] < spans[:, 2]]


def _blocks(
    borders: NDArray[np.int64], turn_row: NDArray[np.int64], turns: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Blocks of all rows from the token borders [turns, 2] of their responses: a prompt before each, and one after the last."""
    rows = len(offsets) - 1
    per_row = 2 * turns + 1
    first = offsets_of(per_row)
    starts = np.empty(first[-1], np.int64)
    responses = np.zeros(first[-1], bool)
    starts[first[:-1]] = offsets[:-1]
    place = first[turn_row] + 2 * within(turns) + 1
    starts[place], starts[place + 1] = borders[:, 0], borders[:, 1]
    responses[place] = True
    ends = np.append(starts[1:], offsets[-1])
    lengths = ends - starts
    kept = lengths > 0
    block_row = np.repeat(np.arange(rows), per_row)
    counts = np.bincount(block_row[kept], minlength=rows).astype(np.int64)
    return responses[kept], lengths[kept], offsets_of(counts)
