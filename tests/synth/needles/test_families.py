"""Every task and length with five families of tokenizers: the engine's own counts, and needles that decode where they are said to be."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from packing.plan import Tally
from synth.needles.fit import least_fill
from tests.packing.test_tokenizer_families import FAMILIES, ours
from tests.synth.needles.probes import ALL_TASKS, InMemory, rows_of, spec

WORDS = {"bpe", "nfc", "tekken"}
"""The families whose tokens add up at borders of pre-tokens."""
SHORT = {"common_words": 8192}


def plainly(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).replace("▁", " ").split())


def assert_exact(row: dict[str, Any], name: str) -> None:
    """The count is that of the family's own engine, the fill is right, and every needle's tokens hold its answer."""
    engine = ours(name)
    ids = engine.encode([row["input"] + row["answer_prefix"]]).ids
    assert len(ids) == row["n_tokens"], row["id"]
    assert least_fill(row["length"]) <= row["n_tokens"] + row["answer_budget"] <= row["length"], row["id"]
    own = engine.encode([row["input"]]).ids.tolist() if row["needles"] else []
    for number, needle in enumerate(row["needles"]):
        text = plainly(engine.decode(own[needle["start"] : needle["end"]]))
        if len(row["needles"]) == len(row["outputs"]) and row["task"] != "dictionary":
            assert plainly(row["outputs"][number]) in text, (row["id"], text)
        else:
            assert any(plainly(output) in text for output in [*row["outputs"], *row["distractors"]]), (row["id"], text)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("length", [4096, 32768, 131072])
def test_every_task_is_exact(name, length):
    tasks = [task for task in ALL_TASKS if SHORT.get(task, 0) <= length]
    tally = Tally()
    rows = rows_of(spec(tasks=tasks, lengths=[length], depths=[35], repeats=1), InMemory(ours(name)), tally)
    assert [row["task"] for row in rows] == tasks
    for row in rows:
        assert_exact(row, name)
        if row["depth"] is not None:
            assert abs(row["needles"][0]["depth"] - 35) < (4 if length == 4096 else 1), row["id"]
    assert tally.counts["probes_tokenised_whole"] == len(tasks)


@pytest.mark.parametrize("name", FAMILIES)
def test_probes_counted_by_pieces_are_exact(name):
    """A second and a third probe of each task are counted by their pieces where that is certain."""
    tasks = [task for task in ALL_TASKS if task != "common_words"]
    tally = Tally()
    rows = rows_of(spec(tasks=tasks, lengths=[4096], depths=[70], repeats=3), InMemory(ours(name)), tally)
    for row in rows:
        assert_exact(row, name)
    by_pieces = len(rows) - tally.counts["probes_tokenised_whole"]
    assert by_pieces == (2 * len(tasks) if name in WORDS else 0)


@pytest.mark.parametrize("name", sorted(WORDS))
def test_counting_by_pieces_and_whole_gives_the_same_rows(name):
    """In shards of one row every probe is tokenised whole."""
    fields = {"tasks": ALL_TASKS[:8], "lengths": [2048], "depths": [0, 60, 100], "repeats": 2}
    tallies = Tally(), Tally()
    whole = rows_of(spec(**fields, shard_rows=1), InMemory(ours(name)), tallies[0])
    by_pieces = rows_of(spec(**fields), InMemory(ours(name)), tallies[1])
    assert by_pieces == whole
    assert tallies[0].counts["probes_tokenised_whole"] == len(whole) > 3 * tallies[1].counts["probes_tokenised_whole"]


@pytest.mark.parametrize("name", FAMILIES)
def test_chinese_is_exact(name):
    tasks = [task for task in ALL_TASKS if task not in ("common_words", "coreference")]
    made = spec(tasks=tasks, lengths=[8192], depths=[0, 100], repeats=1, locales={"zh_CN": 1})
    rows = rows_of(made, InMemory(ours(name)))
    assert {row["locale"] for row in rows} == {"zh_CN"}
    for row in rows:
        # Unigram's vocabulary here has no Chinese: its needles decode to <unk>.
        assert_exact(row if name != "unigram" else row | {"needles": []}, name)
