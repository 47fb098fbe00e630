"""Whole datasets of the kind synl: splits, shards, bytes, bad specs, verify, and what other kinds make of them."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packing.dataset.errors import DatasetError, SpecError
from packing.dataset.reader import read_manifest
from service.cli import main
from service.commands.verify import recompute, verify
from service.engine.preview import plan_ahead
from service.engine.sample import Sample
from service.engine.shard_task import TaskError, run_task
from service.engine.tokenizers import find_tokenizer
from service.kinds import spec_of
from service.storage.objects import Objects
from synth import synl, synl_rows
from synth.audit.parse import table_named
from synth.synl_spec import Spec
from synth.tables.generate import SORTS
from synth.tables.schemas.catalogue import SCHEMAS
from synth.tables.tasks.catalogue import TASKS
from tests.synth.support import build, question_of, rows_of

SMALL = {"samples": 48, "length": {"min": 2000, "max": 5000}, "split": {"train": 2, "test": 1}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return build(tmp_path_factory.mktemp("synl") / "set", **SMALL, shard_rows=10)


def test_a_dataset_is_whole_and_every_answer_right(dataset):
    manifest = verify(dataset)
    rows = rows_of(dataset)
    counts = manifest.counts
    assert recompute(dataset, manifest) == counts["questions"] == sum(len(row["answers"]) for row in rows)
    assert len(rows) == counts["rows"] == 48
    assert {file.path for file in manifest.files} == {
        *(f"data/train-0000{i}-of-00004.parquet" for i in range(4)),
        *(f"data/test-0000{i}-of-00002.parquet" for i in range(2)),
    }
    for file in manifest.files:
        assert set(pq.read_table(dataset / file.path)["split"].to_pylist()) == {file.split}
    assert counts["rows_audited"] >= len(manifest.files)
    assert counts["answers_audited"] >= counts["rows_audited"]
    for name in ("task", "family", "format", "locale", "split"):
        share = "questions" if name in ("task", "family") else "rows"
        assert sum(n for key, n in counts.items() if key.startswith(f"{name}_")) == counts[share]
    assert len({row["id"] for row in rows}) == 48
    assert all(row["family"] == TASKS[row["task"]].family for row in rows)
    charts = {path.name for path in (dataset / "charts").iterdir()}
    assert {"row_tokens.vl.json", "evidence_depth_percent.vl.json", "questions_by_task.vl.json"} <= charts


def test_shards_and_order_change_no_row_and_bytes_are_repeated(dataset, tmp_path):
    class Backwards:
        def run(self, payloads, check):
            for payload in reversed(payloads):
                check()
                yield run_task(payload)

    def digests(folder):
        files = sorted(p for p in folder.rglob("*") if p.is_file() and ".work" not in p.parts)
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    assert digests(build(tmp_path / "again", Backwards(), **SMALL, shard_rows=10)) == digests(dataset)
    assert rows_of(build(tmp_path / "whole", **SMALL)) == rows_of(dataset)
    other = rows_of(build(tmp_path / "other", **SMALL | {"samples": 12}, seed=1))
    assert not {row["messages"][0]["content"] for row in other} & {
        row["messages"][0]["content"] for row in rows_of(dataset)
    }


def test_another_process_gives_the_same_bytes(dataset, tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"kind": "synl", **SMALL, "shard_rows": 10}))
    command = [sys.executable, "-m", "service.cli", "build", spec, "--out", tmp_path / "set", "--workers", "2"]
    subprocess.run(command, check=True, capture_output=True, timeout=150)
    found = {f.path: f.sha256 for f in read_manifest(tmp_path / "set").files}
    assert found == {f.path: f.sha256 for f in read_manifest(dataset).files}
    assert len(found) == 6


def test_nothing_is_shared_between_train_and_test(tmp_path):
    rows = rows_of(
        build(tmp_path / "set", samples=160, length=[2600], split={"train": 1, "test": 1}, turns={"min": 2, "max": 4})
    )
    questions, keys, messages = ({"train": set(), "test": set()} for _ in range(3))
    for row in rows:
        questions[row["split"]] |= {question_of(row, number) for number in range(len(row["answers"]))}
        messages[row["split"]] |= {m["content"] for m in row["messages"] if m["role"] == "user"}
        keys[row["split"]] |= set(re.findall(r"\b[A-Z]{2,4}-\d{6}\b", row["messages"][0]["content"]))
    assert not questions["train"] & questions["test"]
    assert not messages["train"] & messages["test"]
    assert not keys["train"] & keys["test"]
    assert min(len(found[s]) for found in (questions, messages, keys) for s in found) > 200


def test_questions_without_a_key_are_worded_apart_too(tmp_path):
    """Which airline has the most flights? Nothing but the wording tells such questions of the two splits apart."""
    fields = {"tasks": {"group": 1}, "schemas": {"flights": 1}, "reasoning": 0, "turns": {"min": 4, "max": 4}}
    folder = build(
        tmp_path / "set", samples=90, length=[2400], split={"train": 1, "test": 1}, locales={"en_US": 1}, **fields
    )
    asked = {"train": set(), "test": set()}
    for row in rows_of(folder):
        asked[row["split"]] |= {question_of(row, number) for number in range(4)}
    assert min(len(asked["train"]), len(asked["test"])) > 20
    assert not asked["train"] & asked["test"]


def test_shares_are_those_asked_for(tmp_path):
    fields = {"samples": 240, "length": [2000], "turns": {"min": 1, "max": 3}, "reasoning": 0.3, "unanswerable": 0.4}
    tasks = {"lookup": 3, "row": 1, "count": 0}
    counts = read_manifest(build(tmp_path / "set", tasks=tasks, locales={"zh_CN": 1, "fr_FR": 1}, **fields)).counts
    asked = counts["questions"]
    assert abs(counts["questions_with_steps"] / asked - 0.3) < 0.07
    assert abs(counts["questions_unanswerable"] / asked - 0.4) < 0.07
    assert abs(counts["task_lookup"] / asked - 0.75) < 0.07
    assert "task_count" not in counts
    assert abs(counts["locale_fr_FR"] / 240 - 0.5) < 0.1
    assert counts["split_test"] == 5


@pytest.mark.parametrize(
    ("fields", "pointer", "reason"),
    [
        ({"tasks": {"lookup": 0}}, "/tasks", "no task has a weight above zero: give one to any of lookup, "),
        ({"tasks": {"sum": 1}}, "/tasks/sum", "there is no task 'sum'; there are lookup, "),
        ({"formats": {"yaml": 1}}, "/formats/yaml", "there are markdown, csv"),
        ({"formats": {"csv": -1}}, "/formats/csv", "a weight is a number from 0 up"),
        ({"formats": {"csv": float("nan")}}, "/formats/csv", "infinity and NaN are no numbers"),
        ({"locales": {"xx_YY": 1}}, "/locales/xx_YY", "every other locale of Faker"),
        ({"schemas": {"ledger": 1}}, "/tasks/join", "add one of employees, "),
        ({"schemas": {"people": 1}}, "/schemas/people", "there are employees, "),
        ({"length": [4096, 12]}, "/length/1", "greater than or equal to 64"),
        ({"length": {"min": 900, "max": 800}}, "/length", "min (900) is above max"),
        ({"length": {"max": "x"}}, "/length/max", "valid integer"),
        ({"turns": {"min": 3, "max": 2}}, "/turns", "min (3) is above max (2)"),
        ({"reasoning": 1.5}, "/reasoning", "less than or equal to 1"),
        ({"question_first": 2}, "/question_first", "less than or equal to 1"),
        ({"key_first": -1}, "/key_first", "greater than or equal to 0"),
        ({"small_tables": {}}, "/tasks", "say tasks, with weights for lookup, row alone"),
        (
            {"tasks": {"lookup": 1, "sort": 1}, "small_tables": {}},
            "/tasks/sort",
            "give it the weight 0, and one to any of lookup, row",
        ),
        ({"tasks": {"row": 1}, "small_tables": {"columns": {"min": 1}}}, "/small_tables/columns/min", "equal to 2"),
        (
            {"tasks": {"row": 1}, "small_tables": {"columns": {"min": 3, "max": 2}}},
            "/small_tables/columns",
            "min (3) is above max (2)",
        ),
        ({"tasks": {"row": 1}, "small_tables": {"least_rows": 1}}, "/small_tables/least_rows", "equal to 2"),
        ({"tasks": {"row": 1}, "small_tables": {"least_rows": 17}}, "/small_tables/least_rows", "equal to 16"),
        (
            {"tasks": {"row": 1}, "small_tables": {"least_rows": 3, "most_rows": 2}},
            "/small_tables",
            "most_rows (2) is below least_rows (3)",
        ),
        (
            {
                "tasks": {"row": 1},
                "small_tables": {"least_rows": 2, "most_rows": 3},
                "turns": {"min": 4, "max": 4},
                "unanswerable": 0,
            },
            "/turns/max",
            "3 different questions at most can be asked about small_tables.most_rows (3) rows",
        ),
        ({"tasks": {"row": 1}, "small_tables": {"sorts": []}}, "/small_tables/sorts", "at least 1 item"),
        ({"tasks": {"row": 1}, "small_tables": {"sorts": ["key"]}}, "/small_tables/sorts/0", "'reference', 'text'"),
        (
            {"tasks": {"row": 1}, "small_tables": {"sorts": ["reference"], "columns": {"min": 2}}},
            "/schemas/ledger",
            "ledger has 1 column of small_tables.sorts, the key among them, and small_tables.columns.min is 2",
        ),
        ({"split": {"dev": 1}}, "/split/dev", "train and test"),
        ({"samples": 0}, "/samples", "greater than or equal to 1"),
        ({"source": {"path": "x"}}, "/source", "no such field"),
    ],
)
def test_a_bad_spec_names_the_field_and_what_is_possible(fields, pointer, reason):
    with pytest.raises(SpecError) as caught:
        spec_of({"kind": "synl", **fields})
    found = {problem.pointer: problem.message for problem in caught.value.problems}
    assert reason in found[pointer]


def test_every_bad_weight_is_named():
    with pytest.raises(SpecError) as caught:
        spec_of({"kind": "synl", "tasks": {"lookup": -1, "nothing": 1}, "formats": {"csv": 0}, "samples": -3})
    assert {p.pointer for p in caught.value.problems} == {"/tasks/lookup", "/tasks/nothing", "/formats", "/samples"}


@pytest.mark.parametrize(("length", "pointer"), [([9000, 700], "/length/1"), ({"min": 700}, "/length/min")])
def test_a_length_too_small_fails_at_once_and_says_what_is_needed(length, pointer, tmp_path, capsys):
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"kind": "synl", "length": length}))
    assert main(["build", str(spec), "--out", str(tmp_path / "set")]) == 2
    err = capsys.readouterr().err
    least = int(re.search(rf"{pointer}: 700 tokens are too few: .* need (\d+) by this tokenizer", err)[1])
    assert 1000 < least <= 2000
    assert not (tmp_path / "set").exists()


def test_a_spec_survives_json():
    spec = spec_of({"kind": "synl", "length": [4096], "tasks": {"join": 2}})
    assert spec_of(spec.to_json()) == spec
    assert isinstance(spec, Spec)
    assert spec.wanted() == ("rows", 1000)


def test_splits_are_by_weight():
    def rows(samples, **split):
        return synl.split_rows(spec_of({"kind": "synl", "samples": samples, "split": split}))

    assert rows(1000, train=0.98, test=0.02) == {"train": 980, "test": 20}
    assert rows(10, train=0.98, test=0.02) == {"train": 9, "test": 1}
    assert rows(1, train=0.98, test=0.02) == {"train": 1}
    assert rows(10, train=1) == {"train": 10}
    assert rows(10, test=3) == {"test": 10}
    assert rows(10, train=1, test=0) == {"train": 10}


def damaged(batch, name, value):
    row = batch.slice(0, 1).to_pylist()[0]
    return pa.RecordBatch.from_pylist([{**row, name: value(row[name])}], schema=batch.schema)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("split", lambda _: "dev", "its split is 'dev'"),
        ("family", lambda _: "other", "no family 'other'"),
        ("answers", lambda a: a[:-1], "queries and"),
        ("answers", lambda a: [*a[:-1], "no"], "does not end with its answer 'no'"),
        ("messages", lambda m: m[::-1], "not a question and a response"),
        ("n_tokens", lambda n: n + 200, "tokens, and was to have"),
        ("n_tokens", lambda n: n - 200, "tokens, and was to have"),
        ("id", lambda _: "train-one", "does not end with the number of a row"),
        ("id", lambda _: "train-00000048", "not one of the 48"),
        ("evidence", lambda e: [{**e[0], "end": 10**6}], "outside its message"),
        ("evidence", lambda e: [{**e[0], "message": 1}], "message 1"),
    ],
)
def test_a_row_that_breaks_an_invariant_is_found(dataset, column, value, reason):
    spec = spec_of({"kind": "synl", **SMALL})
    (batch,) = pq.read_table(dataset / "data/train-00000-of-00004.parquet").combine_chunks().to_batches()
    synl.check(spec, batch)
    with pytest.raises(DatasetError, match=reason):
        synl.check(spec, damaged(batch, column, value))


def test_a_dataset_without_the_unanswerable_questions_it_was_to_have_says_so(tmp_path):
    warnings = read_manifest(build(tmp_path / "none", samples=4, length=[2000], tasks={"count": 1})).warnings
    assert ["no question is unanswerable" in warning for warning in warnings] == [True]
    assert not read_manifest(build(tmp_path / "unasked", samples=4, length=[2000], unanswerable=0)).warnings


def test_verify_answers_at_the_command_line(dataset, tmp_path, capsys, monkeypatch):
    assert main(["verify", str(dataset), "--answers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"] == read_manifest(dataset).counts["questions"]
    whole = synl_rows.record

    def wrong(row, split, found):
        """A generator with a fault in one row of sixteen, the ones that no audit looks at while they are built."""
        record = whole(row, split, found)
        if row == 5:
            record["answers"][0] += "1"
            record["messages"][1]["content"] += "1"
        return record

    monkeypatch.setattr(synl_rows, "record", wrong)
    folder = build(tmp_path / "wrong", samples=8, length=[2000], split={"train": 1})
    assert main(["verify", str(folder)]) == 0
    assert main(["verify", str(folder), "--answers"]) == 1
    err = capsys.readouterr().err
    assert "data/train-00000-of-00001.parquet: row train-00000005, question 1: the answer is" in err


def test_a_wrong_answer_stops_the_build(tmp_path, monkeypatch):
    whole = synl_rows.record

    def wrong(row, split, found):
        record = whole(row, split, found)
        return record | {"answers": ["nonsense" for _ in record["answers"]]}

    monkeypatch.setattr(synl_rows, "record", wrong)
    with pytest.raises(TaskError, match="row train-00000000, question 1: the answer is"):
        build(tmp_path / "set", samples=2, length=[2000])


def test_only_synl_has_answers_to_recompute(talks, tmp_path, capsys):
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"kind": "skipalign", "source": {"path": str(talks)}}))
    assert main(["build", str(spec), "--out", str(tmp_path / "set")]) == 0
    assert main(["verify", str(tmp_path / "set"), "--answers"]) == 1
    assert "--answers is for datasets of kind synl" in capsys.readouterr().err


@pytest.mark.parametrize("strategy", ["none", "outer"])
def test_a_dataset_goes_straight_into_skipalign(dataset, tmp_path, capsys, strategy):
    spec = tmp_path / "spec.json"
    fields = {"source": {"path": str(dataset)}, "strategy": strategy, "max_length": 8192, "max_position": 65536}
    spec.write_text(json.dumps({"kind": "skipalign", **fields}))
    assert main(["build", str(spec), "--out", str(tmp_path / "rows")]) == 0
    rows = rows_of(tmp_path / "rows")
    given = {row["id"]: row for row in rows_of(dataset) if row["split"] == "train"}
    assert [row["source_ids"] for row in rows] == [[name] for name in given]
    assert all(row["n_tokens"] == given[row["source_ids"][0]]["n_tokens"] for row in rows)


def test_a_mixture_takes_a_dataset_or_the_spec_of_one(dataset, tmp_path):
    spec = tmp_path / "spec.json"
    parts = [
        {"name": "built", "source": {"path": str(dataset)}, "weight": 0.5},
        {"name": "inline", "spec": {"kind": "synl", "samples": 12, "length": [2000]}, "weight": 0.5},
    ]
    spec.write_text(
        json.dumps({"kind": "mixture", "parts": parts, "total": 40_000, "max_length": 8192, "max_epochs": 4})
    )
    assert main(["build", str(spec), "--out", str(tmp_path / "rows")]) == 0
    tokens = {
        name: sum(r["n_tokens"] for r in rows_of(tmp_path / "rows") if r["part"] == name)
        for name in ("built", "inline")
    }
    assert all(abs(count - 20_000) < 5000 for count in tokens.values()), tokens


@pytest.mark.parametrize(
    ("samples", "split", "smaller"),
    [
        (10_000_000, {"train": 0.98, "test": 0.02}, True),
        (10_000_000, {"test": 1}, True),
        (10_000_000, {"train": 1}, True),
        (10_000_000, {"train": 1e-5, "test": 1}, False),
        (4000, {"train": 1}, False),
    ],
)
def test_a_sample_is_planned_over_the_first_rows_of_the_whole_alone(samples, split, smaller):
    whole = spec_of({"kind": "synl", "samples": samples, "split": split})
    sample = whole.for_sample()
    assert (sample.samples < 5000) is (smaller or samples < 5000)
    assert (sample != whole) is smaller
    first, rows = next(iter(synl.split_rows(sample).items()))
    whole_first, whole_rows = next(iter(synl.split_rows(whole).items()))
    assert first == whole_first
    assert rows == whole_rows if not smaller else whole_rows >= rows == 4096
    numbers = np.arange(min(rows, 50))
    assert synl._lengths(sample, numbers).tolist() == synl._lengths(whole, numbers).tolist()


def test_an_estimate_of_ten_million_rows_plans_no_ten_million(monkeypatch, tmp_path):
    planned, real = [], synl.targets

    def counted(*given, rows, **options):
        planned.append(len(rows))
        return real(*given, rows=rows, **options)

    monkeypatch.setattr(synl, "targets", counted)
    tokenizer, objects = find_tokenizer("builtin"), Objects.local(tmp_path)
    shards = []
    for samples in (4000, 10_000_000):
        fields = {"formats": {"csv": 1}, "schemas": {"employees": 1}, "tasks": {"lookup": 1}}
        spec = spec_of({"kind": "synl", "samples": samples, **fields})
        plan_ahead(spec=spec, tokenizer=tokenizer, objects=objects)
        shards.append(Sample(spec, {}, tokenizer, objects, most=1).shards({}))
    assert shards[1] == pytest.approx(shards[0] * 2500, rel=0.1)
    assert 0 < max(planned) <= 4096


def test_a_preview_shows_rows_at_once(tmp_path, capsys):
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"kind": "synl", "samples": 1_000_000, "length": [2000]}))
    assert main(["preview", str(spec), "-n", "2", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == ["train-00000000", "train-00000001"]
    assert main(["preview", str(spec), "-n", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"row 0 · id train-00000000 · split train · task {rows[0]['task']} · ")
    assert f"    | {rows[0]['messages'][1]['content'].splitlines()[-1]}\n" in out
    assert f"({len(rows[0]['messages'][0]['content'])} characters)" in out


@pytest.mark.parametrize(
    ("columns", "sorts", "rows", "key_first"),
    [
        ((2, 2), ("number",), (2, None), 1.0),
        ((2, 2), ("number",), (2, 2), 1.0),
        ((2, 2), ("number",), (2, 4), 1.0),
        ((2, 2), ("number",), (16, 16), 1.0),
        ((3, 4), ("category", "date"), (6, None), 0.0),
    ],
)
def test_small_tables_have_the_columns_and_rows_they_are_to(columns, sorts, rows, key_first, tmp_path):
    least, most = rows
    small = {"columns": dict(zip(("min", "max"), columns, strict=True)), "sorts": sorts, "least_rows": least}
    small |= {"most_rows": most} if most else {}
    schemas = {"patients": 1, "flights": 1} if columns == (2, 2) else {"sensors": 1, "ledger": 1}
    fields = {"tasks": {"lookup": 2, "row": 1}, "schemas": schemas, "locales": {"en_US": 1}}
    shape = {"key_first": key_first, "question_first": 0.0, "turns": {"min": 2, "max": 2}, "reasoning": 1.0}
    length = [900 if columns != (2, 2) else 1200 if least == 16 else 520]
    folder = build(tmp_path / "set", samples=60, length=length, small_tables=small, **fields, **shape)
    assert recompute(folder, verify(folder)) == 120
    seen, first, heights = set(), set(), set()
    for row in rows_of(folder):
        content, query = row["messages"][0]["content"], json.loads(row["queries"][0])
        grid = table_named(content, query["table"], row["format"])
        main = next(SCHEMAS[name].main for name in schemas if SCHEMAS[name].main.name[0] == query["table"])
        contents = {field.english: SORTS[type(field.content)] for field in main.fields}
        assert {contents[title] for title in grid.titles} <= {"key", *sorts}
        seen.add(len(grid.titles))
        first.add(contents[grid.titles[0]] == "key")
        heights.add(len(grid.rows))
        assert row["n_tokens"] <= length[0]
        assert len(grid.rows) == most or row["n_tokens"] >= 0.93 * length[0]
        assert content.startswith("Table: ") or "\n\nTable: " in content.partition("?")[0]
    assert seen == set(range(columns[0], columns[1] + 1))
    assert first == {key_first == 1.0} or (key_first == 0.0 and first == {True, False})
    assert least <= min(heights)
    assert max(heights) == most if most else max(heights) > least


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_schema_serves_every_task_it_can(schema, tmp_path):
    tasks = {name: 1 for name, task in TASKS.items() if SCHEMAS[schema].second is not None or not task.joins}
    folder = build(
        tmp_path / "set", samples=16, length=[3400], schemas={schema: 1}, tasks=tasks, turns={"min": 3, "max": 4}
    )
    manifest = read_manifest(folder)
    assert recompute(folder, manifest) == manifest.counts["questions"] >= 48
    assert sum(key.startswith("task_") for key in manifest.counts) >= len(tasks) - 2
