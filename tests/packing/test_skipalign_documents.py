"""Documents under the strategies that need no turns: plain text, and rows that are tokens already."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packing.dataset.reader import read_manifest
from packing.dataset.schema import TOKENS
from service.commands.verify import verify
from service.engine.shard_task import TaskError
from tests.conftest import WORDS, conversation, write_lines

MILLION = 1_048_576


def rows_of(folder):
    return [row for file in read_manifest(folder).files for row in pq.read_table(folder / file.path).to_pylist()]


def text(number):
    draws = np.random.default_rng(number)
    return " ".join(draws.choice(WORDS, size=int(draws.integers(20, 200))))


@pytest.fixture
def corpus(tmp_path):
    records = [{"id": f"d{i}", "text": text(i)} for i in range(80)]
    records[3]["text"] += " <|endoftext|> and on"
    return write_lines(tmp_path / "corpus.jsonl", records)


@pytest.mark.parametrize("strategy", ["pose", "random", "cream"])
@pytest.mark.parametrize("packing", ["none", "best_fit"])
def test_text_to_a_million_positions(corpus, build, builtin, strategy, packing):
    folder = build(corpus, strategy=strategy, max_position=MILLION, probability=1.0, packing=packing, max_length=2048)
    manifest = verify(folder)
    assert manifest.counts["conversations"] == 80
    seen = {}
    for row in rows_of(folder):
        start = 0
        for length, name in zip(row["seq_lengths"], row["source_ids"], strict=True):
            span = slice(start, start + length)
            seen[name] = (row["input_ids"][span], row["labels"][span], row["position_ids"][span])
            start += length
        assert {block["role"] for block in row["blocks"]} == {"text"}
    assert len(seen) == 80
    for i in range(80):
        ids, labels, positions = seen[f"d{i}"]
        expected = text(i) + (" <|endoftext|> and on" if i == 3 else "")
        assert builtin.decode(ids[:-1]) == expected
        assert ids.count(builtin.special["<|endoftext|>"]) == 1, "what is spelled stays text"
        assert ids[-1] == builtin.special["<|endoftext|>"]
        assert labels == [-100, *ids[1:]]
        assert positions[-1] < MILLION
    assert max(p[-1] for _, _, p in seen.values()) > 900_000


def test_rows_of_tokens_keep_ids_and_labels(tmp_path, build):
    draws = np.random.default_rng(0)
    ids = [draws.integers(0, 30_000, n).astype(np.int32) for n in (50, 700, 300)]
    labels = [np.where(np.arange(len(row)) < 10, -100, row).astype(np.int32) for row in ids]
    table = pa.table(
        {
            "input_ids": pa.array(ids, TOKENS),
            "labels": pa.array(labels, TOKENS),
            "seq_lengths": pa.array([[len(row)] for row in ids], TOKENS),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    folder = build(tmp_path / "rows.parquet", strategy="pose", probability=1.0, max_position=MILLION)
    verify(folder)
    rows = rows_of(folder)
    assert [row["input_ids"] for row in rows] == [row.tolist() for row in ids]
    assert [row["labels"] for row in rows] == [row.tolist() for row in labels]
    assert all(row["skipped"] for row in rows)


@pytest.mark.parametrize(
    ("records", "fields", "reason"),
    [
        ([{"text": "a b"}, {"text": "  "}], {}, "row 2: its text is empty"),
        ([{"text": "a b"}, {"body": "x"}], {}, "row 2: neither text nor input_ids; it has body"),
        ([{"input_ids": [1, 99_999]}], {}, "row 1: it holds token 99999"),
        ([{"input_ids": [1, 2, 3], "seq_lengths": [1, 2]}], {}, "row 1: it holds several sequences"),
        ([{"input_ids": [1, "x"]}], {}, "row 1: input_ids and labels are lists of whole numbers"),
        ([{"text": "a <|im_end|>"}], {"special_tokens_in_text": "refuse"}, "row 1: it spells a special token"),
        ([{"text": "a b"}], {"eos_token": "<|nope|>"}, "no special token '<|nope|>'"),
        ([{"text": "a b"}], {"strategy": "outer"}, "row 1: no messages"),
        ([{"body": "a b"}], {"columns": {"text": "words"}}, "row 1: no text in column 'words'"),
    ],
)
def test_documents_that_cannot_be_used_say_why(tmp_path, build, records, fields, reason):
    with pytest.raises(TaskError) as caught:
        build(write_lines(tmp_path / "s.jsonl", records), **{"strategy": "pose", **fields})
    assert reason in caught.value.message


def test_conversations_stay_conversations(tmp_path, build):
    source = write_lines(tmp_path / "s.jsonl", [conversation(i, turns=2) | {"text": "not this"} for i in range(5)])
    rows = rows_of(build(source, strategy="pose", probability=1.0))
    assert all({block["role"] for block in row["blocks"]} == {"user", "assistant"} for row in rows)
