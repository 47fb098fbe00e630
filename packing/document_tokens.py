"""Documents as token batches, for strategies that need no turns: plain text, or rows that are tokens already (kind cip).

A document is one block that is trained whole (its first token has nothing that predicts it). Text gets the end-of-sequence token behind
it, so that a model learns where a document ends; rows of tokens are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from packing.chat_tokens import ChatTokens, offsets_of
from packing.dataset.errors import BadRowError, TokenizerError
from packing.pieces import rows_at
from packing.plan import Inputs, Tally
from packing.records import Document, documents, first_is_document
from packing.skipalign_tokens import Batch, ChatSpec, fit
from packing.tokenizers import Tokenizer

IGNORED = -100
LOOKED_AT = 100
BATCH_ROWS = 512


def holds_documents(spec: ChatSpec, inputs: Inputs) -> bool:
    """Whether the source's rows are documents and not conversations, by the first of its rows that is either."""
    first = inputs.pieces[0]
    return first_is_document(inputs.read(first).slice(0, LOOKED_AT), container=first.container, columns=spec.columns)


def document_batches(
    spec: ChatSpec, inputs: Inputs, index: NDArray[np.int64], eos_token: str | None, tally: Tally
) -> Iterator[Batch]:
    """The documents among the source rows `index`, some hundred at a time, in order.

    Raises BadRowError for the first row that cannot be used, or counts such rows where the spec says so; TokenizerError where text needs
    an end-of-sequence token and none is known.
    """
    tokenizer = inputs.tokenizer
    for span in rows_at(inputs, index, most=BATCH_ROWS):
        kept: list[Document] = []
        found = documents(
            span.table,
            container=span.piece.container,
            name=span.piece.name,
            row=span.row.tolist(),
            index=span.index.tolist(),
            columns=spec.columns,
        )
        for item in found:
            tally.count("source_rows")
            reason = (
                unusable(item, tokenizer, spec.special_tokens_in_text) if isinstance(item, Document) else item.reason
            )
            if reason:
                bad = BadRowError(item.name, item.row, reason)
                tally.reject(bad, source=item.name, row=item.row, reason=reason, skip=spec.on_bad_row == "skip")
            elif isinstance(item, Document):
                kept.append(item)
        if kept:
            tokens = _tokens(kept, tokenizer, eos_token, tally=tally)
            indices = np.array([d.index for d in kept], np.int64)
            yield fit(spec, Batch(ids=[d.id for d in kept], index=indices, tokens=tokens, documents=True), tally)


def unusable(item: Document, tokenizer: Tokenizer, special_tokens: str) -> str:
    """Why a document cannot be used; empty where it can, and `item.escaped` is set where it spells a special token that stays text.
    `special_tokens` says what their spelling in a text is: escape, refuse, allow."""
    if item.ids is not None:
        highest = int(item.ids.max())
        if item.ids.min() < 0 or highest >= tokenizer.vocab_size:
            return f"it holds token {highest}, the tokenizer has {tokenizer.vocab_size}: another one made it"
        return ""
    if special_tokens == "allow" or not tokenizer.spells_special(item.text):
        return ""
    if special_tokens == "refuse":
        return "it spells a special token (special_tokens_in_text: refuse)"
    if tokenizer.guard_characters.search(item.text):
        return (
            "it spells a special token and holds a private-use character that stands for one, so it cannot be escaped"
        )
    item.escaped = True
    return ""


def _encoded(found: list[Document], tokenizer: Tokenizer, *, tally: Tally) -> Iterator[NDArray[np.int32]]:
    """Token ids of every text, in order; where it is escaped, a special token's spelling stays text."""
    plain = tokenizer.encode([d.text for d in found if not d.escaped])
    spelled = [d.text for d in found if d.escaped]
    guarded = tokenizer.encode_escaped(spelled, [()] * len(spelled)) if spelled else plain
    tally.count("tokenizer_disagreements", plain.disagreed + (guarded.disagreed if spelled else 0))
    seen = {False: 0, True: 0}
    for document in found:
        encoded, number = (guarded if document.escaped else plain), seen[document.escaped]
        seen[document.escaped] += 1
        yield encoded.ids[encoded.offsets[number] : encoded.offsets[number + 1]]


def _tokens(found: list[Document], tokenizer: Tokenizer, eos_token: str | None, *, tally: Tally) -> ChatTokens:
    texts = [d for d in found if d.ids is None]
    encoded = _encoded(texts, tokenizer, tally=tally)
    end = np.array([eos_of(tokenizer, eos_token)] if texts else [], np.int32)
    rows = [np.concatenate([next(encoded), end]) if d.ids is None else d.ids for d in found]
    trained = [
        np.ones(len(row), bool) if d.labels is None else d.labels != IGNORED for d, row in zip(found, rows, strict=True)
    ]
    offsets = offsets_of(np.array([len(row) for row in rows], np.int64))
    return ChatTokens(
        ids=np.concatenate(rows),
        trained=np.concatenate(trained),
        offsets=offsets,
        responses=np.ones(len(rows), bool),
        lengths=np.diff(offsets),
        block_offsets=np.arange(len(rows) + 1),
    )


def eos_of(tokenizer: Tokenizer, eos_token: str | None) -> int:
    """The id of the token that ends a document: the one named, else the tokenizer's; raises TokenizerError where there is none."""
    name = eos_token or tokenizer.eos_token
    if name is None or name not in tokenizer.special:
        message = (
            f"the tokenizer {tokenizer.name!r} has no special token {name!r} to end a document with: name one as eos_token"
            if name
            else f"the tokenizer {tokenizer.name!r} names no eos_token: say eos_token in the spec"
        )
        raise TokenizerError(message, param="/eos_token")
    return tokenizer.special[name]
