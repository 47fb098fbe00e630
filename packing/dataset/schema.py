"""The columns of the rows we write, as Arrow schemas: names and types are the contract with every trainer.

Field names inside lists are Parquet's own (`element`), so that every reader agrees on the leaf paths.
"""

from __future__ import annotations

import pyarrow as pa


def list_of(element: pa.DataType) -> pa.DataType:
    """A list without nulls inside."""
    return pa.list_(pa.field("element", element, nullable=False))


TOKENS = list_of(pa.int32())

BLOCK = pa.struct(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("bias", pa.int32(), nullable=False),
    ]
)

SKIPALIGN = pa.schema(
    [
        pa.field("input_ids", TOKENS, nullable=False),
        pa.field("labels", TOKENS, nullable=False),
        pa.field("position_ids", TOKENS, nullable=False),
        pa.field("seq_lengths", TOKENS, nullable=False),
        pa.field("blocks", list_of(BLOCK), nullable=False),
        pa.field("skipped", pa.bool_(), nullable=False),
        pa.field("reasons", list_of(pa.string()), nullable=False),
        pa.field("source_ids", list_of(pa.string()), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
    ]
)
"""A row of instruction tokens: `labels` are unshifted (the id itself on trained tokens, -100 elsewhere), `position_ids` start at 0 in
every sequence and may jump, `seq_lengths` are the boundaries (they add up to the row), `reasons` has one entry a sequence."""

SEGMENT = pa.struct(
    [
        pa.field("document", pa.string(), nullable=False),
        pa.field("chunk", pa.int32(), nullable=False),
        pa.field("source_start", pa.int32(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
    ]
)

CIP = pa.schema(
    [
        pa.field("input_ids", TOKENS, nullable=False),
        pa.field("labels", TOKENS, nullable=False),
        pa.field("seq_lengths", TOKENS, nullable=False),
        pa.field("segments", list_of(SEGMENT), nullable=False),
        pa.field("source_rows", list_of(pa.int64()), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
    ]
)
"""A row of pretraining tokens: `labels` are unshifted (-100 at the first token of a sequence and on marks that are not to be learnt),
`segments` say of every run of a document's tokens which document and chunk it is, where it begins in the document (in tokens) and in the
row, `source_rows` has the number of each segment's row in the source, from 0."""

MIXTURE = pa.schema(
    [
        *SKIPALIGN,
        pa.field("part", pa.string(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("source_rows", list_of(pa.int64()), nullable=False),
    ]
)
"""A row of a mixture: that of SKIPALIGN, the name of the part it is from, and its number there, from 0; `source_rows` has the numbers of
all rows that were packed into it, of which `source_row` is the first."""

MESSAGE = pa.struct([pa.field("role", pa.string(), nullable=False), pa.field("content", pa.string(), nullable=False)])

NEEDLE_SPAN = pa.struct(
    [
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("depth", pa.float64(), nullable=False),
    ]
)

NEEDLE = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("depth", pa.float64(), nullable=True),
        pa.field("locale", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("answer_prefix", pa.string(), nullable=False),
        pa.field("answer_budget", pa.int32(), nullable=False),
        pa.field("outputs", list_of(pa.string()), nullable=False),
        pa.field("distractors", list_of(pa.string()), nullable=False),
        pa.field("question_start", pa.int32(), nullable=False),
        pa.field("messages", list_of(MESSAGE), nullable=False),
        pa.field("needles", list_of(NEEDLE_SPAN), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
    ]
)
"""A needle probe. `n_tokens` counts input and answer_prefix, without special tokens; `needles` are the token spans (of input) that hold
the answers, with the share (0 to 100) of the context before them; `distractors` are wrong answers that stand in the context;
`question_start` is the code point of input where the question begins; `depth` is null for tasks that have none."""

SPLIT_COLUMNS = ("input_ids", "labels", "position_ids")
"""Columns whose values lie on disk byte by byte (BYTE_STREAM_SPLIT, of integers since Parquet's format 2.11), by measurement
(docs/performance.md): of ids the high bytes say little, and the low bytes of positions come round every 256 tokens."""

EVIDENCE = pa.struct(
    [
        pa.field("question", pa.int32(), nullable=False),
        pa.field("message", pa.int32(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
    ]
)

SYNL = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("locale", pa.string(), nullable=False),
        pa.field("messages", list_of(MESSAGE), nullable=False),
        pa.field("queries", list_of(pa.string()), nullable=False),
        pa.field("answers", list_of(pa.string()), nullable=False),
        pa.field("evidence", list_of(EVIDENCE), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
    ]
)
"""A conversation about a table: `queries` and `answers` have one entry a question, `evidence` are the rows each question needs, from
`start` to `end` in code points of the content of message `message`; `task` and `family` are the first question's."""
