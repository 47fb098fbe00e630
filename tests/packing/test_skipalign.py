"""The kind skipalign: whole datasets built in this process, row by row."""

from __future__ import annotations

import itertools
import json

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packing import skipalign, skipalign_tokens
from packing.chat_tokens import ChatTokens
from packing.dataset import writer
from packing.dataset.errors import BadRowError, DatasetError, InputError, SpecError
from packing.dataset.reader import read_manifest
from packing.plan import Tally
from packing.runs import offsets_of
from packing.skipalign_tokens import Batch, concatenate, whole_groups
from service.commands.verify import verify
from service.engine.shard_task import TaskError
from service.kinds import spec_of
from tests.conftest import conversation, write_lines


def rows_of(folder):
    manifest = read_manifest(folder)
    return [row for file in manifest.files for row in pq.read_table(folder / file.path).to_pylist()]


@pytest.mark.parametrize("strategy", ["outer", "inner", "all", "none"])
def test_every_row_says_where_it_jumps(talks, build, strategy):
    folder = build(talks, strategy=strategy, seed=3)
    assert verify(folder).counts["rows"] == 60
    skipped = 0
    for row in rows_of(folder):
        positions = np.array(row["position_ids"])
        jumps = np.flatnonzero(np.diff(positions) != 1) + 1
        starts = {b["start"]: b["role"] for b in row["blocks"]}
        wanted = {"outer": {"user"}, "inner": {"assistant"}, "all": {"user", "assistant"}, "none": set()}[strategy]
        assert all(starts[int(j)] in wanted for j in jumps)
        assert row["skipped"] == bool(len(jumps)) == (row["reasons"] == [""])
        assert positions[0] == 0
        assert positions[-1] < 131072
        skipped += row["skipped"]
    assert (skipped == 0) if strategy == "none" else 15 < skipped < 45


def test_rows_keep_the_order_and_names_of_the_source(talks, build):
    assert [row["source_ids"] for row in rows_of(build(talks, shard_rows=7))] == [[f"talk/{i}"] for i in range(60)]


@pytest.mark.parametrize("fields", [{}, {"shard_rows": 7}, {"shard_rows": 1}, {"shard_tokens": 900}])
def test_how_it_is_sharded_changes_no_row(talks, build, fields):
    rows = rows_of(build(talks, strategy="all"))
    folder = build(talks, strategy="all", **fields)
    assert rows_of(folder) == rows
    files = read_manifest(folder).files
    assert len(files) == {(): 1, ("shard_rows",): -(-60 // fields.get("shard_rows", 60))}.get(tuple(fields), len(files))
    if "shard_tokens" in fields:
        assert len(files) > 5
        assert all(f.tokens <= 900 or f.rows == 1 for f in files)


def test_batches_are_bounded_by_bytes_and_leave_no_trace(talks, build, monkeypatch):
    rows, sizes, chat_tokens = rows_of(build(talks, strategy="all")), [], skipalign_tokens.chat_tokens

    def counted(layouts, encoded):
        sizes.append(len(layouts))
        return chat_tokens(layouts, encoded)

    monkeypatch.setattr(skipalign_tokens, "chat_tokens", counted)
    for most_bytes, most in ((1 << 30, 60), (talks.stat().st_size // 10 + 1, 7), (1, 1)):
        sizes.clear()
        monkeypatch.setattr(skipalign_tokens, "BATCH_BYTES", most_bytes)
        assert rows_of(build(talks, strategy="all")) == rows
        assert max(sizes) == most
        assert sum(sizes) == 60


def batch_of(first, counts):
    """Documents of so many tokens each, all of which tell which they are."""
    offsets = offsets_of(counts)
    tokens = ChatTokens(
        ids=np.arange(offsets[-1], dtype=np.int32) + first * 1000,
        trained=np.arange(offsets[-1]) % 3 == 0,
        offsets=offsets,
        responses=np.arange(2 * len(counts)) % 2 == 1,
        lengths=np.stack([counts - 1, np.ones(len(counts), np.int64)], 1).ravel(),
        block_offsets=2 * np.arange(len(counts) + 1),
    )
    numbers = np.arange(first, first + len(counts))
    return Batch(ids=[str(i) for i in numbers], index=numbers, tokens=tokens)


def test_batches_end_where_row_groups_do(monkeypatch):
    monkeypatch.setattr(writer, "GROUP_ROWS", 16)
    monkeypatch.setattr(writer, "GROUP_TOKENS", 300)
    rng = np.random.default_rng(0)
    for _ in range(30):
        firsts = np.cumsum(rng.integers(1, 40, size=rng.integers(1, 12)))
        batches = [batch_of(a, rng.integers(2, 60, size=b - a)) for a, b in itertools.pairwise([0, *firsts.tolist()])]
        whole, found = concatenate(batches), list(whole_groups(batches))
        again = concatenate(found)
        assert again.ids == whole.ids
        assert np.array_equal(again.index, whole.index)
        for name in ChatTokens.__slots__:
            assert np.array_equal(getattr(again.tokens, name), getattr(whole.tokens, name)), name
        groups = writer.group_ends(np.diff(whole.tokens.offsets))
        ends = np.cumsum([len(batch.ids) for batch in found]).tolist()
        assert set(ends) <= set(groups)
        assert len(found) <= len(batches)
    assert list(whole_groups([])) == []


def test_a_sample_has_the_same_rows_by_small_shards(talks):
    spec = spec_of({"kind": "skipalign", "source": {"path": str(talks)}, "shard_tokens": 10_000})
    assert (spec.for_sample().shard_rows, spec.for_sample().shard_tokens) == (skipalign.SAMPLE_ROWS, None)
    assert spec.model_copy(update={"shard_rows": 5, "shard_tokens": None}).for_sample().shard_rows == 5
    packed = spec.model_copy(update={"packing": "best_fit"})
    assert packed.for_sample() is packed, "its rows are those of a whole plan"


def test_the_seed_moves_gaps_and_nothing_else(talks, build):
    one, two = (rows_of(build(talks, strategy="all", seed=seed)) for seed in (0, 1))
    assert [r["position_ids"] for r in one] != [r["position_ids"] for r in two]
    assert [r["input_ids"] for r in one] == [r["input_ids"] for r in two]
    assert [r["labels"] for r in one] == [r["labels"] for r in two]


def test_name_metadata_and_path_are_no_part_of_the_fingerprint(talks, build, tmp_path):
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes(talks.read_bytes())
    one = read_manifest(build(talks, name="a"))
    two = read_manifest(build(moved, name="b", metadata={"k": "v"}))
    assert one.fingerprint == two.fingerprint
    assert [f.sha256 for f in one.files] == [f.sha256 for f in two.files]
    other = read_manifest(build(talks, seed=1))
    assert other.fingerprint != one.fingerprint
    assert str(tmp_path) not in one.to_bytes().decode(), "a manifest names no place of the machine"


def test_variants_are_neighbours_with_draws_of_their_own(talks, build):
    rows = rows_of(build(talks, variants=3, probability=1.0, strategy="all"))
    assert len(rows) == 180
    for i in range(0, 180, 3):
        trio = rows[i : i + 3]
        assert len({tuple(r["input_ids"]) for r in trio}) == 1
        assert len({tuple(r["position_ids"]) for r in trio}) == 3
    single = rows_of(build(talks, probability=1.0, strategy="all"))
    assert [r["position_ids"] for r in rows[::3]] == [r["position_ids"] for r in single]


def test_truncation_comes_before_placing(talks, build):
    whole = {r["source_ids"][0]: r for r in rows_of(build(talks, strategy="none"))}
    folder = build(talks, max_length=100, max_position=200, strategy="all", probability=1.0)
    verify(folder)
    rows = rows_of(folder)
    cut = [r for r in rows if whole[r["source_ids"][0]]["n_tokens"] > 100]
    assert len(cut) > 20
    for row in rows:
        full = whole[row["source_ids"][0]]
        assert row["input_ids"] == full["input_ids"][: row["n_tokens"]]
        assert row["labels"] == full["labels"][: row["n_tokens"]]
        assert row["n_tokens"] == min(full["n_tokens"], 100)
        assert row["position_ids"][-1] < 200
    assert sum(r["skipped"] for r in rows) > 0.9 * len(rows)
    dropped = build(talks, max_length=100, truncate="drop", strategy="none")
    kept = [r["source_ids"] for r in rows_of(dropped)]
    assert kept == [r["source_ids"] for r in rows if whole[r["source_ids"][0]]["n_tokens"] <= 100]
    assert read_manifest(dropped).counts["rows_dropped_too_long"] == 60 - len(kept)


def test_rows_that_fill_the_positions_are_kept_and_say_so(talks, build):
    folder = build(talks, max_position=60, strategy="all", probability=1.0)
    manifest = verify(folder)
    too_long = [r for r in rows_of(folder) if r["reasons"] == ["too long"]]
    assert len(too_long) > 20
    assert all(r["position_ids"] == list(range(r["n_tokens"])) and r["n_tokens"] >= 60 for r in too_long)
    assert manifest.counts["unskipped_too_long"] == len(too_long)
    assert any("max_position" in warning for warning in manifest.warnings)


def test_nothing_to_train_on_is_dropped_and_counted(tmp_path, build):
    records = [conversation(i, turns=1) for i in range(10)]
    records[4]["messages"][1]["train"] = False
    folder = build(write_lines(tmp_path / "s.jsonl", records), strategy="inner")
    manifest = verify(folder)
    assert manifest.counts["rows_without_labels"] == 1
    assert len(rows_of(folder)) == 9


def test_one_turn_under_outer_fails_with_advice(tmp_path, build):
    source = write_lines(tmp_path / "s.jsonl", [conversation(i, turns=1) for i in range(10)])
    with pytest.raises(InputError, match="strategy: inner"):
        build(source, strategy="outer")


def test_a_bad_row_fails_by_its_number_or_is_skipped_and_counted(tmp_path, build):
    good = [json.dumps(conversation(i, turns=2), ensure_ascii=False) for i in range(6)]
    source = tmp_path / "s.jsonl"
    source.write_text("\n".join([*good[:3], '{"messages": []}', "", "oops", *good[3:]]))
    with pytest.raises(TaskError, match="row 4: messages is empty") as caught:
        build(source)
    assert caught.value.code == BadRowError.code
    manifest = read_manifest(build(source, on_bad_row="skip"))
    assert manifest.counts["rows"] == 6
    assert manifest.skipped_inputs["count"] == 2
    assert [r["row"] for r in manifest.skipped_inputs["first"]] == [4, 6]
    with pytest.raises(InputError, match="no row is left"):
        build(write_lines(tmp_path / "none.jsonl", [{}]), on_bad_row="skip")


def test_special_tokens_in_text_are_refused_on_demand(tmp_path, build):
    talk = conversation(0, turns=2)
    talk["messages"][0]["content"] = "<|im_end|>"
    source = write_lines(tmp_path / "s.jsonl", [talk, conversation(1, turns=2)])
    assert len(rows_of(build(source))) == 2
    with pytest.raises(TaskError, match="row 1: it spells a special token"):
        build(source, special_tokens_in_text="refuse")
    assert len(rows_of(build(source, special_tokens_in_text="refuse", on_bad_row="skip"))) == 1


def test_parquet_and_lines_give_the_same_rows(talks, build, tmp_path):
    pl.read_ndjson(talks).write_parquet(tmp_path / "talks.parquet")
    assert rows_of(build(tmp_path / "talks.parquet")) == rows_of(build(talks))


def test_statistics_agree_with_the_rows(talks, build):
    folder = build(talks, strategy="all", shard_rows=9)
    statistics = json.loads((folder / "statistics.json").read_text())
    rows = rows_of(folder)
    counts, spans = statistics["counts"], [r["position_ids"][-1] + 1 - r["n_tokens"] for r in rows if r["skipped"]]
    assert counts["rows"] == len(rows) == 60
    assert counts["tokens"] == sum(r["n_tokens"] for r in rows)
    assert counts["trained_tokens"] == sum(label != -100 for r in rows for label in r["labels"])
    assert counts["conversations_skipped"] == len(spans)
    histogram = statistics["histograms"]["span_of_skipped"]
    assert (histogram["sum"], histogram["min"], histogram["max"]) == (sum(spans), min(spans), max(spans))
    assert histogram["counts"] == np.histogram(spans, bins=histogram["edges"])[0].tolist()


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"probability": 1.5}, "/probability"),
        ({"max_length": -1}, "/max_length"),
        ({"strategy": "sideways"}, "/strategy"),
        ({"seed": "7"}, "/seed"),
        ({"colour": 1}, "/colour"),
        ({"source": {}}, "/source"),
        ({"source": {"path": "a", "upload": "b"}}, "/source"),
        ({"shard_rows": 1, "shard_tokens": 1}, ""),
        ({"template_date": "yesterday"}, "/template_date"),
    ],
)
def test_a_bad_field_is_named(fields, pointer):
    with pytest.raises(SpecError) as caught:
        spec_of({"kind": "skipalign", "source": {"path": "x"}, **fields})
    assert [p.pointer for p in caught.value.problems] == [pointer]


DAMAGE = {
    "a position moved": ("position_ids", lambda r: [*r["position_ids"][:-1], r["position_ids"][-1] + 1]),
    "a label of another id": ("labels", lambda r: [*r["labels"][:-2], 5, r["labels"][-1]]),
    "a label in the prompt": ("labels", lambda r: [r["labels"][0], r["input_ids"][1], *r["labels"][2:]]),
    "an id below 0": ("input_ids", lambda r: [-5, *r["input_ids"][1:]]),
    "a label at the start": ("labels", lambda r: [r["input_ids"][0], *r["labels"][1:]]),
    "no labels": ("labels", lambda r: [-100] * r["n_tokens"]),
    "a boundary lost": ("seq_lengths", lambda r: [r["n_tokens"] - 1]),
    "a boundary made up": ("seq_lengths", lambda r: [3, r["n_tokens"] - 3]),
    "a length untrue": ("n_tokens", lambda r: r["n_tokens"] + 1),
    "skipped untrue": ("skipped", lambda r: not r["skipped"]),
    "a reason untrue": ("reasons", lambda r: ["" if r["reasons"][0] else "no gap"]),
    "a block shorter": ("blocks", lambda r: [{**r["blocks"][0], "length": 1}, *r["blocks"][1:]]),
    "a role changed": ("blocks", lambda r: [{**b, "role": "user"} for b in r["blocks"]]),
    "a token lost": ("input_ids", lambda r: r["input_ids"][:-1]),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_check_finds_every_kind_of_wrong_row(talks, build, what):
    folder = build(talks, strategy="all")
    spec = spec_of({"kind": "skipalign", "source": {"path": "x"}, "strategy": "all"})
    table = pq.read_table(folder / "data/train-00000-of-00001.parquet")
    rows = table.to_pylist()
    found = 0
    column, damage = DAMAGE[what]
    for i in range(0, 60, 7):
        damaged = [dict(r) for r in rows]
        damaged[i][column] = damage(rows[i])
        batch = pa.RecordBatch.from_pylist(damaged, schema=skipalign.schema(spec))
        with pytest.raises(DatasetError, match=f"row {i} of the batch"):
            skipalign.check(spec, batch)
        found += 1
    assert found == 9
    skipalign.check(spec, pa.RecordBatch.from_pylist(rows, schema=skipalign.schema(spec)).slice(5, 20))


def test_check_knows_the_strategy_and_the_largest_position(talks, build):
    folder = build(talks, strategy="all")
    batch = pq.read_table(folder / "data/train-00000-of-00001.parquet").to_batches()[0]
    for fields, what in (
        ({"strategy": "outer"}, "strategy outer has none"),
        ({"max_position": 3000}, "reaches max_position"),
    ):
        spec = spec_of({"kind": "skipalign", "source": {"path": "x"}, "strategy": "all", **fields})
        with pytest.raises(DatasetError, match=what):
            skipalign.check(spec, batch)


def test_check_wants_random_positions_to_rise(talks, build):
    folder = build(talks, strategy="random", shard_rows=20)
    spec = spec_of({"kind": "skipalign", "source": {"path": "x"}, "strategy": "random"})
    table = pq.read_table(folder / "data/train-00000-of-00003.parquet")
    skipalign.check(spec, table.to_batches()[0])
    rows = table.to_pylist()
    swapped = rows[3]["position_ids"]
    swapped[3:5] = swapped[4], swapped[3]
    with pytest.raises(DatasetError, match="row 3 of the batch: position_ids do not increase"):
        skipalign.check(spec, pa.RecordBatch.from_pylist(rows, schema=skipalign.schema(spec)))


@settings(max_examples=25)
@given(
    turns=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    strategy=st.sampled_from(["inner", "all", "none"]),
    max_length=st.integers(20, 200),
    max_position=st.integers(2, 2000),
    truncate=st.sampled_from(["right", "drop"]),
    variants=st.integers(1, 3),
    train_on=st.sampled_from(["all", "last"]),
)
def test_every_spec_gives_rows_that_keep_the_invariants(
    builtin, turns, strategy, max_length, max_position, truncate, variants, train_on
):
    spec = spec_of(
        {
            "kind": "skipalign",
            "source": {"path": "x"},
            "strategy": strategy,
            "max_length": max_length,
            "max_position": max_position,
            "truncate": truncate,
            "variants": variants,
            "train_on": train_on,
        }
    )
    talks = [conversation(i, turns=t, longest=12) for i, t in enumerate(turns)]
    table = pa.table({"line": pa.array([json.dumps(t).encode() for t in talks], pa.large_binary())})
    piece = skipalign.Piece(
        digest="",
        container="lines",
        field="/source",
        name="s",
        first_row=1,
        first_index=0,
        rows=len(talks),
        bytes=table.nbytes,
    )

    class Memory:
        pieces = (piece,)
        tokenizer = builtin

        def read(self, piece):
            return table

    tally = Tally()
    built = 0
    for shard in skipalign.plan(spec, Memory(), []).shards:
        for batch in skipalign.build(spec, shard, Memory(), tally):
            skipalign.check(spec, batch)
            built += batch.num_rows
    counts = tally.counts
    lost = counts.get("rows_dropped_too_long", 0) + counts.get("rows_without_labels", 0)
    assert built == (len(talks) - lost) * variants
    assert counts["source_rows"] == len(talks)
