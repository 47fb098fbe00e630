"""The units of a corpus: documents, or pieces of long ones, in an order that is drawn over the whole corpus.

A unit's place is a number of (seed, document, piece) alone, so every survey sorts its own units and leaves their tokens in that order:
what a shard needs, a run of the whole order, is one run in every piece of the source.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.corpus_tokens import CorpusSpec, TokenDocument, token_documents
from packing.dataset.errors import TokenizerError
from packing.document_tokens import eos_of
from packing.draws import Draws
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
    bos, eos = edges(spec, inputs)
    draws = Draws(spec.seed, "cip/order")
    rows: list[tuple[TokenDocument, NDArray[np.int64]]] = []
    for found in token_documents(spec, piece, inputs, tally):
        ids = _bare(found.ids, bos, eos)
        if not len(ids):
            tally.count("documents_without_tokens")
            continue
        document = TokenDocument(index=found.index, id=found.id, domain=found.domain, ids=ids, digest=found.digest)
        rows.append((document, cuts(len(ids), spec.order, spec.sequence_length, len(bos), len(eos))))
        tally.count("documents")
        tally.count("source_tokens", len(ids))
    table = pa.Table.from_batches([_batch(rows, draws, spread=spec.order in SPREAD)], UNITS)
    chosen = np.lexsort(
        (
            table.column("piece").to_numpy(),
            table.column("document").to_numpy(),
            table.column("key").to_numpy(),
            domain_numbers(table) if spec.strata else np.zeros(table.num_rows, np.int64),
        )
    )
    parts = [document.ids[a:b] for document, edge in rows for a, b in pairwise(edge)]
    kept = np.concatenate([*(parts[i] for i in chosen.tolist()), np.zeros(0, np.int32)])
    return Survey(table=table.take(pa.array(chosen)), kept=kept)


def domain_numbers(table: pa.Table) -> NDArray[np.int64]:
    """The number of every unit's domain among those there are, by name: int64 [U]."""
    names = table.column("domain").combine_chunks().dictionary_encode()
    place = np.argsort(np.argsort(np.array(names.dictionary.to_pylist(), object), kind="stable"), kind="stable")
    return place.astype(np.int64)[names.indices.to_numpy()]


SPREAD = frozenset({"interleave", "untie_knots"})
"""Orders under which the pieces of a long document are spread over the corpus, in their order."""


def cuts(tokens: int, order: str, sequence_length: int, bos: int, eos: int) -> NDArray[np.int64]:
    """Where a document of so many tokens is cut into units, ends included: int64 [units + 1].

    Under orders that interleave, into as few pieces of at most half a sequence as there can be, all about equal. Under `best_fit`, where it
    does not fit a row with the tokens around it, into rows full to the end and a rest. Under the others pieces are of a sequence's length,
    and lie end to end, so that they are seen nowhere.
    """
    if order in SPREAD:
        count = -(-tokens // (sequence_length // 2))
        return np.arange(count + 1) * tokens // count
    if order != "best_fit" or tokens + bos + eos <= sequence_length:
        most = sequence_length if order != "best_fit" else tokens
        return np.append(np.arange(0, tokens, most), tokens)
    inner = np.arange(sequence_length - bos, tokens, sequence_length)
    # A row with nothing but the last token would hold no text: the one before it gives up a token.
    alone = tokens + eos - (inner[-1] if len(inner) else -bos) > sequence_length
    inner = np.append(inner, tokens - 1) if alone else inner
    return np.concatenate([[0], inner, [tokens]])


def _bare(ids: NDArray[np.int32], bos: NDArray[np.int32], eos: NDArray[np.int32]) -> NDArray[np.int32]:
    """The tokens of a document that was tokenised elsewhere, without the ones that we put around it."""
    begin = int(len(bos) > 0 and len(ids) > 0 and ids[0] == bos[0])
    end = len(ids) - int(len(ids) > begin and ids[-1] == eos[0])
    return ids[begin:end]


def _batch(rows: list[tuple[TokenDocument, NDArray[np.int64]]], draws: Draws, *, spread: bool) -> pa.RecordBatch:
    counts = np.array([len(edge) - 1 for _, edge in rows], np.int64)
    index = np.array([document.index for document, _ in rows], np.int64)
    pieces = np.concatenate([*(np.arange(count) for count in counts.tolist()), np.zeros(0, np.int64)])
    starts = np.concatenate([*(edge[:-1] for _, edge in rows), np.zeros(0, np.int64)])
    ends = np.concatenate([*(edge[1:] for _, edge in rows), np.zeros(0, np.int64)])
    key = draws.uniform(np.repeat(index, counts), pieces if spread else 0)
    # The pieces of a document come in its order, wherever they come.
    key = key[np.lexsort((key, np.repeat(np.arange(len(rows)), counts)))]
    last = np.zeros(len(pieces), bool)
    last[np.cumsum(counts) - 1] = True

    def each(values: Iterator[object], kind: pa.DataType) -> pa.Array:
        return pa.array(list(values), kind).take(pa.array(np.repeat(np.arange(len(rows)), counts)))

    checksums = (zlib.crc32(document.ids[a:b].data) for document, edge in rows for a, b in pairwise(edge))
    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.repeat(index, counts)),
            pa.array(pieces.astype(np.int32)),
            pa.array(starts.astype(np.int32)),
            pa.array((ends - starts).astype(np.int32)),
            pa.array(last),
            pa.array(key),
            pa.array(list(checksums), pa.uint32()),
            each((document.id for document, _ in rows), pa.string()),
            each((document.domain for document, _ in rows), pa.string()),
            each((document.digest for document, _ in rows), pa.binary(16)),
        ],
        schema=UNITS,
    )
