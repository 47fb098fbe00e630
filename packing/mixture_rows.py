"""Rows of a part as rows of tokens: conversations and texts tokenised, tokens taken as they are; and rows of a shard laid out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing import skipalign
from packing.chat_tokens import offsets_of
from packing.dataset import schema
from packing.document_tokens import document_batches, holds_documents
from packing.plan import Inputs, Piece, Tally
from packing.skipalign_rows import lists
from packing.spec import Columns, Source
from packing.token_rows import ROLES, TokenRows, from_table, has_tokens, joined, jumps
from packing.tokenizers import Tokenizer

LONGEST = 2**24


class TokensSpec(Protocol):
    """What a spec says of how messages become tokens."""

    @property
    def on_bad_row(self) -> str: ...
    @property
    def chat_template(self) -> str | None: ...
    @property
    def eos_token(self) -> str | None: ...
    @property
    def template_date(self) -> date: ...
    @property
    def train_on(self) -> str: ...
    @property
    def thinking(self) -> str: ...
    @property
    def special_tokens_in_text(self) -> str: ...


class OnePiece:
    """Inputs that have one piece and nothing else."""

    def __init__(self, inputs: Inputs, piece: Piece) -> None:
        self._inputs = inputs
        self._piece = piece

    @property
    def pieces(self) -> Sequence[Piece]:
        """The piece."""
        return (self._piece,)

    @property
    def tokenizer(self) -> Tokenizer:
        """The spec's tokenizer."""
        return self._inputs.tokenizer

    def read(self, piece: Piece) -> pa.Table:
        """The rows of the piece."""
        return self._inputs.read(piece)

    def kept(self, number: int, spans: NDArray[np.int64]) -> NDArray[np.int32]:
        """What surveys kept is not for a survey."""
        raise AssertionError(number, spans)


def part_rows(spec: TokensSpec, columns: Columns, piece: Piece, inputs: Inputs, tally: Tally) -> TokenRows:
    """The rows of a piece of a part, in the order of their source; bad ones are refused or counted as the spec says."""
    table = inputs.read(piece)
    index = np.arange(piece.first_index, piece.first_index + piece.rows)
    if has_tokens(table, piece.container):
        tally.count("source_rows", piece.rows)
        return from_table(table, index, name=piece.name, vocab_size=inputs.tokenizer.vocab_size)
    plain = skipalign.Spec(
        kind="skipalign",
        source=Source(path="part"),
        strategy="none",
        columns=columns,
        on_bad_row="skip" if spec.on_bad_row == "skip" else "fail",
        chat_template=spec.chat_template,
        eos_token=spec.eos_token,
        template_date=spec.template_date,
        train_on="last" if spec.train_on == "last" else "all",
        thinking="mask" if spec.thinking == "mask" else "train",
        special_tokens_in_text=spec.special_tokens_in_text,  # pyright: ignore[reportArgumentType] (the same words)
        max_length=LONGEST,
    )
    return _tokenised(plain, OnePiece(inputs, piece), index, tally)


def _tokenised(spec: skipalign.Spec, inputs: Inputs, index: NDArray[np.int64], tally: Tally) -> TokenRows:
    """Conversations or texts as plain rows: contiguous positions, labels on the responses."""
    if holds_documents(spec, inputs):
        batches = document_batches(spec, inputs, index, spec.eos_token, tally)
    else:
        batches = skipalign.conversation_batches(spec, inputs, index, tally)
    empty = schema.SKIPALIGN.empty_table()
    vocab_size = inputs.tokenizer.vocab_size
    found = [from_table(empty, np.zeros(0, np.int64), name="", vocab_size=vocab_size)]
    for batch in batches:
        count = len(batch.ids)
        if count:
            one = np.ones(count, np.int64)
            rows = skipalign.lay_out(spec, batch, np.zeros(count, np.int64), one, one, Tally())
            found.append(from_table(pa.Table.from_batches([rows]), batch.index, name="", vocab_size=vocab_size))
    return joined(found)


def laid_out(rows: TokenRows, unit: NDArray[np.int64], part: pa.Array) -> pa.RecordBatch:
    """Rows of the mixture schema: source rows with the same `unit` int64 [R] (rising by one) lie in one row; `part` names each one's."""
    first = np.flatnonzero(np.diff(unit, prepend=-1))
    edge = np.append(first, len(unit))
    tokens, sequences, blocks = (offsets[edge] for offsets in (rows.tokens, rows.sequences, rows.blocks))
    start = offsets_of(rows.block_lengths.astype(np.int64))[:-1] - np.repeat(tokens[:-1], np.diff(blocks))
    roles = pa.array(list(ROLES)).take(pa.array(rows.roles))
    numbers = (pa.array(a.astype(np.int32)) for a in (start, rows.block_lengths, rows.biases))
    structs = pa.StructArray.from_arrays([roles, *numbers], fields=list(schema.BLOCK))
    reasons, names = rows.reasons.flatten(), rows.names.flatten()
    skipped = np.add.reduceat(jumps(rows), sequences[:-1]) > 0
    texts = schema.list_of(pa.string())
    names_edge = offsets_of(np.diff(rows.names.offsets.to_numpy().astype(np.int64)))[edge]
    return pa.RecordBatch.from_arrays(
        [
            *(lists(tokens, pa.array(a), schema.TOKENS) for a in (rows.ids, rows.labels, rows.positions)),
            lists(sequences, pa.array(rows.lengths), schema.TOKENS),
            lists(blocks, structs, schema.list_of(schema.BLOCK)),
            pa.array(skipped),
            lists(sequences, reasons, texts),
            lists(names_edge, names, texts),
            pa.array(np.diff(tokens).astype(np.int32)),
            part.take(pa.array(first)),
            pa.array(rows.index[first]),
            lists(edge, pa.array(rows.index), schema.list_of(pa.int64())),
        ],
        schema=schema.MIXTURE,
    )
