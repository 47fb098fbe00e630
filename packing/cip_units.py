"""The units of a corpus: documents, or pieces of long ones, in an order that is drawn over the whole corpus.

A unit's place is a number of (seed, document, piece) alone, so every survey sorts its own units and leaves their tokens in that order:
what a shard needs, a run of the whole order, is one run in every piece of the source.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.chat_tokens import within
from packing.corpus_tokens import CorpusSpec, TokenDocument, token_documents
from packing.dataset.errors import TokenizerError
from packing.document_tokens import eos_of
from packing.draws import Draws
from packing.kept import checksums, narrowed
from packing.plan import Inputs, Piece, Survey, Tally

UNITS = pa.schema(
    [
        pa.field("document", pa.int64()),
        pa.field("piece", pa.int32()),
        pa.field("start", pa.int32()),
        pa.field("length", pa.int32()),
        pa.field("last", pa.bool_()),
        pa.field("key", pa.float64()),
        pa.field("checksum", pa.uint32()),
        pa.field("id", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("digest", pa.binary(16)),
    ]
)
"""A unit: tokens `start` to `start + length` of source row `document`, the document's piece number `piece`; `last` says that it is the
last; `key` in [0, 1) is its place in the order; `checksum` is the CRC-32 of its tokens; `digest` is of the whole document."""


class UnitSpec(CorpusSpec, Protocol):
    """What a spec says of how documents become units."""

    @property
    def seed(self) -> int: ...
    @property
    def order(self) -> str: ...
    @property
    def sequence_length(self) -> int: ...
    @property
    def strata(self) -> bool: ...
    @property
    def eos_token(self) -> str | None: ...
    @property
    def bos(self) -> str: ...


def edges(spec: UnitSpec, inputs: Inputs) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The tokens before a document and behind it: int32 [0 or 1] and [1]. Raises TokenizerError where there is none that ends it, or none
    that begins it and the spec wants one."""
    tokenizer = inputs.tokenizer
    name = tokenizer.opening if spec.bos == "auto" else tokenizer.bos_token if spec.bos == "document" else None
    if spec.bos == "document" and (name is None or name not in tokenizer.special):
        message = f"the tokenizer {tokenizer.name!r} has no bos_token to begin a document with: say bos: auto or none"
        raise TokenizerError(message, param="/bos")
    bos = [tokenizer.special[name]] if name in tokenizer.special else []
    return np.array(bos, np.int32), np.array([eos_of(tokenizer, spec.eos_token)], np.int32)


def units(spec: UnitSpec, piece: Piece, inputs: Inputs, tally: Tally) -> Survey:
    """The units of a piece, sorted by their place, and their tokens in that order; documents and tokens are counted."""
    bos, eos = (side.tolist() for side in edges(spec, inputs))
    draws = Draws(spec.seed, "cip/order")
    documents: list[TokenDocument] = []
    cut: list[list[int]] = []
    for found in token_documents(spec, piece, inputs, tally):
        found.ids = _bare(found.ids, bos, eos)
        if not len(found.ids):
            tally.count("documents_without_tokens")
            continue
        documents.append(found)
        cut.append(cuts(len(found.ids), spec.order, spec.sequence_length, len(bos), len(eos)))
    if documents:
        tally.count("documents", len(documents))
        tally.count("source_tokens", sum(edge[-1] for edge in cut))
    table = pa.Table.from_batches([_batch(documents, cut, draws, spread=spec.order in SPREAD)], UNITS)
    chosen = np.lexsort(
        (
            table.column("piece").to_numpy(),
            table.column("document").to_numpy(),
            table.column("key").to_numpy(),
            domain_numbers(table) if spec.strata else np.zeros(table.num_rows, np.int64),
        )
    )
    parts = [document.ids[a:b] for document, edge in zip(documents, cut, strict=True) for a, b in pairwise(edge)]
    kept = narrowed(np.concatenate([*(parts[i] for i in chosen.tolist()), np.zeros(0, np.int32)]))
    table = table.take(pa.array(chosen))
    found = checksums(kept, table.column("length").to_numpy().astype(np.int64))
    return Survey(
        table=table.set_column(UNITS.get_field_index("checksum"), UNITS.field("checksum"), pa.array(found)), kept=kept
    )


def domain_numbers(table: pa.Table) -> NDArray[np.int64]:
    """The number of every unit's domain among those there are, by name: int64 [U]."""
    names = table.column("domain").combine_chunks().dictionary_encode()
    place = np.argsort(np.argsort(np.array(names.dictionary.to_pylist(), object), kind="stable"), kind="stable")
    return place.astype(np.int64)[names.indices.to_numpy()]


_FIRSTS, _ENDS = slice(None, -1), slice(1, None)
SPREAD = frozenset({"interleave", "untie_knots"})
"""Orders under which the pieces of a long document are spread over the corpus, in their order."""


def cuts(tokens: int, order: str, sequence_length: int, bos: int, eos: int) -> list[int]:
    """Where a document of so many tokens is cut into units, ends included.

    Under orders that interleave, into as few pieces of at most half a sequence as there can be, all about equal. Under `best_fit`, where it
    does not fit a row with the tokens around it, into rows full to the end and a rest. Under the others pieces are of a sequence's length,
    and lie end to end, so that they are seen nowhere.
    """
    if order in SPREAD:
        count = -(-tokens // (sequence_length // 2))
        return [i * tokens // count for i in range(count + 1)]
    if order != "best_fit" or tokens + bos + eos <= sequence_length:
        return [*range(0, tokens, sequence_length if order != "best_fit" else tokens), tokens]
    inner = list(range(sequence_length - bos, tokens, sequence_length))
    # A row with nothing but the last token would hold no text: the one before it gives up a token.
    alone = tokens + eos - (inner[-1] if inner else -bos) > sequence_length
    return [0, *inner, *([tokens - 1] if alone else []), tokens]


def _bare(ids: NDArray[np.int32], bos: list[int], eos: list[int]) -> NDArray[np.int32]:
    """The tokens of a document that was tokenised elsewhere, without the ones that we put around it."""
    if not len(ids):
        return ids
    begin = int(bool(bos) and ids.item(0) == bos[0])
    end = len(ids) - int(len(ids) > begin and ids.item(-1) == eos[0])
    return ids[begin:end] if begin or end < len(ids) else ids


def _batch(documents: list[TokenDocument], cut: list[list[int]], draws: Draws, *, spread: bool) -> pa.RecordBatch:
    counts = np.array([len(edge) - 1 for edge in cut], np.int64)
    index = np.array([document.index for document in documents], np.int64)
    pieces = within(counts)
    starts, ends = (np.fromiter(chain.from_iterable(edge[part] for edge in cut), np.int64) for part in (_FIRSTS, _ENDS))
    key = draws.uniform(np.repeat(index, counts), pieces if spread else 0)
    # The pieces of a document come in its order, wherever they come.
    of = np.repeat(np.arange(len(documents)), counts)
    key = key[np.lexsort((key, of))]
    last = np.zeros(len(pieces), bool)
    last[np.cumsum(counts) - 1] = True

    def each(values: Iterator[object], kind: pa.DataType) -> pa.Array:
        return pa.array(list(values), kind).take(pa.array(of))

    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.repeat(index, counts)),
            pa.array(pieces.astype(np.int32)),
            pa.array(starts.astype(np.int32)),
            pa.array((ends - starts).astype(np.int32)),
            pa.array(last),
            pa.array(key),
            pa.array(np.zeros(len(pieces), np.uint32)),
            each((document.id for document in documents), pa.string()),
            each((document.domain for document in documents), pa.string()),
            each((document.digest for document in documents), pa.binary(16)),
        ],
        schema=UNITS,
    )
