"""Documents of a corpus as tokens, each tokenised whole, in memory that does not grow with their lengths.

An engine takes some hundred bytes a token while it works, so texts go through it a megabyte at a time. A longer text is encoded in
stretches that overlap: one ends where a line or a word begins in its tokens, the next begins there, and must give the same tokens for
what both have seen. Where it does not, the text is encoded in one go after all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.dataset.errors import BadRowError, InputError
from packing.document_tokens import unusable
from packing.plan import Inputs, Piece, Tally
from packing.records import Document, documents
from packing.spec import Columns
from packing.tokenizers import Encoded, Tokenizer, utf8_length

BATCH_CHARACTERS = 1024 * 1024
STRETCH = 1024 * 1024
OVERLAP = 8192
"""Characters that two neighbouring stretches both encode."""
UNSURE = 64
"""Tokens before the end of a stretch that its end may have changed."""
TRIES = 8
NO_DIGEST = bytes(16)


class CorpusSpec(Protocol):
    """What a spec says of how documents become tokens."""

    @property
    def columns(self) -> Columns: ...
    @property
    def on_bad_row(self) -> str: ...
    @property
    def special_tokens_in_text(self) -> str: ...
    @property
    def max_document_bytes(self) -> int: ...
    @property
    def deduplicate(self) -> bool: ...


@dataclass(slots=True, kw_only=True)
class TokenDocument:
    """A document as `ids` int32 [n]; `index` counts source rows from 0; `digest` is of its content, 16 bytes, where
    equal documents are to be found; else zeros."""

    index: int
    id: str
    domain: str
    ids: NDArray[np.int32]
    digest: bytes


def token_documents(spec: CorpusSpec, piece: Piece, inputs: Inputs, tally: Tally) -> Iterator[TokenDocument]:
    """The documents of a piece in order. Raises BadRowError for the first row that cannot be used, or counts such rows where the spec says
    so; InputError where the piece has no column that the spec names."""
    table, tokenizer = inputs.read(piece), inputs.tokenizer
    _require_columns(spec, piece, table)
    waiting: list[Document] = []
    held = rows = 0
    for item in documents(
        table,
        container=piece.container,
        name=piece.name,
        row=range(piece.first_row, piece.first_row + piece.rows),
        index=range(piece.first_index, piece.first_index + piece.rows),
        columns=spec.columns,
    ):
        rows += 1
        reason = _unusable(item, spec, tokenizer) if isinstance(item, Document) else item.reason
        if reason:
            bad = BadRowError(item.name, item.row, reason)
            tally.reject(bad, source=item.name, row=item.row, reason=reason, skip=spec.on_bad_row == "skip")
        elif isinstance(item, Document):
            waiting.append(item)
            held += len(item.text)
            if held >= BATCH_CHARACTERS:
                yield from _encoded(waiting, spec, tokenizer, tally)
                waiting, held = [], 0
    if rows:
        tally.count("source_rows", rows)
    yield from _encoded(waiting, spec, tokenizer, tally)


def _require_columns(spec: CorpusSpec, piece: Piece, table: pa.Table) -> None:
    """A column that is named and missing is an error of the spec, not of every row."""
    if piece.container != "columns":
        return
    for field in ("text", "id", "domain"):
        name = getattr(spec.columns, field)
        if name is not None and name not in table.column_names:
            message = f"{piece.name} has no column {name!r}; it has {', '.join(table.column_names)}"
            raise InputError(message, param=f"/columns/{field}")


def _unusable(item: Document, spec: CorpusSpec, tokenizer: Tokenizer) -> str:
    # No character takes more than four bytes: most texts need not be counted.
    size = len(item.text) * 4
    if size > spec.max_document_bytes and (size := utf8_length(item.text)) > spec.max_document_bytes:
        return f"its text has {size} bytes, more than max_document_bytes ({spec.max_document_bytes})"
    return unusable(item, tokenizer, spec.special_tokens_in_text)


def _encoded(
    items: Sequence[Document], spec: CorpusSpec, tokenizer: Tokenizer, tally: Tally
) -> Iterator[TokenDocument]:
    short = [d.text if not d.escaped and len(d.text) <= STRETCH else "" for d in items]
    whole = tokenizer.encode(short)
    tally.count("tokenizer_disagreements", whole.disagreed)
    edges = whole.offsets.tolist()
    for i, item in enumerate(items):
        if item.ids is not None:
            ids = item.ids
        elif short[i]:
            ids = whole.ids[edges[i] : edges[i + 1]]
        else:
            ids = encode_long(item.text, tokenizer, escaped=item.escaped)
        digest = NO_DIGEST
        if spec.deduplicate:
            content = item.text.encode() if item.ids is None else item.ids.tobytes()
            digest = hashlib.blake2b(content, digest_size=16).digest()
        yield TokenDocument(index=item.index, id=item.id, domain=item.domain, ids=ids, digest=digest)


def encode_long(text: str, tokenizer: Tokenizer, *, escaped: bool, stretch: int = STRETCH) -> NDArray[np.int32]:
    """The tokens of a text, int32 [n], the very ones that encoding it whole gives; `escaped` keeps spelled special tokens text."""

    def encode(part: str) -> Encoded:
        return tokenizer.encode_escaped([part], [()]) if escaped else tokenizer.encode([part])

    # Nearly always a token takes a byte of its text or more; pages that no token reaches take no memory.
    found, filled = np.empty(utf8_length(text), np.int32), 0
    begin = 0
    window = text[: stretch + OVERLAP]
    here = encode(window)
    while begin + len(window) < len(text):
        step = _next_stretch(text, begin, window, here, stretch, encode)
        if step is None:
            return encode(text).ids
        taken, begin, window, following = step
        found, filled = _put(found, filled, here.ids[:taken])
        here = following
    found, filled = _put(found, filled, here.ids)
    return found[:filled]


def _put(found: NDArray[np.int32], filled: int, ids: NDArray[np.int32]) -> tuple[NDArray[np.int32], int]:
    """`ids` behind the first `filled` of `found`, which grows where a normaliser has made more tokens than bytes."""
    end = filled + len(ids)
    if end > len(found):
        found = np.concatenate([found[:filled], np.empty(2 * end, np.int32)])
    found[filled:end] = ids
    return found, end


def _next_stretch(
    text: str, begin: int, window: str, here: Encoded, stretch: int, encode: _Encode
) -> tuple[int, int, str, Encoded] | None:
    """(tokens of this stretch that count, where the next begins, its text, its tokens); None where no seam holds."""
    for cut in _seams(window, min(stretch, len(window) - OVERLAP // 2)):
        byte = utf8_length(window[:cut])
        taken = int(np.searchsorted(here.starts, byte))
        if taken == len(here.starts) or here.starts[taken] != byte:
            continue
        following_text = text[begin + cut : begin + cut + stretch + OVERLAP]
        following = encode(following_text)
        seen = here.ids[taken : len(here.ids) - UNSURE]
        if len(seen) and np.array_equal(following.ids[: len(seen)], seen):
            return taken, begin + cut, following_text, following
    return None


def _seams(window: str, most: int) -> Iterator[int]:
    """A few places up to `most` at which a line begins, then some at which a word does."""
    for sign in ("\n", " "):
        place = most
        for _ in range(TRIES // 2):
            place = window.rfind(sign, 1, place)
            if place < 0:
                break
            # A newline ends what came before; a space begins the word behind it.
            cut = place + 1 if sign == "\n" else place
            if window[place + 1 : place + 2].isalnum():
                yield cut


class _Encode(Protocol):
    def __call__(self, part: str, /) -> Encoded: ...
