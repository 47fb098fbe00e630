"""Packed rows: the sequences of the unpacked dataset, whole and untouched, in fewer rows."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from packing.dataset.reader import read_manifest
from service.commands.verify import verify
from tests.conftest import conversation, write_lines


def rows_of(folder):
    return [row for file in read_manifest(folder).files for row in pq.read_table(folder / file.path).to_pylist()]


def sequences_of(folder):
    """{(source id, positions): (ids, labels, positions, reason)} of every sequence."""
    found = []
    for row in rows_of(folder):
        start = 0
        for length, name, reason in zip(row["seq_lengths"], row["source_ids"], row["reasons"], strict=True):
            span = slice(start, start + length)
            found.append((name, row["input_ids"][span], row["labels"][span], row["position_ids"][span], reason))
            start += length
        assert start == row["n_tokens"]
    return found


@pytest.fixture
def many(tmp_path):
    return write_lines(tmp_path / "many.jsonl", [conversation(i, turns=1 + i % 5, longest=30) for i in range(300)])


@pytest.mark.parametrize("strategy", ["outer", "inner", "all", "pose", "random", "cream", "none"])
def test_packing_moves_sequences_and_changes_none(many, build, strategy):
    loose = build(many, strategy=strategy, max_length=600)
    packed = build(many, strategy=strategy, max_length=600, packing="best_fit")
    manifest = verify(packed)
    assert sorted(sequences_of(packed)) == sorted(sequences_of(loose))
    rows = rows_of(packed)
    assert len(rows) < 150
    assert all(r["n_tokens"] <= 600 for r in rows)
    fills = [r["n_tokens"] / 600 for r in rows]
    assert np.mean(sorted(fills)[1:]) > 0.99, (
        "few sequences of a sixth of the row fill it so far; real lengths fill it further"
    )
    assert manifest.counts["sequences"] == 300
    assert [r["skipped"] for r in rows] == [("" in r["reasons"]) for r in rows]


def test_how_packed_rows_are_sharded_changes_none(many, build):
    whole = rows_of(build(many, strategy="all", max_length=600, packing="best_fit"))
    for fields in ({"shard_rows": 7}, {"shard_tokens": 5000}):
        folder = build(many, strategy="all", max_length=600, packing="best_fit", **fields)
        assert len(read_manifest(folder).files) > 8
        assert rows_of(folder) == whole


def test_every_variant_is_packed_once(many, build):
    folder = build(many, strategy="all", max_length=600, packing="best_fit", variants=3, probability=1.0)
    found = sequences_of(verify(folder) and folder)
    assert len(found) == 900
    assert len({(name, tuple(positions)) for name, _, _, positions, _ in found}) == 900
    loose = build(many, strategy="all", max_length=600, variants=3, probability=1.0)
    assert sorted(found) == sorted(sequences_of(loose))


def test_what_is_lost_is_counted_once_and_named(tmp_path, build):
    records = [conversation(i, turns=2) for i in range(40)]
    records[7]["messages"][1]["train"] = records[7]["messages"][3]["train"] = False
    lines = [json.dumps(r, ensure_ascii=False) for r in records]
    lines[3:3] = ["oops", '{"messages": []}']
    source = tmp_path / "s.jsonl"
    source.write_text("\n".join(lines))
    folder = build(source, on_bad_row="skip", packing="best_fit", shard_rows=2, max_length=500)
    manifest = verify(folder)
    assert len(manifest.files) > 3
    assert manifest.counts["source_rows"] == 42
    assert manifest.skipped_inputs["count"] == 2
    assert sorted(r["row"] for r in manifest.skipped_inputs["first"]) == [4, 5]
    assert manifest.counts["rows_without_labels"] == 1
    assert manifest.counts["sequences"] == 39
