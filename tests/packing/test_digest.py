"""The digest of a dataset's values: labels and positions are told by where they change, and still every value is told."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packing.dataset import digest
from packing.dataset.digest import ContentDigest, Labels, Positions
from packing.dataset.errors import DatasetError
from packing.dataset.manifest import DataFile
from packing.dataset.reader import check_values, open_parquet
from packing.dataset.schema import list_of
from packing.dataset.writer import write_shard

SCHEMA = pa.schema(
    [pa.field(name, list_of(pa.int32()), nullable=False) for name in ("input_ids", "labels", "position_ids")]
)
LEAST, MOST = -(2**31), 2**31 - 1
few = st.sampled_from([0, 1, 2, -100, LEAST, MOST])


def batch(ids, labels, positions):
    columns = [pa.array(values, list_of(pa.int32())) for values in (ids, labels, positions)]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def of(*batches):
    content = ContentDigest(SCHEMA)
    for one in batches:
        content.update(one)
    return content.hexdigest()


@pytest.fixture(autouse=True)
def short_steps(monkeypatch):
    monkeypatch.setattr(digest, "STEP", 5)


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@given(st.lists(st.tuples(few, few), max_size=40), st.integers(1, 40))
def test_labels_can_be_made_again_from_their_changes(pairs, size):
    ids, labels = (np.array([pair[i] for pair in pairs], np.int32) for i in (0, 1))
    state = Labels()
    cuts = range(0, max(1, len(ids)), size)
    told = joined([state.changes(labels[a : a + size], ids[a : a + size]) for a in cuts])
    again, same, value = np.empty_like(ids), True, 0
    change = dict(zip(told["places"].tolist(), zip(told["same"], told["values"], strict=True), strict=True))
    for i, own in enumerate(ids):
        same, value = change.get(i, (same, value))
        again[i] = own if same else value
    assert again.tolist() == labels.tolist()
    assert joined([Labels().changes(labels, ids)])["places"].tolist() == told["places"].tolist()


@given(st.lists(st.tuples(few, st.integers(1, 9)), max_size=12), st.integers(1, 40))
def test_positions_can_be_made_again_from_their_changes(runs, size):
    positions = np.concatenate([np.zeros(0, np.int32), *(np.arange(n, dtype=np.int32) + np.int32(s) for s, n in runs)])
    state = Positions()
    told = joined([state.changes(positions[a : a + size]) for a in range(0, max(1, len(positions)), size)])
    again, last = np.empty_like(positions), np.int32(-1)
    change = dict(zip(told["places"].tolist(), told["values"], strict=True))
    for i in range(len(positions)):
        last = again[i] = change.get(i, np.int32((int(last) + 1 + 2**31) % 2**32 - 2**31))
    assert again.tolist() == positions.tolist()
    assert Positions().changes(positions)["places"].tolist() == told["places"].tolist()


def test_positions_that_wrap_are_told_alike_however_they_are_split():
    positions = np.array([MOST, LEAST, LEAST + 1], np.int32)
    state = Positions()
    parts = [state.changes(positions[:1]), state.changes(positions[1:])]
    assert Positions().changes(positions)["places"].tolist() == joined(parts)["places"].tolist() == [0]


def test_changes_are_few_where_little_changes():
    ids = np.arange(1000, dtype=np.int32)
    labels = ids.copy()
    labels[:300] = labels[700:] = -100
    assert Labels().changes(labels, ids)["places"].tolist() == [0, 300, 700]
    positions = np.concatenate([np.arange(400), np.arange(5000, 5600)]).astype(np.int32)
    assert Positions().changes(positions)["places"].tolist() == [400]


def test_a_change_anywhere_gives_another_digest():
    draws = np.random.default_rng(0)
    ids = [draws.integers(0, 9, n).tolist() for n in (7, 1, 12, 5)]
    labels = [[v if v % 3 else -100 for v in row] for row in ids]
    positions = [[*range(len(row) // 2), *range(40, 40 + len(row) - len(row) // 2)] for row in ids]
    seen, tried = {of(batch(ids, labels, positions))}, 1
    for column in range(3):
        for row in range(4):
            for place in range(len(ids[row])):
                other = [[list(values) for values in lists] for lists in (ids, labels, positions)]
                other[column][row][place] += 1
                seen.add(of(batch(*other)))
                tried += 1
    assert tried == 76
    assert len(seen) == tried
    assert of(batch(ids, labels, positions)) == of(
        *(batch(ids[i : i + 1], labels[i : i + 1], positions[i : i + 1]) for i in range(4))
    )
    moved = [[*ids[0], *ids[1]], [], ids[2], ids[3]]
    assert (
        of(
            batch(
                moved, [[*labels[0], *labels[1]], [], *labels[2:]], [[*positions[0], *positions[1]], [], *positions[2:]]
            )
        )
        not in seen
    )


def test_the_digest_of_values_stays_what_it_was():
    """Whoever keeps a manifest compares by it: another digest of the same values needs another FORM."""
    found = of(batch([[5, 6, 7, 8], [9]], [[-100, 6, 7, -100], [-100]], [[0, 1, 100, 101], [0]]))
    assert (digest.FORM, found) == (2, "77a47ccc0bcf6bf525a36eb2bed586054c9df05589b4043516c6c9a94f101277")


def test_labels_that_are_not_as_many_as_ids_are_no_dataset():
    with pytest.raises(DatasetError, match="labels and input_ids differ in length: 1 and 2 in a batch of rows"):
        of(batch([[1, 2]], [[1]], [[0, 1]]))


def test_the_form_of_before_is_known_still():
    """As 9057af7 took it: datasets that were built then can be verified."""
    content = ContentDigest(SCHEMA, form=1)
    content.update(batch([[5, 6, 7, 8], [9]], [[-100, 6, 7, -100], [-100]], [[0, 1, 100, 101], [0]]))
    assert content.hexdigest() == "dec7b93a22b874d2fb78d24c2d9ce3c85fab3097e8cb1b7e6e635ecf4a2e5c57"


@pytest.mark.parametrize("form", [1, 2])
def test_values_are_held_against_either_form(tmp_path, form):
    rows = batch([[5, 6, 7], [9]], [[-100, 6, 7], [-100]], [[0, 1, 100], [0]])
    with (tmp_path / "x.parquet").open("wb") as sink:
        written = write_shard([rows], SCHEMA, sink)
    content = ContentDigest(SCHEMA, form=form)
    content.update(rows)
    entry = {"path": "x", "split": "train", "rows": 2, "tokens": 0, "bytes": written.bytes, "sha256": written.sha256}
    with open_parquet(tmp_path / "x.parquet", name="x") as parquet:
        file = DataFile(**entry, content_sha256=content.hexdigest())
        assert sum(found.num_rows for found in check_values(parquet, file)) == 2
        with pytest.raises(DatasetError, match="holds other values"):
            list(check_values(parquet, DataFile(**entry, content_sha256="0" * 64)))
