"""The kind mixture: shares, shards, repeats, parts of every shape, provenance."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packing import mixture
from packing.dataset.errors import DatasetError, InputError, SpecError
from packing.dataset.reader import read_manifest
from packing.dataset.schema import SKIPALIGN, TOKENS
from packing.token_rows import from_table, truncated
from packing.tokenizers import BUILTIN
from service.commands.verify import verify
from service.engine.executor import RayExecutor
from service.engine.shard_task import TaskError
from service.kinds import parts_of, sources_of, spec_of
from tests.conftest import WORDS, conversation, write_lines


def rows_of(folder):
    return [row for file in read_manifest(folder).files for row in pq.read_table(folder / file.path).to_pylist()]


def text(number, words=200):
    return " ".join(np.random.default_rng(number).choice(WORDS, size=words))


@pytest.fixture
def talk(tmp_path):
    return write_lines(tmp_path / "talk.jsonl", [conversation(i, turns=1 + i % 3) for i in range(400)])


@pytest.fixture
def corpus(tmp_path):
    return write_lines(tmp_path / "corpus.jsonl", [{"id": f"d{i}", "text": text(i)} for i in range(150)])


def mix(talk, corpus, **fields):
    docs = {"kind": "cip", "source": {"path": str(corpus)}, "sequence_length": 512}
    return {
        "kind": "mixture",
        "parts": [
            {"name": "talk", "source": {"path": str(talk)}, "weight": 0.25},
            {"name": "docs", "spec": docs, "weight": 0.75},
        ],
        "total": 40_000,
        **fields,
    }


def shares(rows):
    tokens = Counter()
    for row in rows:
        tokens[row["part"]] += row["n_tokens"]
    return tokens


@pytest.mark.parametrize("unit", ["tokens", "rows"])
def test_shares_hold_in_every_shard_to_one_row(talk, corpus, build, unit):
    total = 40_000 if unit == "tokens" else 100
    fields = {"unit": unit, "total": total} | ({"shard_tokens": 5000} if unit == "tokens" else {"shard_rows": 20})
    folder = build(None, **mix(talk, corpus, **fields))
    manifest = verify(folder)
    assert len(manifest.files) >= 5
    longest = {"talk": 0, "docs": 0}
    for row in rows_of(folder):
        longest[row["part"]] = max(longest[row["part"]], row["n_tokens"] if unit == "tokens" else 1)
    whole = Counter()
    for file in manifest.files:
        found = Counter()
        for row in pq.read_table(folder / file.path).to_pylist():
            found[row["part"]] += row["n_tokens"] if unit == "tokens" else 1
        for name, share in (("talk", 0.25), ("docs", 0.75)):
            assert abs(found[name] - share * total / len(manifest.files)) <= longest[name]
        whole += found
    for name, share in (("talk", 0.25), ("docs", 0.75)):
        assert 0 <= whole[name] - share * total < longest[name]
        assert manifest.counts[f"part_{name}_{unit}"] == whole[name]


def test_rows_are_those_of_their_parts_and_say_where_they_are_from(talk, corpus, build):
    folder = build(None, **mix(talk, corpus))
    rows = rows_of(folder)
    plain = {r["source_ids"][0]: r for r in rows_of(build(talk, strategy="none"))}
    chunks = rows_of(build(corpus, kind="cip", sequence_length=512))
    seen = defaultdict(list)
    for row in rows:
        assert row["source_rows"] == [row["source_row"]]
        seen[row["part"]].append(row["source_row"])
        if row["part"] == "talk":
            there = plain[row["source_ids"][0]]
            assert {name: row[name] for name in SKIPALIGN.names} == there
            assert row["source_ids"] == [f"talk/{row['source_row']}"]
        else:
            there = chunks[row["source_row"]]
            for name in ("input_ids", "labels", "seq_lengths", "n_tokens"):
                assert row[name] == there[name]
            assert row["position_ids"] == list(range(row["n_tokens"]))
            assert row["source_ids"] == [s["document"] for s in there["segments"]]
            assert row["blocks"] == [{"role": "text", "start": 0, "length": row["n_tokens"], "bias": 0}]
            assert (row["skipped"], row["reasons"]) == (False, ["no gap"])
    assert all(len(found) == len(set(found)) for found in seen.values()), "one epoch: no row comes twice"
    assert np.corrcoef(seen["talk"], np.arange(len(seen["talk"])))[0, 1] < 0.3, "shuffled over the whole part"
    parts = [row["part"] for row in rows]
    assert sum(a != b for a, b in itertools.pairwise(parts)) > 5


def test_rows_that_jump_and_packed_rows_pass_through(talk, build, tmp_path):
    skipped = build(talk, strategy="all", probability=1.0, packing="best_fit", max_length=600)
    parts = [{"name": "a", "source": {"path": str(skipped)}, "weight": 1}]
    folder = build(None, kind="mixture", parts=parts, total=None)
    verify(folder)
    there = rows_of(skipped)
    rows = rows_of(folder)
    assert len(rows) == len(there)
    for row in rows:
        assert {name: row[name] for name in SKIPALIGN.names} == there[row["source_row"]]
    assert sum(row["skipped"] for row in rows) > 0.9 * len(rows)


def test_repeats_are_bounded_counted_and_come_in_turn(talk, corpus, build):
    with pytest.raises(
        InputError, match=r"part 'talk' has [\d,]+ tokens, and 25.0% of 400,000 are 100,000: \d epochs"
    ) as caught:
        build(None, **mix(talk, corpus, total=400_000))
    assert caught.value.param == "/total"
    folder = build(None, **mix(talk, corpus, total=400_000, max_epochs=20, shard_tokens=50_000))
    manifest = verify(folder)
    rows = rows_of(folder)
    times = Counter(row["source_row"] for row in rows if row["part"] == "talk")
    assert set(times) == set(range(400))
    assert max(times.values()) - min(times.values()) <= 1, "every row as often as any other"
    repeated = sum(times.values()) - 400
    assert manifest.counts["part_talk_repeated_rows"] == repeated > 100
    assert any("part talk" in warning and "repeats" in warning for warning in manifest.warnings)
    once = build(None, **mix(talk, corpus, total=None))
    tokens = shares(rows_of(once))
    assert 0.24 < tokens["talk"] / sum(tokens.values()) < 0.26
    assert not read_manifest(once).warnings


def test_packed_rows_hold_rows_of_one_part(talk, corpus, build):
    loose = build(None, **mix(talk, corpus, max_length=1024))
    folder = build(None, **mix(talk, corpus, max_length=1024, packing="best_fit"))
    verify(folder)
    rows = rows_of(folder)
    assert all(row["n_tokens"] <= 1024 for row in rows)

    def samples(rows):
        found = []
        for row in rows:
            at = 0
            for length, reason in zip(row["seq_lengths"], row["reasons"], strict=True):
                span = slice(at, at + length)
                found.append(
                    (row["part"], row["input_ids"][span], row["labels"][span], row["position_ids"][span], reason)
                )
                at += length
        return sorted(found)

    assert samples(rows) == samples(rows_of(loose))
    by_part = {
        name: sorted(i for r in rows if r["part"] == name for i in r["source_rows"]) for name in ("talk", "docs")
    }
    for name, found in by_part.items():
        assert found == sorted(r["source_row"] for r in rows_of(loose) if r["part"] == name)
    talks = [row["n_tokens"] for row in rows if row["part"] == "talk"]
    assert np.mean(sorted(talks)[1:]) > 0.97 * 1024
    assert all(row["source_row"] == row["source_rows"][0] for row in rows)


def test_by_whom_and_how_often_changes_no_byte(talk, corpus, build):
    spec = mix(talk, corpus, shard_tokens=5000)
    one = read_manifest(build(None, **spec))
    with RayExecutor(workers=2) as executor:
        two = read_manifest(build(None, executor=executor, **spec))
    assert one.to_bytes() == two.to_bytes()
    other = read_manifest(build(None, **spec, seed=1))
    assert other.fingerprint != one.fingerprint
    assert [f.sha256 for f in other.files] != [f.sha256 for f in one.files]


def test_a_part_is_shuffled_as_a_whole_however_it_was_cut(talk, corpus, build, monkeypatch):
    from packing import sources

    whole = rows_of(build(None, **mix(talk, corpus, shard_tokens=5000)))
    monkeypatch.setattr(sources, "PIECE_BYTES", 20_000)
    monkeypatch.setattr(sources, "READ_BYTES", 10_000)
    assert rows_of(build(None, **mix(talk, corpus, shard_tokens=5000))) == whole
    first = [row["source_row"] for row in whole if row["part"] == "talk"][:10]
    assert max(first) > 200, "the first shard has rows of the whole part"


def test_what_is_too_long_is_refused_cut_or_dropped(talk, corpus, build):
    with pytest.raises(TaskError, match=r"talk\.jsonl, row \d+: it has \d+ tokens, more than max_length \(300\)"):
        build(None, **mix(talk, corpus, max_length=300))
    cut = rows_of(build(None, **mix(talk, corpus, max_length=300, truncate="right", total=20_000)))
    docs = [row for row in cut if row["part"] == "docs"]
    assert {row["n_tokens"] for row in docs} <= {300} | set(range(1, 300))
    assert sum(row["n_tokens"] == 300 for row in docs) > 20
    with pytest.raises(InputError, match="part 'docs' has"):
        build(None, **mix(talk, corpus, max_length=300, truncate="drop", total=20_000))
    skipping = build(None, **mix(talk, corpus, max_length=511, on_bad_row="skip", total=None))
    assert read_manifest(skipping).skipped_inputs["count"] > 50


def test_a_cut_takes_sequences_blocks_and_jumps_with_it():
    row = {
        "input_ids": list(range(10, 22)),
        "labels": [-100, 11, 12, -100, 14, 15, -100, 17, 18, 19, 20, 21],
        "position_ids": [0, 1, 2, 50, 51, 52, 0, 1, 2, 3, 4, 5],
        "seq_lengths": [6, 6],
        "blocks": [
            {"role": "user", "start": 0, "length": 3, "bias": 0},
            {"role": "assistant", "start": 3, "length": 3, "bias": 47},
            {"role": "assistant", "start": 6, "length": 6, "bias": 0},
        ],
        "skipped": True,
        "reasons": ["", "no gap"],
        "source_ids": ["a", "b"],
        "n_tokens": 12,
    }
    rows = from_table(pa.Table.from_pylist([row, row], SKIPALIGN), np.array([4, 9]), name="x", vocab_size=99)
    eight = truncated(rows, 8)
    assert eight.lengths.tolist() == [6, 2, 6, 2]
    assert eight.block_lengths.tolist() == [3, 3, 2] * 2
    assert eight.reasons.to_pylist() == [["", "no gap"]] * 2
    three = truncated(rows, 3)
    assert three.lengths.tolist() == [3, 3]
    assert three.reasons.to_pylist() == [["no gap"]] * 2, "what jumped is cut off"
    assert three.positions.tolist() == [0, 1, 2] * 2
    assert truncated(rows, 12) is rows


def test_rows_of_tokens_from_elsewhere_get_what_they_lack(tmp_path, build):
    table = pa.table(
        {
            "input_ids": pa.array([[5, 6, 7, 8], [1, 2, 3]], TOKENS),
            "position_ids": pa.array([[0, 1, 40, 41], [0, 1, 2]], TOKENS),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    parts = [{"name": "t", "source": {"path": str(tmp_path / "t.parquet")}, "weight": 1}]
    folder = build(None, kind="mixture", parts=parts, total=None)
    verify(folder)
    rows = {row["source_row"]: row for row in rows_of(folder)}
    assert rows[0]["labels"] == [-100, 6, 7, 8]
    assert rows[0]["blocks"] == [
        {"role": "text", "start": 0, "length": 2, "bias": 0},
        {"role": "text", "start": 2, "length": 2, "bias": 38},
    ]
    assert (rows[0]["skipped"], rows[0]["reasons"], rows[0]["source_ids"]) == (True, [""], ["1"])
    assert rows[1]["seq_lengths"] == [3]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"input_ids": [[1, 10**6]]}, "holds token 1000000"),
        ({"input_ids": [[1, 2]], "labels": [[1]]}, "labels and input_ids differ in length"),
        ({"input_ids": [[1, 2]], "seq_lengths": [[1]]}, "seq_lengths do not add up"),
        ({"input_ids": ["text"]}, "not a list in every row"),
        ({"input_ids": [["a"]]}, "not lists of whole numbers"),
        ({"input_ids": [[1], None]}, "not a list in every row"),
    ],
)
def test_rows_of_tokens_that_cannot_be_say_why(tmp_path, build, columns, words):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    parts = [{"name": "t", "source": {"path": str(tmp_path / "t.parquet")}, "weight": 1}]
    with pytest.raises(TaskError, match=words):
        build(None, kind="mixture", parts=parts, total=None)


def test_tokens_of_another_tokenizer_are_refused(tmp_path, talk, corpus, build):
    folder = tmp_path / "tokenizer"
    shutil.copytree(BUILTIN, folder)
    value = json.loads((folder / "tokenizer.json").read_text())
    value["added_tokens"][-1]["content"] = "<|renamed|>"
    (folder / "tokenizer.json").write_text(json.dumps(value))
    chunks = build(corpus, kind="cip", sequence_length=512, tokenizer=str(folder))
    parts = [
        {"name": "a", "source": {"path": str(chunks)}, "weight": 1},
        {"name": "b", "source": {"path": str(talk)}, "weight": 1},
    ]
    with pytest.raises(SpecError, match="holds tokens of another tokenizer") as caught:
        build(None, kind="mixture", parts=parts, total=1000)
    assert [p.pointer for p in caught.value.problems] == ["/parts/0/source"]
    verify(build(None, kind="mixture", parts=parts, total=1000, tokenizer=str(folder)))


def test_recipes_name_their_parts_and_weigh_them(talk, corpus, build):
    parts = [
        {"name": "synthetic", "source": {"path": str(talk)}},
        {"name": "long", "spec": {"kind": "cip", "source": {"path": str(corpus)}, "sequence_length": 256}},
        {"name": "sft", "source": {"path": str(talk)}},
    ]
    folder = build(None, kind="mixture", parts=parts, recipe="longskywork_st", total=20_000)
    tokens = shares(rows_of(folder))
    whole = sum(tokens.values())
    for name, share in (("sft", 0.2), ("synthetic", 0.4), ("long", 0.4)):
        assert abs(tokens[name] / whole - share) < 0.02
    verify(build(None, kind="mixture", parts=parts[::2], recipe="longskywork", total=10_000))


PART = {"name": "a", "source": {"path": "x"}, "weight": 1}


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({"parts": []}, "/parts", "at least 1"),
        ({"parts": [PART, PART]}, "/parts", "one name: a"),
        ({"parts": [{"name": "a", "weight": 1}]}, "/parts/0", "a part is a source or the spec"),
        ({"parts": [PART | {"weight": 0}]}, "/parts/0/weight", "greater than 0"),
        ({"parts": [{"name": "a", "source": {"path": "x"}}]}, "/parts", "has no weight"),
        ({"parts": [PART | {"name": "a/b"}]}, "/parts/0/name", "pattern"),
        ({"parts": [PART], "recipe": "longskywork"}, "/parts", "wants parts named sft, synthetic"),
        ({"parts": [PART], "packing": "best_fit"}, "/max_length", "packing needs max_length"),
        ({"parts": [{"name": "a", "spec": {"kind": "nope"}, "weight": 1}]}, "/parts/0/spec/kind", "no kind 'nope'"),
        (
            {"parts": [{"name": "a", "spec": {"kind": "mixture", "parts": [PART]}, "weight": 1}]},
            "/parts/0/spec/kind",
            "is no mixture",
        ),
        (
            {"parts": [{"name": "a", "spec": {"kind": "cip", "source": {"path": "x"}, "chunks": 1}, "weight": 1}]},
            "/parts/0/spec/chunks",
            "greater than or equal to 2",
        ),
        (
            {
                "parts": [
                    {"name": "a", "spec": {"kind": "cip", "source": {"path": "x"}, "tokenizer": "other"}, "weight": 1}
                ]
            },
            "/parts/0/spec/tokenizer",
            "the tokenizer of the whole",
        ),
    ],
)
def test_a_spec_that_cannot_be_meant_names_the_field(fields, pointer, words):
    with pytest.raises(SpecError) as caught:
        spec_of({"kind": "mixture", **fields})
    found = {p.pointer: p.message for p in caught.value.problems}
    assert any(p == pointer and words in m for p, m in found.items()), found


def test_parts_take_over_seed_and_tokenizer_and_are_written_out(talk, corpus):
    spec = spec_of(mix(talk, corpus, seed=7))
    part = parts_of(spec)["/parts/1/spec"]
    assert (part.kind, part.seed, part.tokenizer) == ("cip", 7, "builtin")
    assert set(sources_of(spec)) == {"/parts/0/source", "/parts/1/spec/source"}
    assert spec_of(spec.to_json()) == spec
    own = mix(talk, corpus, seed=7)
    own["parts"][1]["spec"]["seed"] = 3
    assert parts_of(spec_of(own))["/parts/1/spec"].seed == 3


def test_an_error_in_a_part_says_which(talk, tmp_path, build):
    bad = write_lines(tmp_path / "bad.jsonl", [{"text": " "}])
    with pytest.raises(TaskError, match=r"the part at /parts/1/spec: bad\.jsonl, row 1: its text is empty"):
        build(None, **mix(talk, bad))


def test_check_finds_a_row_that_is_no_row_of_the_mixture(talk, corpus, build):
    folder = build(None, **mix(talk, corpus, max_length=1024))
    spec = spec_of(read_manifest(folder).spec)
    table = pq.read_table(folder / read_manifest(folder).files[0].path).slice(0, 3)
    rows = table.to_pylist()
    mixture.check(spec, pa.RecordBatch.from_pylist(rows, table.schema))
    for change, words in (
        ({"part": "other"}, "its part is none of docs, talk"),
        ({"n_tokens": 5}, "differ in length"),
        ({"skipped": True}, "skipped does not say"),
    ):
        with pytest.raises(DatasetError, match=words):
            mixture.check(spec, pa.RecordBatch.from_pylist([rows[0] | change], table.schema))
    short = spec_of(read_manifest(folder).spec | {"max_length": 20})
    with pytest.raises(DatasetError, match="more than max_length"):
        mixture.check(short, pa.RecordBatch.from_pylist(rows, table.schema))
