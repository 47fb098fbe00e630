"""Order, resumption and damage of the row stream, from a directory."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packing.dataset.errors import DatasetError
from packing.dataset.manifest import NAME, Manifest
from tests.training.conftest import CIP, token_rows, write_dataset
from training.source import open_source
from training.stream import DataState, Row, RowStream, contiguous_positions, permutation


def stream_of(folder: Path, seed: int = 3) -> RowStream:
    return RowStream(open_source(str(folder)), seed=seed)


def take(stream: RowStream, count: int, start: DataState | None = None) -> list[tuple[Row, DataState]]:
    return list(itertools.islice(stream.rows_from(start or DataState()), count))


def names(rows: list[tuple[Row, DataState]]) -> list[str]:
    return [row.name for row, _ in rows]


def test_an_epoch_holds_every_row_once_and_the_next_another_order(dataset: Path):
    rows = take(stream_of(dataset), 40)
    first, second = names(rows[:20]), names(rows[20:])
    assert len(set(first)) == len(set(second)) == 20
    assert set(first) == set(second)
    assert first != second
    assert all("train-" in name for name in first)
    assert [state for _, state in rows[18:21]] == [
        DataState(epoch=0, row=19),
        DataState(epoch=0, row=20),
        DataState(epoch=1, row=1),
    ]


def test_rows_come_out_as_they_were_written(dataset: Path):
    written = {f"data/train-00000-of-00004.parquet, row {n} (counted from 0)": r for n, r in enumerate(token_rows(11))}
    found = 0
    for row, _ in take(stream_of(dataset), 20):
        if row.name in written:
            found += 1
            for column in ("input_ids", "labels", "position_ids", "seq_lengths"):
                values = getattr(row, column)
                assert values.dtype == np.int32
                assert values.tolist() == written[row.name][column].tolist()
    assert found == 11


def test_the_order_depends_on_seed_and_epoch_alone(dataset: Path):
    assert names(take(stream_of(dataset), 20)) == names(take(stream_of(dataset), 20))
    assert names(take(stream_of(dataset), 20)) != names(take(stream_of(dataset, seed=4), 20))


@pytest.mark.parametrize("consumed", range(43))
def test_a_resumed_stream_gives_exactly_the_remaining_rows(dataset: Path, consumed: int):
    stream = stream_of(dataset)
    whole = take(stream, 45)
    state = whole[consumed - 1][1] if consumed else DataState()
    rest = take(stream_of(dataset), 45 - consumed, state)
    assert [(row.name, after) for row, after in rest] == [(row.name, after) for row, after in whole[consumed:]]


def test_the_permutation_is_fixed_for_ever():
    """Checkpoints depend on it: these figures may never change."""
    assert permutation(3, 1, 2, 8).tolist() == [4, 5, 2, 6, 1, 3, 0, 7]
    assert sorted(permutation(2**64 - 1, 0, 0, 1000).tolist()) == list(range(1000))


def test_extent_is_read_from_the_footers(dataset: Path):
    rows = token_rows(11) + token_rows(9, seed=1)
    extent = stream_of(dataset).extent(4096)
    assert extent.position == max(int(row["position_ids"].max()) for row in rows)
    assert extent.token_id == max(int(row["input_ids"].max()) for row in rows)
    assert extent.row_tokens == max(row["n_tokens"] for row in rows)


def test_rows_without_positions_get_contiguous_ones(tmp_path: Path):
    written = token_rows(6, positions=False)
    stream = stream_of(write_dataset(tmp_path / "cip", [written], schema=CIP))
    rows = take(stream, 6)
    for row, _ in rows:
        assert row.position_ids.dtype == np.int32
        assert row.position_ids.tolist() == [p for length in row.seq_lengths for p in range(length)]
    assert stream.extent(4096).position == max(int(row["seq_lengths"].max()) for row in written) - 1
    assert contiguous_positions(np.array([3, 1, 2], np.int32)).tolist() == [0, 1, 2, 0, 0, 1]


def test_the_first_row_that_is_too_long_is_named(dataset: Path):
    lengths = [row["n_tokens"] for row in token_rows(11)]
    limit = sorted(lengths)[-2]
    found = stream_of(dataset).first_longer_than(limit)
    assert found is not None
    assert found[1] > limit
    number = int(found[0].split("row ")[1].split(" ")[0])
    wanted = token_rows(11) if "train-00000" in found[0] else token_rows(9, seed=1)
    assert wanted[number]["n_tokens"] == found[1]
    assert stream_of(dataset).first_longer_than(10_000) is None


def only_file(folder: Path) -> Path:
    (path,) = (folder / "data").iterdir()
    return path


def remake_manifest(folder: Path, **changes: Any) -> None:
    """Change what the manifest says of its one file."""
    path = folder / NAME
    value = Manifest.from_bytes(path.read_bytes())
    fields = {name: getattr(value.files[0], name) for name in value.files[0].__slots__} | changes
    rest = {name: getattr(value, name) for name in value.__slots__ if name != "files"}
    path.write_bytes(Manifest(files=(type(value.files[0])(**fields),), **rest).to_bytes())


def test_a_shard_of_another_length_is_refused_at_the_start(tmp_path: Path):
    folder = write_dataset(tmp_path / "d", [token_rows(8)])
    path = only_file(folder)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DatasetError, match=r"train-00000-of-00001.parquet has \d+ bytes, the manifest says"):
        stream_of(folder)
    path.unlink()
    with pytest.raises(DatasetError, match="is missing"):
        stream_of(folder)


@pytest.mark.parametrize("at", [10, 200, 700])
def test_a_flipped_bit_ends_the_stream_before_its_first_row(tmp_path: Path, at: int):
    folder = write_dataset(tmp_path / "d", [token_rows(8)])
    path = only_file(folder)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DatasetError, match=r"train-00000-of-00001\.parquet is damaged: its sha256"):
        take(stream_of(folder), 1)


def test_page_checksums_are_verified_too(tmp_path: Path):
    """As for a remote shard, whose whole digest is never taken."""
    folder = write_dataset(tmp_path / "d", [token_rows(8)])
    path = only_file(folder)
    data, caught = path.read_bytes(), 0
    source = open_source(str(folder))
    source._checked.add(f"data/{path.name}")  # type: ignore[attr-defined]
    group = pq.read_metadata(path).row_group(0)
    columns = {c.path_in_schema: c for c in map(group.column, range(group.num_columns))}
    # The end of a column's chunk is the end of its page, behind whose header the checksum begins.
    ends = [
        columns[f"{name}.list.element"].data_page_offset + columns[f"{name}.list.element"].total_compressed_size
        for name in ("input_ids", "labels", "position_ids", "seq_lengths")
    ]
    for at in (end - back for end in ends for back in (1, 4, 9)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(DatasetError, match=r"train-00000-of-00001\.parquet is damaged in row group"):
            take(RowStream(source, seed=3), 8)
        caught += 1
    assert caught == 12


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("seq_lengths", np.array([3, 3], np.int32), "seq_lengths do not add up"),
        ("seq_lengths", np.array([0, 5], np.int32), "a sequence without tokens"),
        ("labels", np.array([1, 1, 1, 1, 1], np.int32), "first label is not -100"),
        ("labels", np.array([-100, 1, 1], np.int32), "labels and input_ids differ in length"),
        ("position_ids", np.array([0, 1], np.int32), "position_ids and input_ids differ in length"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, value: Any, says: str
):
    # Our writer refuses labels that are not as many as ids; somebody else's may not.
    monkeypatch.setattr("packing.dataset.digest.TOKENS", None)
    good = token_rows(1, sequences=1, longest=5)[0] | {
        "input_ids": np.arange(5, dtype=np.int32),
        "labels": np.array([-100, 1, 1, 1, 1], np.int32),
        "position_ids": np.arange(5, dtype=np.int32),
        "seq_lengths": np.array([5], np.int32),
        "n_tokens": 5,
    }
    assert len(take(stream_of(write_dataset(tmp_path / "good", [[good, good, good]])), 3)) == 3
    folder = write_dataset(tmp_path / "bad", [[good, good | {column: value}, good]])
    with pytest.raises(DatasetError, match=rf"row 1 \(counted from 0\): .*{says}"):
        take(stream_of(folder), 3)


def test_negative_positions_are_refused(tmp_path: Path):
    row = token_rows(1)[0]
    folder = write_dataset(tmp_path / "d", [[row | {"position_ids": row["position_ids"] - 1}]])
    with pytest.raises(DatasetError, match="column position_ids holds -1"):
        stream_of(folder)


def test_a_dataset_of_anything_else_is_refused_with_a_sentence(tmp_path: Path):
    schema = pa.schema([("id", pa.string()), ("n_tokens", pa.int32())])
    folder = write_dataset(tmp_path / "d", [[{"id": "a", "n_tokens": 3}]], schema=schema)
    with pytest.raises(
        DatasetError, match=r"holds neither rows of tokens \(.*\) nor messages \(.*\); its columns are id, n_tokens"
    ):
        stream_of(folder)


def test_a_dataset_without_rows_to_train_on_is_refused(tmp_path: Path):
    folder = write_dataset(tmp_path / "d", [token_rows(3)], splits=["test"])
    with pytest.raises(DatasetError, match=r"has no split 'train'; it has test: set data\.split"):
        stream_of(folder)
    with pytest.raises(DatasetError, match="no tokens in its split 'train'"):
        stream_of(write_dataset(tmp_path / "e", [[]]))


def test_a_manifest_that_counts_other_rows_is_refused(tmp_path: Path):
    folder = write_dataset(tmp_path / "d", [token_rows(3)])
    remake_manifest(folder, rows=4)
    with pytest.raises(DatasetError, match="has 3 rows, the manifest says 4"):
        stream_of(folder)


def test_a_path_that_leads_outside_is_refused(tmp_path: Path):
    folder = write_dataset(tmp_path / "d", [token_rows(3)])
    remake_manifest(folder, path="../elsewhere.parquet")
    with pytest.raises(DatasetError, match="lies outside"):
        stream_of(folder)
