"""What surveys keep of rows that are composed over a whole dataset, so that each is tokenised once: its tokens, and its blocks behind them.

What is trained, and which blocks are responses, stands in the sign: a token or a length that is not is kept as its complement:
all bits turned, which are turned back by those of the sign.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.chat_tokens import ChatTokens
from packing.kept import Kept, checksums, kept_runs, narrowed
from packing.plan import Inputs, Piece, Survey
from packing.runs import offsets_of, runs_of, within
from packing.skipalign_tokens import Batch, concatenate


def keep(batches: Iterable[Batch], piece: Piece) -> Survey:
    """The survey of a piece: of every row its `n_tokens` int32 (0: it gives none), its `turns` int32 (responses), how many `blocks` int32
    are kept behind its tokens, the `checksum` uint32 of both, its `id`, and whether it is a `document`."""
    found = list(batches)
    count = piece.rows
    n_tokens, turns, blocks = (np.zeros(count, np.int32) for _ in range(3))
    checksum, ids = np.zeros(count, np.uint32), np.full(count, "", object)
    kept: Kept = np.zeros(0, np.uint16)
    documents = bool(found) and found[0].documents
    if found:
        batch = concatenate(found)
        place, t = batch.index - piece.first_index, batch.tokens
        n_tokens[place], blocks[place] = np.diff(t.offsets), np.diff(t.block_offsets)
        turns[place] = np.diff(offsets_of(t.responses.astype(np.int64))[t.block_offsets])
        sizes = np.diff(t.offsets) + np.diff(t.block_offsets)
        of_token = _of_token(np.diff(t.offsets), np.diff(t.block_offsets))
        numbers = np.empty(len(of_token), np.int32)
        signs = t.trained.astype(np.int32)
        signs -= 1  # no bit of what is trained, every one of what is not
        numbers[of_token] = signs ^ t.ids
        numbers[~of_token] = np.where(t.responses, t.lengths, ~t.lengths)
        kept = narrowed(numbers)
        checksum[place] = checksums(kept, sizes)
        ids[place] = batch.ids
    columns = {"n_tokens": n_tokens, "turns": turns, "blocks": blocks, "checksum": checksum}
    table = pa.table({**columns, "id": pa.array(ids, pa.string()), "document": np.full(count, documents)})
    return Survey(table=table, kept=kept)


def rows_of(surveys: Sequence[pa.Table]) -> pa.Table:
    """The rows of all surveys with their number over all pieces (`row`), and where they are kept (`survey`, `offset`)."""
    parts: list[pa.Table] = []
    for number, survey in enumerate(surveys):
        n_tokens, blocks = (survey.column(name).to_numpy().astype(np.int64) for name in ("n_tokens", "blocks"))
        offset = pa.array(offsets_of(n_tokens + blocks)[:-1])
        part = survey.replace_schema_metadata(None).append_column("offset", offset)
        parts.append(part.append_column("survey", pa.array(np.full(len(offset), number, np.int32))))
    table = pa.concat_tables(parts).combine_chunks()
    return table.append_column("row", pa.array(np.arange(table.num_rows)))


def read(table: pa.Table, inputs: Inputs, rows: NDArray[np.int64]) -> Batch:
    """The rows `rows` int64 [R] (their numbers over all pieces, in any order, repeats allowed), as they were when they were kept, out of a
    table that `rows_of` made, or of some of its rows in their order; raises SourceError where they are not."""
    number, n_tokens, blocks = (
        table.column(name).to_numpy().astype(np.int64, copy=False) for name in ("row", "n_tokens", "blocks")
    )
    kept, starts = kept_runs(inputs, table, n_tokens + blocks)
    at = np.searchsorted(number, rows)
    starts, n_tokens, blocks = starts[at], n_tokens[at], blocks[at]
    tokens = runs_of(kept, starts, n_tokens).astype(np.int32, copy=False)
    lengths = kept[np.repeat(starts + n_tokens, blocks) + within(blocks)].astype(np.int64)
    return Batch(
        ids=table.column("id").take(pa.array(at)).to_pylist(),
        index=rows,
        documents=bool(table.column("document")[0].as_py()),
        tokens=ChatTokens(
            ids=tokens ^ (tokens >> 31),
            trained=tokens >= 0,
            offsets=offsets_of(n_tokens),
            responses=lengths >= 0,
            lengths=lengths ^ (lengths >> 63),
            block_offsets=offsets_of(blocks),
        ),
    )


def _of_token(n_tokens: NDArray[np.int64], blocks: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which kept numbers are tokens, and not lengths of blocks: bool [numbers]."""
    return np.repeat(np.tile([True, False], len(n_tokens)), np.stack([n_tokens, blocks], 1).ravel())
