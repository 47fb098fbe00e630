"""The kind: specs, exact fits, grids and depths, independence of rows, haystacks of users, and rows that break the rules."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packing.dataset import schema as schemas
from packing.dataset.errors import BadRowError, DatasetError, InputError, SourceError, SpecError
from packing.draws import Draws
from packing.plan import Tally
from synth import needle
from synth.needles import pools, vocabulary
from synth.needles.fit import least_fill
from synth.needles.grammar import Stream
from synth.needles.registry import RULER, TASKS
from synth.needles.tasks.hidden import TEMPLATES
from tests.synth.needles.probes import ALL_TASKS, InMemory, rows_of, spec


@pytest.fixture(scope="module")
def inputs(builtin) -> InMemory:
    return InMemory(builtin)


def counted(tokenizer, row) -> int:
    return len(tokenizer.encode([row["input"] + row["answer_prefix"]]).ids)


def test_the_default_spec_is_the_contracts():
    made = spec()
    assert made.task_names() == tuple(ALL_TASKS[:11])
    assert made.lengths == [4096, 32768, 131072]
    assert len(made.grid()) == 11
    assert made.grid()[:2] == [0.0, 10.0]
    assert made.rows() == 3 * 5 * (6 * 11 + 5)
    budgets = {name: TASKS[name].budget for name in made.task_names()}
    assert budgets == {
        "passkey": 6, "number": 12, "kv": 50, "niah_single": 128, "niah_multikey": 128, "niah_multivalue": 128,
        "niah_multiquery": 128, "variable_tracking": 30, "common_words": 120, "frequent_words": 50, "dictionary": 32,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "pointer", "says"),
    [
        ({"tasks": ["nothing"]}, "/tasks/0", "Input should be"),
        ({"tasks": ["vt"]}, "/tasks", "no task 'vt' without preset: ruler"),
        ({"tasks": ["qa_1"], "preset": "ruler"}, "/tasks", "give qa_1: a source in SQuAD's"),
        ({"tasks": ["kv", "kv"]}, "/tasks", "kv stands there twice"),
        ({"lengths": [4096, 4096]}, "/lengths", "4096 stands there twice"),
        ({"lengths": [63]}, "/lengths/0", "greater than or equal to 64"),
        ({"lengths": [2**21 + 1]}, "/lengths/0", "less than or equal to 2097152"),
        ({"depths": 0}, "/depths", "a number of depths from 1 to 1001"),
        ({"depths": [101]}, "/depths", "a list of depths from 0 to 100"),
        ({"haystack": "essays"}, "/haystack", "builtin, noise, needles, or a source"),
        ({"haystack": {"path": "x", "upload": "y"}}, "/haystack", "builtin, noise, needles, or a source"),
        ({"locales": {"fr_FR": 1}}, "/locales/fr_FR", "Input should be"),
        ({"repeats": 100_000, "depths": 1001}, "", "at most 5,000,000"),
        ({"needle": 1}, "/needle", "no such field"),
    ],
)
def test_bad_specs_are_named(fields, pointer, says):
    with pytest.raises(SpecError) as caught:
        spec(**fields)
    assert [p.pointer for p in caught.value.problems] == [pointer]
    assert says in caught.value.problems[0].message


@pytest.mark.parametrize("budget", [512, 600, 5000])
def test_an_answer_that_leaves_no_room_is_named_with_the_least_length(inputs, budget):
    with pytest.raises(SpecError) as caught:
        needle.plan(spec(lengths=[512], answer_budget=budget), inputs, [])
    assert {p.pointer for p in caught.value.problems} == {"/lengths/0"}
    assert all(f"answer included: {512} is too small" in p.message for p in caught.value.problems)


def test_every_length_that_is_too_small_is_named_with_the_least(inputs):
    with pytest.raises(SpecError) as caught:
        needle.plan(spec(tasks=["coreference", "common_words"], lengths=[512, 4096, 600]), inputs, [])
    problems = [
        (p.pointer, re.match(r"(\w+) \(en_US\) needs at least (\d+) tokens", p.message)) for p in caught.value.problems
    ]
    assert [(where, found[1]) for where, found in problems if found] == [
        ("/lengths/0", "coreference"), ("/lengths/0", "common_words"), ("/lengths/2", "common_words"),
    ]  # fmt: skip
    least = int(problems[0][1][2])
    assert 512 < least < 1000
    assert len(rows_of(spec(tasks=["coreference"], lengths=[least], repeats=1), inputs)) == 1


def test_an_answer_budget_is_kept_free(inputs):
    rows = rows_of(spec(tasks=["passkey", "kv"], lengths=[4096], depths=2, repeats=1, answer_budget=2000), inputs)
    assert {row["answer_budget"] for row in rows} == {2000}
    for row in rows:
        assert least_fill(4096) <= row["n_tokens"] + 2000 <= 4096
    with pytest.raises(SpecError, match="needs at least"):
        needle.plan(spec(tasks=["passkey"], lengths=[1024], answer_budget=1024), inputs, [])


@pytest.mark.parametrize("length", [512, 777, 1500, 4095, 4096, 5001])
def test_short_probes_are_exact_too(inputs, length):
    tasks = [task for task in ALL_TASKS if task not in ("common_words", "coreference") or length > 4000]
    made = spec(tasks=tasks, lengths=[length], depths=[0, 37, 100], repeats=2, locales={"en_US": 1, "zh_CN": 1})
    rows = rows_of(made, inputs)
    assert {row["locale"] for row in rows} == {"en_US", "zh_CN"}
    for row in rows:
        assert counted(inputs.tokenizer, row) == row["n_tokens"], row["id"]
        assert least_fill(length) <= row["n_tokens"] + row["answer_budget"] <= length, row["id"]


@pytest.mark.parametrize("haystack", ["noise", "builtin"])
def test_probes_hardly_longer_than_their_needle_are_exact_too(inputs, haystack):
    rows = rows_of(
        spec(tasks=["passkey", "number"], lengths=[128, 200], depths=[0, 37, 100], repeats=3, haystack=haystack), inputs
    )
    assert len(rows) == 2 * 2 * 3 * 3
    for row in rows:
        assert counted(inputs.tokenizer, row) == row["n_tokens"], row["id"]
        assert least_fill(row["length"]) <= row["n_tokens"] + row["answer_budget"] <= row["length"], row["id"]
    with pytest.raises(SpecError, match=r"passkey \(en_US\) needs at least \d+ tokens"):
        needle.plan(spec(tasks=["passkey"], lengths=[64], haystack=haystack), inputs, [])


@given(
    length=st.integers(1200, 9000),
    seed=st.integers(0, 2**62),
    budget=st.one_of(st.none(), st.integers(1, 300)),
    task=st.sampled_from([t for t in ALL_TASKS if t not in ("common_words", "coreference")]),
    haystack=st.sampled_from(["builtin", "noise", "needles"]),
    split=st.sampled_from(["test", "train"]),
)
@settings(max_examples=60)
def test_any_probe_is_exact(builtin, length, seed, budget, task, haystack, split):
    made = spec(
        tasks=[task],
        lengths=[length],
        depths=[50],
        repeats=1,
        seed=seed,
        answer_budget=budget,
        haystack=haystack,
        split=split,
    )
    (row,) = rows_of(made, InMemory(builtin))
    assert counted(builtin, row) == row["n_tokens"]
    assert row["split"] == split
    own = builtin.encode([row["input"]]).ids.tolist()
    for span in row["needles"]:
        assert row["input"].count(builtin.decode(own[span["start"] : span["end"]]).strip()) == 1


def test_depths_are_where_they_are_asked_for_and_spread_evenly(inputs):
    made = spec(tasks=["niah_single", "kv", "hidden_fact"], lengths=[16384], depths=21, repeats=2)
    for row in rows_of(made, inputs):
        (span,) = row["needles"]
        assert abs(span["depth"] - row["depth"]) < 0.6, row["id"]
    rows = rows_of(spec(tasks=["niah_multivalue"], lengths=[8192], repeats=60), inputs)
    found = np.array([span["depth"] for row in rows for span in row["needles"]])
    assert len(found) == 240
    quarters = np.sort(found.reshape(60, 4), axis=1) - [0, 25, 50, 75]
    assert ((quarters > -0.6) & (quarters < 25.6)).all(), "one in each quarter of every probe"
    assert (np.histogram(quarters, bins=5, range=(-0.6, 25.6))[0] > 30).all(), "and anywhere in it"
    firsts = np.array([row["needles"][0]["depth"] for row in rows])
    assert 35 < firsts.mean() < 65, "and the first answer is not always the first needle"


def test_needles_stand_at_sentence_borders(inputs):
    for row in rows_of(spec(tasks=["niah_multikey", "passkey"], lengths=[4096], depths=5, repeats=2), inputs):
        own = inputs.tokenizer.encode([row["input"]]).ids.tolist()
        for span in row["needles"]:
            before = inputs.tokenizer.decode(own[: span["start"]])
            after = inputs.tokenizer.decode(own[span["end"] :])
            assert before.endswith((".", '"', "\n", "?")), before[-20:]
            own_line = inputs.tokenizer.decode(own[span["start"] : span["end"]]).endswith("\n")
            assert own_line or after[0] in " \n"


def test_a_probe_does_not_depend_on_what_else_is_asked_for(inputs):
    alone = rows_of(spec(tasks=["kv"], lengths=[4096], depths=[50], repeats=2, seed=7), inputs)
    among = rows_of(
        spec(tasks=["passkey", "kv"], lengths=[8192, 4096], depths=[0, 50], repeats=3, seed=7, shard_rows=4), inputs
    )
    found = {row["id"]: row for row in among}
    assert [found[row["id"]] for row in alone] == alone
    other = rows_of(spec(tasks=["kv"], lengths=[4096], depths=[50], repeats=2, seed=8), inputs)
    assert [r["outputs"] for r in other] != [r["outputs"] for r in alone]
    assert len({r["seed"] for r in among}) == len(among)
    assert len({r["input"] for r in among}) == len(among)


def test_shards_cut_the_grid_and_any_shard_can_be_built_alone(inputs):
    made = spec(tasks=["passkey", "niah_multivalue"], lengths=[1024, 2048], depths=3, repeats=3, shard_rows=5)
    plan = needle.plan(made, inputs, [])
    assert [s.work for s in plan.shards] == [{"first": i, "rows": min(5, 24 - i)} for i in range(0, 24, 5)]
    assert {s.split for s in plan.shards} == {"test"}
    whole = rows_of(made, inputs)
    assert len(whole) == made.rows() == 24
    backwards = [needle.build(made, shard, inputs, Tally()) for shard in reversed(plan.shards)]
    again = [[row for batch in batches for row in batch.to_pylist()] for batches in backwards]
    assert [row for rows in reversed(again) for row in rows] == whole
    by_tokens = needle.plan(
        spec(tasks=["passkey"], lengths=[1024], depths=1, repeats=10, shard_tokens=3000), inputs, []
    )
    assert [s.work["rows"] for s in by_tokens.shards] == [2, 2, 2, 2, 2]


def test_train_and_test_have_no_answer_in_common(inputs):
    fields = {"tasks": ALL_TASKS, "lengths": [8192], "depths": 3, "repeats": 6}
    test, train = (rows_of(spec(split=split, **fields), inputs) for split in ("test", "train"))
    for task in set(ALL_TASKS) - {"dictionary"}:
        mine, theirs = ({o for row in rows if row["task"] == task for o in row["outputs"]} for rows in (test, train))
        assert mine, task
        assert mine.isdisjoint(theirs), task


def test_vocabularies_are_disjoint():
    for locale in ("en_US", "zh_CN"):
        assert set(vocabulary.nouns(locale, "test")).isdisjoint(vocabulary.nouns(locale, "train"))
        words = [set(vocabulary.plain_words(locale, split, 20_000)) for split in ("test", "train")]
        assert min(map(len, words)) >= 20_000
        assert words[0].isdisjoint(words[1])


def test_every_value_tells_its_split_and_a_pools_value_its_pool():
    stream = Stream(Draws(0, "test"), 0)
    for _ in range(200):
        for split, parity in (("test", 0), ("train", 1)):
            for pool in (False, True):
                number = vocabulary.number(stream, split, pool=pool)
                assert (len(number), sum(map(int, number)) % 2, int(number[0]) % 2) == (7, parity, not pool)
                uuid = vocabulary.uuid(stream, split, pool=pool)
                assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", uuid)
                assert (int(uuid[-1], 16) % 2, int(uuid[0], 16) % 2) == (parity, not pool)
                node = pools.node(stream.below, split, planted=not pool)
                assert (len(node), int(node[-1], 16) % 2, int(node[0], 16) % 2) == (8, parity, pool)
            word = vocabulary.letters(stream.below, split, 6)
            assert (len(word), (ord(word[-1]) - ord("a")) % 2) == (6, parity)
            key = pools.asked_key(stream.below, split)
            assert key % 10 == (3, 7)[parity]
        assert pools.other_key(stream.below) % 10 not in (3, 7)


def test_a_haystack_of_needles_never_has_the_key_that_is_asked_for(inputs):
    rows = rows_of(
        spec(preset="ruler", tasks=["niah_multikey_2", "niah_multikey_3"], lengths=[8192], depths=4, repeats=3), inputs
    )
    for row in rows:
        key = row["input"].rpartition(" for ")[2].partition(" mentioned")[0]
        assert row["input"].count(f"for {key} is:") == 1, row["id"]
        assert row["input"].count("One of the special magic") > 40


def test_the_preset_is_rulers_thirteen(inputs):
    assert list(RULER) == [
        "niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2", "niah_multikey_3",
        "niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2",
    ]  # fmt: skip
    assert spec(preset="ruler").task_names() == tuple(list(RULER)[:11]), "questions are left out where none are given"
    rows = {r["task"]: r for r in rows_of(spec(preset="ruler", lengths=[4096], depths=[50], repeats=1), inputs)}
    assert rows["niah_single_1"]["input"].count("The grass is green.") > 50
    assert "The grass is green." not in rows["niah_single_2"]["input"]
    assert re.fullmatch(r"[0-9a-f-]{36}", rows["niah_single_3"]["outputs"][0])
    assert re.fullmatch(r"[0-9]{7}", rows["niah_single_2"]["outputs"][0])
    assert len(rows["niah_multikey_1"]["distractors"]) == 3
    assert len(rows["niah_multivalue"]["outputs"]) == 4
    assert len(rows["vt"]["outputs"]) == 5
    assert rows["vt"]["input"].count("The grass is green.") > 50
    counts = {word: rows["cwe"]["input"].count(f". {word} ") for word in rows["cwe"]["outputs"]}
    assert len(counts) == 10
    assert all(28 <= count <= 30 for count in counts.values()), counts
    assert len(rows["fwe"]["outputs"]) == 3


def test_the_commonest_words_are_the_commonest(inputs):
    made = [spec(tasks=["common_words", "frequent_words"], lengths=[8192], repeats=4)]
    made += [spec(tasks=["frequent_words"], lengths=[length], repeats=40, answer_budget=120) for length in (512, 700)]
    for row in [row for one in made for row in rows_of(one, inputs)]:
        body = row["input"][: row["question_start"]].rstrip("\n").split("\n")[-1]
        words = [w for w in body.split() if not re.fullmatch(r"\d+\.|\.{4}", w)]
        counts = {word: words.count(word) for word in set(words)}
        ranked = sorted(counts, key=lambda word: -counts[word])
        answers = row["outputs"]
        assert set(ranked[: len(answers)]) == set(answers)
        assert counts[ranked[len(answers) - 1]] > counts[ranked[len(answers)]]


def test_variables_and_walks_have_the_answers_that_follow_from_the_text(inputs):
    for row in rows_of(spec(tasks=["variable_tracking", "graph_walks"], lengths=[4096], repeats=5), inputs):
        if row["task"] == "variable_tracking":
            value = re.search(r"value (\d+) in the text", row["input"])[1]
            known = {value}
            for name, other in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", row["input"]):
                known |= {name} if other in known else set()
            assert known - {value} == set(row["outputs"])
            continue
        edges: dict[str, set[str]] = {}
        for start, end in re.findall(r"([0-9a-f]{8}) -> ([0-9a-f]{8})", row["input"]):
            edges.setdefault(start, set()).add(end)
        first = re.search(r"Starting at node ([0-9a-f]{8})", row["input"])[1]
        assert {end for node in edges[first] for end in edges[node]} == set(row["outputs"])


def test_dictionaries_pairs_and_rounds_hold_what_is_said(inputs):
    tasks = ["dictionary", "kv", "coreference"]
    for row in rows_of(spec(tasks=tasks, lengths=[4096], depths=4, repeats=3), inputs):
        if row["task"] == "kv":
            pairs = json.loads(row["input"].partition("JSON data:\n")[2].partition("\nKey: ")[0])
            assert pairs[re.search(r'Key: "(.*)"$', row["input"])[1]] == row["outputs"][0]
        elif row["task"] == "dictionary":
            key = re.search(r"value of key (\d+) and", row["input"])[1]
            (line,) = [x for x in row["input"].split("\n") if re.search(rf"[{{ ]{key}: ", x)]
            assert f"{key}: {row['outputs'][0]}" in line
            assert line.startswith(f"{row['outputs'][1]} {{")
            numbers = [int(n) for n in re.findall(r"^Dictionary \[(\d+)\]", row["input"], re.MULTILINE)]
            assert numbers == list(range(1, len(numbers) + 1))
            assert row["messages"][1]["content"].endswith(f"it is in {row['outputs'][1]}.")
        else:
            asked = re.search(r'the (\w+) ([\w ]+) that the assistant wrote on the subject of "(.*)"', row["input"])
            order = ("first", "second", "third", "fourth").index(asked[1])
            said = f'User: Write a {asked[2]} on the subject of "{asked[3]}". Assistant: '
            replies = [x.removeprefix(said) for x in row["input"].split("\n") if x.startswith(said)]
            assert len(replies) == 4
            assert replies[order] == row["outputs"][0]


SHARED = {"who", "which", "whose", "is", "the", "a", "an", "of", "has", "have", "had", "to", "and", "in", "for", "what", "person",
          "character", "'s"}  # fmt: skip


@pytest.mark.parametrize("locale", TEMPLATES)
def test_hidden_facts_share_no_word_with_their_questions(locale):
    assert len(TEMPLATES[locale]) >= 8
    for statement, question in TEMPLATES[locale]:
        if locale == "en_US":
            words = [{w.strip("?.,'").lower() for w in text.split()} - SHARED for text in (statement, question)]
        else:
            words = [{text[i : i + 2] for i in range(len(text) - 1)} for text in (statement, question)]
        assert words[0].isdisjoint(words[1]), (statement, question)


CORPUS = [{"id": i, "text": f"Report {i} says that the {w} is fine. It was {i * 7} o'clock.\n\nNobody asked {w} twice."} for i, w in
          enumerate(["otter", "badger", "heron", "lynx", "marten", "stoat"] * 40)]  # fmt: skip


def test_a_users_corpus_is_a_haystack(builtin):
    given = InMemory(builtin, {"/haystack": CORPUS * 20})
    rows = rows_of(
        spec(tasks=["niah_single"], lengths=[4096], depths=5, repeats=2, haystack={"path": "x.jsonl"}), given
    )
    for row in rows:
        assert counted(builtin, row) == row["n_tokens"]
        assert row["input"].count("Nobody asked") > 50
    assert len({row["input"][200:600] for row in rows}) > 5, "runs begin in different places"


def test_a_corpus_that_is_too_short_is_an_error_unless_it_may_repeat(builtin):
    given = InMemory(builtin, {"/haystack/source": CORPUS[:20]})
    fields: dict[str, Any] = {"tasks": ["passkey"], "lengths": [4096], "haystack": {"source": {"path": "x.jsonl"}}}
    with pytest.raises(
        InputError, match=r"the haystack has about \d+ tokens, a probe of 4096 takes \d+.*repeat: true"
    ) as caught:
        needle.plan(spec(**fields), given, [])
    assert caught.value.param == "/haystack/source"
    rows = rows_of(spec(**fields, depths=2, repeats=1, repeat=True), given)
    assert [counted(builtin, row) for row in rows] == [row["n_tokens"] for row in rows]


def test_bad_rows_of_a_corpus_are_refused_or_counted(builtin):
    given = InMemory(builtin, {"/haystack": [*CORPUS, b"{", {"id": "x"}, *CORPUS * 20]})
    fields: dict[str, Any] = {"tasks": ["passkey"], "lengths": [2048], "depths": 1, "haystack": {"path": "x.jsonl"}}
    with pytest.raises(BadRowError, match=r"haystack.jsonl, row 241: not JSON"):
        needle.plan(spec(**fields), given, [])
    tally = Tally()
    rows_of(spec(**fields, on_bad_row="skip", shard_rows=2), given, tally)
    assert tally.counts["rows_rejected"] == 2
    assert [item["row"] for item in tally.rejected] == [241, 242]


def squad(count: int) -> dict[str, Any]:
    paragraphs = [
        {
            "context": f"The {w}-{i} was built in {1500 + i} by the people of the valley. "
            + f"It is {i} feet tall. " * 20,
            "qas": [
                {
                    "question": f"When was the {w}-{i} built?",
                    "answers": [{"text": str(1500 + i)}, {"text": f"in {1500 + i}"}],
                }
            ],
        }
        for i, w in enumerate(["tower", "bridge", "mill", "barn"] * (count // 4))
    ]
    return {"version": "1.1", "data": [{"title": "Buildings", "paragraphs": paragraphs}]}


def hotpot(count: int) -> list[dict[str, Any]]:
    return [
        {
            "question": f"Which is older, A{i} or B{i}?",
            "answer": f"A{i}",
            "supporting_facts": [[f"A{i}", 0], [f"B{i}", 0]],
            "context": [[f"{letter}{i}", [f"{letter}{i} was founded {age} years ago. ", "It has a wall. " * 15]] for letter, age in
                        (("A", 900), ("B", 400), ("C", 100))],
        }
        for i in range(count)
    ]  # fmt: skip


def test_questions_of_the_users_are_asked(builtin):
    given = InMemory(builtin, {"/qa_1": [squad(160)], "/qa_2": [hotpot(80)]})
    made = spec(
        preset="ruler",
        tasks=["qa_1", "qa_2"],
        qa_1={"path": "s.json"},
        qa_2={"path": "h.json"},
        lengths=[8192],
        depths=5,
        repeats=3,
    )
    rows = rows_of(made, given)
    assert {row["task"] for row in rows} == {"qa_1", "qa_2"}
    assert len(rows) == 18
    for row in rows:
        assert counted(builtin, row) == row["n_tokens"]
        numbers = [int(n) for n in re.findall(r"^Document (\d+):$", row["input"], re.MULTILINE)]
        assert numbers == list(range(1, len(numbers) + 1))
        own = builtin.encode([row["input"]]).ids.tolist()
        gold = [builtin.decode(own[n["start"] : n["end"]]) for n in row["needles"]]
        if row["task"] == "qa_1":
            assert f"built in {row['outputs'][0]} by" in gold[0]
            assert abs(row["needles"][0]["depth"] - row["depth"]) < 3
            assert row["messages"][1]["content"] == f"Answer: {row['outputs'][0]}"
        else:
            assert len(gold) == 2
            assert f"{row['outputs'][0]} was founded" in gold[0]
    flat = [
        {"context": f"Text {i}. " * 30, "question": f"Q{i}?", "answers": {"text": [f"a{i}"], "answer_start": [0]}}
        for i in range(99)
    ]
    (row,) = rows_of(
        spec(preset="ruler", tasks=["qa_1"], qa_1={"path": "f"}, lengths=[2048], depths=1, repeats=1),
        InMemory(builtin, {"/qa_1": flat}),
    )
    assert row["outputs"][0].startswith("a")


def test_sources_of_questions_that_cannot_be_used_are_named(builtin):
    fields: dict[str, Any] = {"preset": "ruler", "tasks": ["qa_1"], "qa_1": {"path": "x"}, "lengths": [2048]}
    with pytest.raises(BadRowError, match=r"qa_1.jsonl, row 2: neither SQuAD's nor HotpotQA's format"):
        needle.plan(spec(**fields), InMemory(builtin, {"/qa_1": [squad(4), {"text": "x"}]}), [])
    with pytest.raises(SourceError, match="no question that has an answer"):
        needle.plan(spec(**fields), InMemory(builtin, {"/qa_1": [{"data": []}]}), [])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n_tokens": 4097}, "has 4103 tokens with its answer, for a length of 4096"),
        ({"n_tokens": 4000}, "has 4006 tokens"),
        ({"outputs": []}, "has no answer"),
        ({"needles": [{"start": 5, "end": 5, "depth": 1.0}]}, "a needle outside of its input"),
        ({"task": "kv"}, "of a length, task or split that the spec does not name"),
        ({"split": "train"}, "of a length, task or split that the spec does not name"),
        ({"question_start": 0}, "no question at question_start"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            "asks its messages something else",
        ),
    ],
)
def test_rows_that_break_a_rule_are_found(inputs, change, says):
    made = spec(tasks=["passkey"], lengths=[4096], depths=1, repeats=1)
    (row,) = rows_of(made, inputs)
    needle.check(made, pa.RecordBatch.from_pylist([row], schemas.NEEDLE))
    with pytest.raises(DatasetError, match=says):
        needle.check(made, pa.RecordBatch.from_pylist([row | change], schemas.NEEDLE))
