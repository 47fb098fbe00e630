"""LongBench's metrics against worked examples, and a made-up directory asked, cut in the middle and scored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packing.dataset.errors import DatasetError
from tests.training.evaluation.conftest import byte_tokenizer, llama
from training.config import parse_config
from training.evaluation import ask as asking
from training.evaluation import longbench_metrics as metrics
from training.evaluation.longbench import LongBench, ask_longbench
from training.evaluation.longbench_tasks import TASKS
from training.evaluation.prompts import Prompts
from training.loop import train

TOKENIZER = byte_tokenizer()


@pytest.mark.parametrize(
    ("metric", "prediction", "answer", "score"),
    [
        (metrics.qa_f1, "The blue, blue boat!", "a blue boat", 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        (metrics.qa_f1, "an", "the", 0.0),
        (metrics.qa_f1, "", "x", 0.0),
        (metrics.qa_f1_zh, "北京。", "“北京市”", 2 * 1 * (2 / 3) / (1 + 2 / 3)),
        (metrics.rouge_l, "the cat sat", "the cat sat", 1.0),
        (metrics.rouge_l, "the cat", "the dog", 0.5),
        # Two sentences with one of two words in common each: sets of 4 words, 2 of them common.
        (metrics.rouge_l, "a b. c d.", "b x. y c.", 0.5),
        # As sets: a word said three times is one.
        (metrics.rouge_l, "up up up", "up down", 2 * 1 * 0.5 / 1.5),
        # Of two longest common subsequences the one without the last word of the prediction.
        (metrics.rouge_l, "b a", "a b", 0.5),
        (metrics.rouge_l, "", "x", 0.0),
        (metrics.rouge_l, "...", "x", 0.0),
        (metrics.rouge_l_zh, "长 城", "长城墙", 2 * 1 * (2 / 3) / (1 + 2 / 3)),
        (metrics.count, "7, or 8; no, 7", "7", 2 / 3),
        (metrics.count, "seven", "7", 0.0),
        (metrics.count, "17", "7", 0.0),
        (metrics.retrieval, "Paragraph 12", "Paragraph 12", 1.0),
        (metrics.retrieval, "12 or 3", "Paragraph 12", 0.5),
        (metrics.retrieval, "段落3", "段落3", 1.0),
        (metrics.code_similarity, "\n# so\n```\nx = 1\ny = 2", "x = 1", 1.0),
        (metrics.code_similarity, "abcd", "abxy", 0.5),
        (metrics.code_similarity, "// all\n# comments", "x", 0.0),
        (metrics.code_similarity, "aab", "bbbbaab", 0.6),
    ],
)
def test_scores_are_those_worked_out_by_hand(metric: Any, prediction: str, answer: str, score: float):
    assert metric(prediction, answer, []) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize(
    ("prediction", "score"),
    [("It is a Cat", 1.0), ("Cat or Dog", 0.5), ("Dog", 0.0), ("Big Cat", 1.0), ("", 0.0)],
)
def test_classes_are_counted_and_their_parts_are_not(prediction: str, score: float):
    """Where the answer is "Big Cat", naming it also names "Cat", which does not count."""
    answer = "Big Cat" if "Big" in prediction else "Cat"
    assert metrics.classification(prediction, answer, ["Cat", "Dog", "Big Cat"]) == score


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.lists(st.sampled_from("abc"), max_size=9), st.lists(st.sampled_from("abc"), max_size=9))
def test_a_longest_common_subsequence_is_one_and_no_shorter_than_any(one: list[str], other: list[str]):
    def inside(part: Sequence[str], whole: Sequence[str]) -> bool:
        rest = iter(whole)
        return all(item in rest for item in part)

    found = metrics.longest_common(one, other)
    assert inside(found, one)
    assert inside(found, other)
    best = 0
    for mask in range(2 ** len(one)):
        part = [item for place, item in enumerate(one) if mask >> place & 1]
        if len(part) > best and inside(part, other):
            best = len(part)
    assert len(found) == best


def row(number: int, *, length: int = 100, **more: Any) -> dict[str, Any]:
    return {
        "input": f"What is the number of box {number}?",
        "context": "There are boxes. " * 20 + f"Box {number} has number {40 + number}. " + "And more. " * 20,
        "answers": [str(40 + number), "none"],
        "all_classes": None,
        "length": length,
        "language": "en",
        "dataset": "made up",
        "_id": str(number),
        **more,
    }


def directory(folder: Path, **tasks: Sequence[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in tasks.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return folder


class Reading:
    """Stands for the decoding: answers the number that the prompt names, if it is still there."""

    def __init__(self, say: Callable[[str], str] = lambda number: f" {number}") -> None:
        self.say = say
        self.texts: list[str] = []

    def __call__(self, model: Any, prompts: Sequence[np.ndarray], **named: Any) -> list[list[int]]:
        texts = [TOKENIZER.decode(prompt.tolist()) for prompt in prompts]
        self.texts += texts
        found = [re.search(r"has number (\d+)", text) for text in texts]
        return [TOKENIZER(self.say(one[1]) if one else "gone")["input_ids"] for one in found]


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    made = Reading()
    monkeypatch.setattr(asking, "greedy", made)
    return made


def asked(folder: Path, model_folder: Path, answers: Path, *, window: int | None = None) -> dict[str, Any]:
    prompts = Prompts(model_folder, chat="auto")
    return ask_longbench(llama(), LongBench(folder), prompts, answers, window=window, batch_tokens=4000, prefill=64)


def test_a_directory_is_asked_and_scored_by_task_and_length(model_folder: Path, tmp_path: Path, reading: Reading):
    classes = ["41", "42", "43"]
    folder = directory(
        tmp_path / "bench",
        qasper=[row(1), row(2, length=5000, answers=["no", "42 boats"]), row(3, length=9000, answers=["no"])],
        trec=[row(n, all_classes=classes, answers=[str(40 + n)]) for n in (1, 2)],
        hotpotqa_e=[row(4, length=4000)],
    )
    reading.say = lambda number: f"\n {number}\nor 43"
    found = asked(folder, model_folder, tmp_path / "a.jsonl")
    f1 = {1: 2 / 4, 2: 2 / 5, 3: 0.0}  # "41 or 43" against "41": one of three words and of one; …
    assert found["tasks"]["qasper"]["score"] == pytest.approx(100 * sum(f1.values()) / 3)
    assert found["tasks"]["qasper"]["lengths"] == {
        "0-4k": {"score": pytest.approx(50.0), "count": 1},
        "4-8k": {"score": pytest.approx(40.0), "count": 1},
        "8k+": {"score": 0.0, "count": 1},
    }
    assert found["tasks"]["trec"]["score"] == 100.0  # the first line alone counts
    assert found["tasks"]["hotpotqa_e"]["lengths"] == {"4-8k": {"score": pytest.approx(50.0), "count": 1}}
    assert found["score"] == pytest.approx((30 + 100 + 50) / 3)
    assert {task["cut"] for task in found["tasks"].values()} == {0}
    chats = ["<|im_start|>user" in text for text in reading.texts]
    assert sorted(chats) == [False, False, True, True, True, True]  # trec goes without the template
    assert "Question: What is the number of box 1?\nAnswer:<|im_end|>" in "".join(reading.texts)
    # What was answered is not asked again.
    reading.texts.clear()
    assert asked(folder, model_folder, tmp_path / "a.jsonl") == found
    assert not reading.texts


def test_what_is_too_long_loses_its_middle(model_folder: Path, tmp_path: Path, reading: Reading):
    """The number stands in the middle. What is left has the window's size, answer and template included."""
    folder = directory(tmp_path / "bench", qasper=[row(1)], lcc=[row(2)])
    found = asked(folder, model_folder, tmp_path / "a.jsonl", window=400)
    assert [found["tasks"][name]["cut"] for name in ("lcc", "qasper")] == [1, 1]
    assert not any("has number" in text for text in reading.texts)
    assert found["tasks"]["qasper"]["score"] == 0.0
    sizes = {
        name: len(TOKENIZER(text)["input_ids"]) for name, text in zip(("lcc", "qasper"), reading.texts, strict=True)
    }
    assert 398 <= sizes["lcc"] + 64 <= 400
    assert 398 <= sizes["qasper"] + 128 <= 400
    assert reading.texts[1].startswith("<|im_start|>user\nRead the text")
    assert reading.texts[1].endswith("box 1?\nAnswer:<|im_end|>\n<|im_start|>assistant\n")
    whole = asked(folder, model_folder, tmp_path / "b.jsonl", window=1400)
    assert whole["tasks"]["qasper"]["score"] == 100.0
    assert {task["cut"] for task in whole["tasks"].values()} == {0}


def test_prompts_and_answer_lengths_beside_the_data_are_taken(model_folder: Path, tmp_path: Path, reading: Reading):
    folder = directory(tmp_path / "bench", hotpotqa_e=[row(1, input="{context}")])
    before = LongBench(folder).digest()
    (folder / "config").mkdir()
    (folder / "config" / "dataset2prompt.json").write_text('{"hotpotqa": "Q {input} C {context}!", "nq": "x"}')
    (folder / "dataset2maxlen.json").write_text('{"hotpotqa": 5}')
    bench = LongBench(folder)
    assert bench.digest() != before
    assert bench.tasks["hotpotqa_e"].budget == 5
    assert TASKS["hotpotqa"].budget == 32
    asked(folder, model_folder, tmp_path / "a.jsonl")
    assert "user\nQ {context} C There are boxes." in reading.texts[0]  # a row's own braces are text
    (folder / "dataset2maxlen.json").write_text('{"hotpotqa": "5"}')
    with pytest.raises(DatasetError, match="hotpotqa must have a whole number"):
        LongBench(folder)
    (folder / "dataset2maxlen.json").write_text("[]")
    with pytest.raises(DatasetError, match="no JSON object"):
        LongBench(folder)


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("boxes", json.dumps(row(1)), "named after no task of LongBench: known are narrativeqa"),
        ("qasper", "{", "qasper.jsonl, line 1 is no JSON"),
        ("qasper", "[1]", "line 1: context must be a text"),
        ("qasper", json.dumps(row(1) | {"input": 3}), "input must be a text, not 3"),
        ("qasper", json.dumps(row(1) | {"answers": "41"}), "answers must be a list of texts"),
        ("qasper", json.dumps(row(1) | {"answers": []}), "no answer"),
        ("qasper", json.dumps(row(1) | {"length": "9"}), "length must be a whole number"),
        ("qasper", json.dumps(row(1) | {"all_classes": [1]}), "all_classes must be a list of texts"),
        ("qasper", "", "has no row"),
    ],
)
def test_what_is_no_longbench_is_named(tmp_path: Path, name: str, line: str, says: str):
    (tmp_path / f"{name}.jsonl").write_text(line + "\n")
    with pytest.raises(DatasetError, match=re.escape(says)):
        LongBench(tmp_path)


def test_an_empty_directory_is_no_longbench(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"holds no <task>\.jsonl"):
        LongBench(tmp_path)


def test_a_run_asks_it_with_the_models_own_answers(
    config_of: Callable[..., dict[str, Any]], model_folder: Path, tmp_path: Path
):
    folder = directory(tmp_path / "bench", passage_count=[row(n) for n in (1, 2)])
    value = config_of(
        model={"preset": None, "path": str(model_folder)},
        steps=3,
        evaluate={"longbench": str(folder), "before": False, "longbench_window": 4096},
    )
    lines: list[str] = []
    train(parse_config(value), say=lines.append, record=lambda m: None)
    place = tmp_path / "run" / "evaluations" / "step-00000003"
    measured = json.loads((place / "longbench.json").read_bytes())
    answers = [json.loads(line) for line in (place / "longbench.jsonl").read_text().splitlines()]
    assert sorted(answer["id"] for answer in answers) == ["passage_count:1", "passage_count:2"]
    scores = [100 * metrics.count(a["prediction"], str(40 + int(a["id"][-1]))) for a in answers]
    assert measured["tasks"]["passage_count"]["score"] == pytest.approx(sum(scores) / 2)
    assert any("step 3 LongBench: " in line for line in lines)
    assert any("longbench_window is 4,096, the model is set for 2,048 positions" in line for line in lines)
    report = json.loads((tmp_path / "run" / "report.json").read_bytes())
    assert report["evaluations"][0]["longbench"]["all"] == measured["score"]
