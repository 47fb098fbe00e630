"""`longweave score` and `longweave export`: tables, pictures, the peers' files read as the peers read them, and bad input."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from packing.dataset.errors import DatasetError
from service.cli import main
from service.commands.export import export
from synth.needles import pictures, scoring
from tests.conftest import conversation, write_lines
from tests.service import needles
from tests.service.needles import ROWS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return needles.build(tmp_path_factory.mktemp("needles"))


@pytest.fixture(scope="module")
def rows(dataset):
    found = needles.rows_of(dataset)
    assert len(found) == ROWS
    return found


def test_the_dataset_is_verified(dataset, capsys):
    assert main(["verify", str(dataset), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == ROWS


def test_the_same_spec_gives_the_same_bytes_in_any_shards(dataset, rows, tmp_path):
    again = needles.build(tmp_path)
    for name in ("manifest.json", "data/test-00000-of-00001.parquet", "charts/needle_depth.vl.json"):
        assert (again / name).read_bytes() == (dataset / name).read_bytes()
    (tmp_path / "apart").mkdir()
    apart = needles.build(tmp_path / "apart", shard_rows=7)
    assert len(list(apart.glob("data/*.parquet"))) == 6
    assert needles.rows_of(apart) == rows


def test_right_answers_score_all_and_wrong_ones_nothing(dataset, rows, tmp_path, capsys):
    answers = needles.write_answers(tmp_path / "p.jsonl", rows)
    assert main(["score", str(dataset), str(answers), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["cells"]) == 2 * (3 * 2 + 1)
    assert {cell["recall"] for cell in report["cells"]} == {1.0}
    assert report["missing"]["count"] == report["duplicates"]["count"] == 0
    wrong = needles.write_answers(
        tmp_path / "w.jsonl", rows, lambda row: "7" if row["length"] == 2048 else needles.right(row)
    )
    main(["score", str(dataset), str(wrong), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert {(c["length"], c["recall"]) for c in report["tasks"]} == {(1024, 1.0), (2048, 0.0)}


def test_the_table_names_missing_and_duplicate_ids(dataset, rows, tmp_path, capsys):
    some = [*rows[:-2], rows[0]]
    assert main(["score", str(dataset), str(needles.write_answers(tmp_path / "p.jsonl", some))]) == 0
    out = capsys.readouterr().out
    assert re.search(r"passkey +1,024 +6 +100\.0%  61\.0% to 100\.0%", out)
    assert f"missing: 2 ({rows[-2]['id']}, {rows[-1]['id']})" in out
    assert f"duplicates: 1 ({rows[0]['id']})" in out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            b'{"id": "nobody", "prediction": "x"}',
            "line 2: 1 predictions are for probes that the dataset has not: nobody",
        ),
        (b"\xff\n", "p.jsonl, line 2: it is not UTF-8"),
        (b'{"id": 1', "p.jsonl, line 2: it is not JSON"),
    ],
)
def test_bad_predictions_are_one_clear_line(dataset, rows, tmp_path, capsys, line, says):
    path = needles.write_answers(tmp_path / "p.jsonl", rows[:1])
    path.write_bytes(path.read_bytes() + line)
    assert main(["score", str(dataset), str(path)]) == 1
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_a_line_that_is_too_long_is_not_read_whole(dataset, rows, tmp_path, capsys, monkeypatch):
    for module in (scoring, sys.modules["service.commands.score"]):
        monkeypatch.setattr(module, "LONGEST_LINE", 200)
    path = needles.write_answers(tmp_path / "p.jsonl", rows[:1], lambda _: "x" * 1000)
    assert main(["score", str(dataset), str(path)]) == 1
    assert "line 1: it has 201 bytes; at most 200 are read" in capsys.readouterr().err


def test_what_is_no_probe_dataset_and_no_file_is_said(tmp_path, dataset, capsys, build, talks):
    assert main(["score", str(dataset), str(tmp_path / "none.jsonl")]) == 1
    assert "none.jsonl cannot be read (No such file" in capsys.readouterr().err
    other = build(talks)
    assert main(["score", str(other), str(tmp_path / "none.jsonl")]) == 1
    assert "is a dataset of kind skipalign; this needs one of kind needle" in capsys.readouterr().err


def test_the_heat_map_is_a_picture(dataset, rows, tmp_path, capsys):
    from PIL import Image

    path = needles.write_answers(
        tmp_path / "p.jsonl", rows, lambda row: needles.right(row) if row["depth"] == 0 else "no"
    )
    assert main(["score", str(dataset), str(path), "--plot", str(tmp_path / "map.png")]) == 0
    assert f"heat map: {tmp_path / 'map.png'}" in capsys.readouterr().out
    with Image.open(tmp_path / "map.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    for name in (pictures.RED, pictures.GREEN):
        wanted = tuple(int(name[i : i + 2], 16) for i in (1, 3, 5))
        assert any(max(abs(a - b) for a, b in zip(wanted, colour, strict=True)) <= 2 for colour in colours), name


def test_without_matplotlib_the_heat_map_is_vega_lite_and_says_so(dataset, rows, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    path = needles.write_answers(tmp_path / "p.jsonl", rows)
    assert main(["score", str(dataset), str(path), "--plot", str(tmp_path / "map.png")]) == 0
    assert "matplotlib is not installed" in capsys.readouterr().out
    chart = json.loads((tmp_path / "map.vl.json").read_text())
    values = chart["data"]["values"]
    assert len(values) == 2 * (3 * 2 + 1)
    assert {v["depth"] for v in values} == {"0", "100", "any"}
    assert chart["encoding"]["x"]["sort"] == ["1024", "2048"]
    assert not (tmp_path / "map.png").exists()


def ruler_reader(folder: Path, task: str) -> list[dict]:
    """RULER's way to its data: `<folder>/<task>/validation.jsonl`, with these fields of these types in every line."""
    found = []
    for line in (folder / task / "validation.jsonl").read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        assert isinstance(sample["index"], int)
        assert isinstance(sample["input"], str)
        assert isinstance(sample["length"], int)
        assert isinstance(sample["answer_prefix"], str)
        assert all(isinstance(output, str) for output in sample["outputs"])
        found.append(sample)
    return found


def test_rulers_files_are_read_as_ruler_reads_them_and_come_back_as_predictions(dataset, rows, tmp_path, capsys):
    out = tmp_path / "ruler"
    assert main(["export", str(dataset), "--format", "ruler", "--out", str(out)]) == 0
    assert f"{ROWS} records in 8 files" in capsys.readouterr().out
    predicted = tmp_path / "pred"
    predicted.mkdir()
    seen = {}
    for length in (1024, 2048):
        for task in needles.FIELDS["tasks"]:
            samples = ruler_reader(out / str(length), task)
            assert [s["index"] for s in samples] == list(range(len(samples)))
            assert all(0.97 * length <= s["length"] <= length for s in samples)
            seen |= {s["others"]["id"]: s for s in samples}
            # what RULER's caller writes of a sample; one file without the id, which is found by the input
            kept = [{k: s[k] for k in ("index", "input", "outputs", "length")} for s in samples]
            lines = [k | {"pred": k["outputs"][0], "others": {}, "truncation": -1} for k in kept]
            if task != "kv":
                lines = [line | {"others": s["others"]} for line, s in zip(lines, samples, strict=True)]
            write_lines(predicted / f"{task}-{length}.jsonl", lines)
    assert {row["id"]: row["input"] for row in rows} == {name: s["input"] for name, s in seen.items()}
    assert main(["score", str(dataset), str(predicted), "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)["tasks"]
    assert {c["task"]: c["recall"] for c in tasks} == {
        "kv": 1,
        "niah_multikey": 1,
        "niah_multivalue": 0.25,
        "passkey": 1,
    }


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_other_formats_have_their_fields(dataset, rows, tmp_path):
    assert export(dataset, "lm-eval", tmp_path / "l") == {
        f"{t}.jsonl": 6 if "multivalue" in t else 12 for t in needles.FIELDS["tasks"]
    }
    document = read(tmp_path / "l" / "passkey.jsonl")[0]
    assert document.keys() >= {"index", "input", "outputs", "length", "max_length", "gen_prefix"}
    assert document["max_length"] == 1024
    assert document["gen_prefix"] == "The pass key is"
    export(dataset, "infinitebench", tmp_path / "i")
    example = read(tmp_path / "i" / "kv_retrieval.jsonl")[0]
    row = next(r for r in rows if r["id"] == example["probe"])
    assert example.keys() >= {"id", "context", "input", "answer", "options"}
    assert example["context"] + example["input"] == row["input"]
    assert example["input"].startswith("Key: ")
    assert example["answer"] == row["outputs"]
    export(dataset, "messages", tmp_path / "m")
    talks = read(tmp_path / "m" / "test.jsonl")
    assert [talk["messages"] for talk in talks] == [r["messages"] for r in rows]
    assert [m["role"] for m in talks[0]["messages"]] == ["user", "assistant"]
    assert talks[0]["messages"][1]["content"] == f"The pass key is {rows[0]['outputs'][0]}"


def test_exports_that_cannot_be_are_refused(dataset, tmp_path, build, talks):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(DatasetError, match="is not empty"):
        export(dataset, "ruler", tmp_path / "full")
    other = build(talks)
    with pytest.raises(DatasetError, match="this needs one of kind needle"):
        export(other, "ruler", tmp_path / "o")
    with pytest.raises(DatasetError, match="have no messages"):
        export(other, "messages", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_probes_train_as_conversations(dataset, rows, tmp_path, build):
    """The messages of an export are a source like any other."""
    export(dataset, "messages", tmp_path / "m")
    source = write_lines(tmp_path / "both.jsonl", [*read(tmp_path / "m" / "test.jsonl"), conversation(1, turns=2)])
    made = build(source, strategy="none", max_length=4096)
    assert len(needles.rows_of(made)) == ROWS + 1
