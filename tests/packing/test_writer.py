"""The canonical writer, its digests, and what a damaged file does to a reader."""

from __future__ import annotations

import hashlib
import io
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packing.dataset import writer
from packing.dataset.digest import ContentDigest
from packing.dataset.errors import DatasetError
from packing.dataset.reader import open_parquet, read_rows
from packing.dataset.schema import list_of
from packing.dataset.writer import write_shard

SCHEMA = pa.schema(
    [
        pa.field("input_ids", list_of(pa.int32()), nullable=False),
        pa.field("position_ids", list_of(pa.int32()), nullable=False),
        pa.field("text", pa.string()),
        pa.field("blocks", list_of(pa.struct([pa.field("role", pa.string()), pa.field("start", pa.int32())]))),
        pa.field("n_tokens", pa.int32(), nullable=False),
    ]
)


def rows(count: int, *, longest: int = 50) -> pa.RecordBatch:
    draws = np.random.default_rng(count)
    sizes = draws.integers(0, longest, count)
    return pa.RecordBatch.from_pydict(
        {
            "input_ids": [draws.integers(0, 1000, n).astype(np.int32) for n in sizes],
            "position_ids": [np.arange(n, dtype=np.int32) for n in sizes],
            "text": [None if n % 5 == 0 else f"é{n}" for n in sizes],
            "blocks": [[{"role": "user", "start": int(n)}] * int(n % 3) for n in sizes],
            "n_tokens": sizes.astype(np.int32),
        },
        schema=SCHEMA,
    )


def written(batches):
    sink = io.BytesIO()
    return write_shard(batches, SCHEMA, sink), sink.getvalue()


@pytest.mark.parametrize("step", [1, 7, 1024, 5000])
def test_batches_leave_no_trace(step):
    batch = rows(3000)
    first, data = written([batch])
    again, other = written([batch.slice(i, step) for i in range(0, 3000, step)])
    assert data == other
    assert first == again
    assert first.sha256 == hashlib.sha256(data).hexdigest()
    assert (first.rows, first.bytes) == (3000, len(data))
    assert first.tokens == batch.column("n_tokens").to_numpy().sum()


def test_rows_come_back_as_they_went_in():
    batch = rows(2500)
    _, data = written([batch])
    assert pq.read_table(io.BytesIO(data)).equals(pa.Table.from_batches([batch]).cast(SCHEMA))


def test_row_groups_are_bounded_by_rows_and_tokens(monkeypatch):
    monkeypatch.setattr(writer, "GROUP_TOKENS", 500)
    _, data = written([rows(400)])
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    table = pq.read_table(io.BytesIO(data))
    assert metadata.num_row_groups > 10
    start = 0
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).num_rows
        tokens = table.column("n_tokens").slice(start, size).to_numpy()
        assert tokens[:-1].sum() < 500
        start += size
    assert start == 400


def test_a_batch_that_is_a_row_group_is_written_as_it_lies(monkeypatch):
    monkeypatch.setattr(writer, "GROUP_TOKENS", 100)
    monkeypatch.setattr(writer, "GROUP_ROWS", 7)
    batch = rows(400)
    ends = writer.group_ends(batch.column("n_tokens").to_numpy().astype(np.int64))
    groups = list(writer.row_groups([batch.slice(0, 90), batch.slice(90)], SCHEMA))
    assert [group.num_rows for group in groups] == np.diff([0, *ends]).tolist()
    assert len(set(np.diff([0, *ends]).tolist())) > 2  # some by rows, some by tokens, a rest
    parts = [batch.slice(a, b - a) for a, b in itertools.pairwise([0, *ends])]
    for part, group in zip(parts, writer.row_groups(parts, SCHEMA), strict=True):
        at = part.column("input_ids").values.buffers()[1].address
        assert group.column("input_ids").chunk(0).values.buffers()[1].address == at


def test_columns_are_encoded_as_measured():
    _, data = written([rows(2000)])
    column = {c.path_in_schema: c for c in map(pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column, range(6))}
    for name in ("input_ids", "position_ids"):
        assert "BYTE_STREAM_SPLIT" in column[f"{name}.list.element"].encodings
    assert not any("DICT" in e for e in column["input_ids.list.element"].encodings)
    assert all(c.compression == "ZSTD" for c in column.values())


def test_the_content_digest_knows_values_and_not_their_layout():
    def digest(*batches: pa.RecordBatch) -> str:
        content = ContentDigest(SCHEMA)
        for batch in batches:
            content.update(batch)
        return content.hexdigest()

    batch = rows(600)
    whole = digest(batch)
    assert whole == digest(*(batch.slice(i, 70) for i in range(0, 600, 70)))
    seen = {whole, digest(batch.slice(1)), digest(batch.slice(0, 599)), digest(batch.slice(1), batch.slice(0, 1))}
    table = batch.to_pydict()
    for name in ("input_ids", "text", "blocks", "n_tokens"):
        changed = {k: list(v) for k, v in table.items()}
        changed[name][300], changed[name][301] = changed[name][301], changed[name][300]
        assert changed[name] != table[name], "the swap must change something"
        seen.add(digest(pa.RecordBatch.from_pydict(changed, schema=SCHEMA)))
    assert len(seen) == 8


def test_every_flipped_bit_is_noticed_on_reading():
    _, data = written([rows(3000)])
    caught = flipped = 0
    # page data only: what the footer says is checked against the manifest's digest, which verify does first
    end = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(2).column(5).data_page_offset
    whole = pq.read_table(io.BytesIO(data))
    for place in np.random.default_rng(0).integers(4, end, 60):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(place % 8)
        flipped += 1
        try:
            with open_parquet(io.BytesIO(bytes(damaged)), name="x") as parquet:
                table = pa.Table.from_batches(read_rows(parquet, name="x"))
            assert table.equals(whole), "damage was read as if it were data"
        except DatasetError as error:
            assert "x" in error.message
            caught += 1
    assert flipped == 60
    assert caught >= 55, "page headers are not covered by checksums, pages are"
