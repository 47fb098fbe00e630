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


@pytest.fixture
def singles(tmp_path):
    """Single turns, with a conversation of three turns at number 50."""
    talks = [conversation(i, turns=3 if i == 50 else 1, longest=20) for i in range(120)]
    return write_lines(tmp_path / "singles.jsonl", talks)


@pytest.mark.parametrize("packing", ["none", "best_fit"])
def test_a_separate_group_is_one_numbering_and_several_sequences(singles, build, packing):
    plain = {name: ids for name, ids, *_ in sequences_of(build(singles, strategy="none"))}
    folder = build(singles, group=4, packing=packing, max_length=2000, probability=1.0, shard_rows=7)
    manifest = verify(folder)
    assert manifest.counts["conversations"] == 32, (
        "12 groups of 4, one of 2, the conversation, 17 groups of 4, one of 1"
    )
    jumps = 0
    for name, ids, labels, positions, reason in sequences_of(folder):
        assert ids == plain[name]
        assert np.diff(positions).tolist() == [1] * (len(positions) - 1) or name == "talk/50"
        assert sum(label != -100 for label in labels) > 0
        jumps += reason == ""
    assert jumps >= 119
    for row in rows_of(folder):
        firsts = np.cumsum([0, *row["seq_lengths"]])[:-1]
        opens = [row["position_ids"][i] == 0 for i in firsts]
        assert opens[0]
        assert len(row["source_ids"]) == len(row["seq_lengths"])
        if packing == "none":
            assert sum(opens) == 1
    assert max(row["position_ids"][-1] for row in rows_of(folder)) > 50_000


def test_a_joint_group_is_one_sequence(singles, build):
    separate = rows_of(build(singles, group=4, probability=1.0))
    joint = rows_of(build(singles, group=4, probability=1.0, group_attention="joint"))
    assert len(joint) == 32
    for one, other in zip(joint, separate, strict=True):
        assert one["seq_lengths"] == [one["n_tokens"]] == [sum(other["seq_lengths"])]
        assert one["source_ids"] == other["source_ids"]
        for column in ("input_ids", "labels", "position_ids"):
            assert one[column] == other[column], column
        assert len(one["reasons"]) == 1
    assert joint[0]["source_ids"] == [f"talk/{i}" for i in range(4)]


def test_a_group_holds_no_more_than_a_row(singles, build):
    folder = build(singles, group=100, max_length=300, truncate="drop")
    verify(folder)
    rows = rows_of(folder)
    assert all(row["n_tokens"] <= 300 for row in rows)
    assert max(len(row["seq_lengths"]) for row in rows) > 3


def test_statistics_of_distances_and_fill(many, build):
    folder = build(many, strategy="all", max_length=600, packing="best_fit", probability=1.0)
    histograms = json.loads((folder / "statistics.json").read_text())["histograms"]
    rows = rows_of(folder)
    own, first = [], []
    for row in rows:
        begins = set(np.cumsum([0, *row["seq_lengths"]]).tolist())
        end = opening = None
        for block in row["blocks"]:
            span = row["position_ids"][block["start"] : block["start"] + block["length"]]
            if block["role"] == "user":
                end = span[-1]
                opening = end if block["start"] in begins else opening
            else:
                own += [p - end for p in span]
                first += [p - opening for p in span]
    for name, distances in (("distance_to_prompt", own), ("distance_to_first_prompt", first)):
        found = histograms[name]
        assert (found["total"], found["sum"], found["max"]) == (len(distances), sum(distances), max(distances)), name
    assert histograms["row_fill_percent"]["sum"] == sum(row["n_tokens"] * 100 // 600 for row in rows)
    assert histograms["positions"]["total"] == sum(row["n_tokens"] for row in rows)
