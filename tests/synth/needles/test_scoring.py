"""Scores equal to the peers', intervals by their textbook values, errors by class, and bad predictions named by line."""

from __future__ import annotations

import json
import re
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.needles import scoring
from synth.needles.scoring import Key, Prediction, PredictionError, evaluate, read_predictions, score


def ruler_all(predictions: list[str], references: list[list[str]]) -> float:
    """RULER's metric over a file, as its documentation says: per cent, the mean share of references found in any case."""
    shares = []
    for prediction, outputs in zip(predictions, references, strict=True):
        shares.append(statistics.mean(1.0 if output.lower() in prediction.lower() else 0.0 for output in outputs))
    return round(100 * statistics.mean(shares), 2)


def ruler_part(predictions: list[str], references: list[list[str]]) -> float:
    """The same for questions: any of the references."""
    hits = [any(o.lower() in p.lower() for o in outputs) for p, outputs in zip(predictions, references, strict=True)]
    return round(100 * sum(hits) / len(hits), 2)


def first_digits(prediction: str) -> str:
    """InfiniteBench: the first item that is not empty when a text is split at everything but digits."""
    return next((item for item in re.split("[^0-9]", prediction) if item), "")


def words_of(prediction: str) -> list[str]:
    """InfiniteBench: ten marks become spaces."""
    return prediction.translate({ord(mark): " " for mark in "\n:\"'.,?!{}"}).split()


ANSWERS = st.lists(st.text(st.sampled_from("ab12-"), min_size=1, max_size=4), min_size=1, max_size=4)
SAID = st.text(st.sampled_from("abAB12 -.,:{}\"'\nx"), max_size=30)


@given(st.lists(st.tuples(SAID, ANSWERS), min_size=1, max_size=20))
def test_ruler_scores_are_rulers(pairs):
    predictions, outputs = [p for p, _ in pairs], [o for _, o in pairs]
    ours = [score("niah_multivalue", p, o) for p, o in pairs]
    assert round(100 * statistics.mean(ours), 2) == ruler_all(predictions, outputs)
    parts = [score("qa_1", p, o) for p, o in pairs]
    assert round(100 * statistics.mean(parts), 2) == ruler_part(predictions, outputs)


@given(SAID, st.integers(0, 99).map(str))
def test_infinitebench_scores_are_infinitebenchs(prediction, answer):
    assert score("passkey", prediction, [answer]) == float(answer == first_digits(prediction))
    assert score("number", prediction, [answer]) == float(answer == first_digits(prediction))
    assert score("kv", prediction, [answer]) == float(answer in words_of(prediction))


def test_scores_by_example():
    assert score("niah_single", "It is 1234567.", ["1234567"]) == 1
    assert score("niah_multivalue", "1 and 2", ["1", "2", "3", "4"]) == 0.5
    assert score("passkey", "key 71432, I think", ["71432"]) == 1
    assert score("passkey", "Of the 2 keys it is 71432", ["71432"]) == 0
    assert score("kv", 'the value is "ab-cd".', ["ab-cd"]) == 1
    assert score("kv", "the value is ab-cd-ef", ["ab-cd"]) == 0
    assert score("dictionary", "The value of key 8 is 45 and it is in Dictionary [12].", ["45", "Dictionary [12]"]) == 1
    assert (
        score("dictionary", "The value of key 8 is 451 and it is in Dictionary [12].", ["45", "Dictionary [12]"]) == 0.5
    )
    assert score("graph_walks", "0123abcd, 89abcdef", ["0123abcd", "89abcdef"]) == 1
    assert score("graph_walks", "0123abcd 11111111", ["0123abcd", "89abcdef"]) == 0.5
    assert score("graph_walks", "none", ["0123abcd"]) == 0
    assert score("coreference", " The rain fell. ", ["The rain fell."]) == 1
    assert 0 < score("coreference", "The rain fell", ["The rain fell twice."]) < 1
    assert score("vt", "ABCDE fghij", ["ABCDE", "FGHIJ"]) == 1, "in any case, as RULER has it"


def key(name: str, **fields) -> Key:
    given = {"id": name, "task": "niah_single", "length": 4096, "depth": 0.0, "outputs": ("1234567",)} | fields
    return Key(**given)


@pytest.mark.parametrize(
    ("task", "outputs", "prediction", "expected"),
    [
        ("niah_single", ("1234567",), "1234567", ""),
        ("niah_single", ("1234567",), "  \n", "empty"),
        ("niah_single", ("1234567",), "it is 1,234,567", "format"),
        ("passkey", ("71432",), "Out of 3 it is 71432", "format"),
        ("niah_multivalue", ("11", "22"), "11", "partial"),
        ("niah_single", ("1234567",), "123456", "partial"),
        ("niah_single", ("1234567",), "7654321", "another needle"),
        ("niah_single", ("1234567",), "I cannot tell", "wrong"),
        (
            "coreference",
            ("The rain fell twice on Monday, and nobody in the whole town minded it.",),
            "The rain fell",
            "partial",
        ),
    ],
)
def test_errors_are_sorted(task, outputs, prediction, expected):
    probe = key("a", task=task, outputs=outputs, distractors=("7654321",))
    assert scoring.error_class(probe, prediction, score(task, prediction, outputs)) == expected


def test_wilsons_interval_has_its_textbook_values():
    assert scoring.wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert scoring.wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert scoring.wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert scoring.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert scoring.wilson(0, 0) == (0.0, 1.0)


def test_a_report_has_cells_intervals_missing_and_duplicates():
    keys = [key(f"p{i}", depth=float(i % 2) * 100, length=4096 * (1 + i // 4)) for i in range(8)]
    keys.append(key("cwe", task="common_words", depth=None, outputs=("a", "b")))
    told = [Prediction(id=f"p{i}", text="1234567" if i != 2 else "no", line=i) for i in range(7)]
    told += [Prediction(id="cwe", text="a", line=8), Prediction(id="p2", text="1234567", line=9)]
    report = evaluate(keys, told).to_json()
    cells = {(c["task"], c["length"], c["depth"]): c for c in report["cells"]}
    assert cells["niah_single", 4096, 0.0]["recall"] == 0.5
    assert cells["niah_single", 4096, 0.0]["count"] == 2
    assert cells["niah_single", 8192, 100.0]["count"] == 1
    assert cells["common_words", 4096, None]["recall"] == 0.5
    tasks = {(c["task"], c["length"]): c for c in report["tasks"]}
    assert tasks["niah_single", 4096]["recall"] == 0.75
    assert tasks["niah_single", 4096]["low"] < 0.75 < tasks["niah_single", 4096]["high"]
    assert report["answered"] == 8
    assert report["missing"] == {"count": 1, "first": ["p7"]}
    assert report["duplicates"] == {"count": 1, "first": ["p2"]}, "and the first answer counts"
    assert report["errors"] == {"common_words": {"partial": 1}, "niah_single": {"wrong": 1}}


def test_unknown_ids_are_named():
    told = [Prediction(id="p1", text="", line=1), Prediction(id="other", text="", line=2)]
    with pytest.raises(PredictionError, match=r"line 2: 1 predictions are for probes that the dataset has not: other"):
        evaluate([key("p1")], told)


def line(**value) -> bytes:
    return json.dumps(value).encode() + b"\n"


def test_predictions_are_read_in_every_form():
    lines = [
        line(id="a", prediction="x"),
        b"\n",
        line(index=0, pred="y", input="i", outputs=["1"], others={"id": "b"}, truncation=-1, length=5),
        line(index=1, pred=["z"], input="what stands there", outputs=["1"], others={}),
    ]
    found = read_predictions(lines)
    assert [(p.id, p.text, p.input, p.line) for p in found] == [
        ("a", "x", "", 1),
        ("b", "y", "", 3),
        ("", "z", "what stands there", 4),
    ]
    report = evaluate([key("a"), key("b"), key("c")], found, by_input={"what stands there": "c"})
    assert [s.key.id for s in report.scored] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"\xff\xfe\n", r"line 2: it is not UTF-8 \(byte 0\)"),
        (b"{\n", r"line 2: it is not JSON"),
        (b"[]\n", r"line 2: it is no object"),
        (line(id="a"), r"line 2: it has no text in the field prediction"),
        (line(prediction="a"), r"line 2: it names no probe"),
        (line(id="a", prediction=3), r"line 2: it has no text"),
        (line(id=7, prediction="x"), r"line 2: it names no probe"),
    ],
)
def test_bad_lines_are_named(bad, reason):
    with pytest.raises(PredictionError, match=reason):
        read_predictions([line(id="z", prediction="x"), bad])


def test_a_line_that_is_too_long_is_named(monkeypatch):
    monkeypatch.setattr(scoring, "LONGEST_LINE", 100)
    with pytest.raises(PredictionError, match=r"line 1: it has 1\d\d bytes; at most 100 are read"):
        read_predictions([line(id="a", prediction="x" * 100)])


def test_thinking_can_be_left_out():
    probe = key("a", task="passkey", outputs=("71432",))
    told = [Prediction(id="a", text="<think>the 1st key?</think> It is 71432", line=1)]
    assert evaluate([probe], told).scored[0].score == 0
    assert evaluate([probe], told, without_thinking=True).scored[0].score == 1
    assert scoring.after_thinking("<think>never ends 71432") == ""
