"""Loss on texts: every token once, by the windows that are declared, equal to what is computed plainly."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from packing.dataset.errors import DatasetError
from tests.training.evaluation.conftest import llama
from training.config import parse_config
from training.evaluation.prompts import Prompts
from training.evaluation.texts import Texts, text_loss, windows
from training.loop import train

Build = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 31, 64])
@pytest.mark.parametrize(("window", "stride"), [(8, 3), (8, 7), (2, 1), (100, 50)])
def test_every_token_but_the_first_is_scored_once_with_enough_before_it(count: int, window: int, stride: int):
    scored: list[int] = []
    for start, stop, first in windows(count, window=window, stride=stride):
        assert stop - start <= window
        assert first - start >= min(first, window - stride)
        scored.extend(range(first, stop))
    assert scored == list(range(1, count))


def test_the_loss_is_what_the_model_says(model_folder: Path, tmp_path: Path):
    """Against logits taken token by token, each from its own window alone."""
    folder = tmp_path / "texts"
    folder.mkdir()
    said = ["A short text, of 30 tokens so.", "Ünïcode äöü 长上下文"]
    for number, text in enumerate(said):
        (folder / f"{number}.txt").write_text(text)
    model, prompts = llama(), Prompts(model_folder, chat="auto")
    found = text_loss(model, Texts(folder), prompts, window=16, stride=8, most_tokens=10**6)
    expected: list[float] = []
    for text in said:
        ids = torch.from_numpy(prompts.encode(text)).long()
        for place in range(1, len(ids)):
            start = max(0, -(-(place - 15) // 8) * 8)
            with torch.no_grad():
                logits = model.eval()(input_ids=ids[None, start:place]).logits[0, -1]
            expected.append(-logits.log_softmax(-1)[ids[place]].item())
    assert found["tokens"] == len(expected) == sum(len(text.encode()) for text in said) - 2
    assert found["loss"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert found["documents"] == 2
    assert found["cut"] is False
    whole = text_loss(model, Texts(folder), prompts, window=100, stride=50, most_tokens=10**6)
    assert whole["loss"] != found["loss"]
    cut = text_loss(model, Texts(folder), prompts, window=16, stride=8, most_tokens=20)
    assert (cut["tokens"], cut["documents"], cut["cut"]) == (19, 1, True)
    assert cut["loss"] == pytest.approx(sum(expected[:19]) / 19, rel=1e-5)
    # A token is a byte here, so bits a byte are the loss in bits.
    assert cut["bits_per_byte"] == pytest.approx(cut["loss"] / math.log(2))


def test_texts_are_read_from_every_container(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b" / "c.jsonl").write_text('{"text": "two"}\n\n{"text": "three", "id": 1}\n{"text": " "}\n')
    pq.write_table(pa.table({"text": ["four"]}), tmp_path / "d.parquet")
    (tmp_path / "e.bin").write_bytes(b"\xff")
    assert list(Texts(tmp_path)) == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"txt": "y"}\n', "line 2 has no text"),
        ("a.jsonl", b'{"text": "x"}\n{"text":\n', "cannot be read"),
        ("a.txt", b"\xff\xfe", "cannot be read"),
        ("a.txt", b"  ", "holds no text"),
        ("a.bin", b"x", "holds no text"),
        ("a.parquet", b"PAR1", "no whole Parquet"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, name: str, data: bytes, says: str):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DatasetError, match=says):
        list(Texts(tmp_path))


def test_a_dataset_without_texts_is_refused(dataset: Path):
    with pytest.raises(DatasetError, match="no column text"):
        Texts(dataset)


def test_a_run_measures_its_texts(config_of: Build, model_folder: Path, tmp_path: Path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("It was short. " * 30)
    value = config_of(model={"preset": None, "path": str(model_folder)}, evaluate={"texts": str(folder), "every": 4})
    lines: list[str] = []
    train(parse_config(value), say=lines.append, record=lambda m: None)
    measured = [json.loads(path.read_bytes()) for path in sorted((tmp_path / "run").glob("evaluations/*/texts.json"))]
    assert [found["step"] for found in measured] == [0, 4, 8]
    assert len({found["loss"] for found in measured}) == 3
    assert sum("texts: loss" in line for line in lines) == 3
    assert [found["longer_windows"] for found in measured] == [[]] * 3
    # Other texts of the same name make another evaluation, although the run has nothing left to train.
    (folder / "a.txt").write_text("Something else. " * 30)
    train(parse_config(value), say=lines.append, record=lambda m: None)
    assert sum("texts: loss" in line for line in lines) == 4


def test_texts_are_measured_by_longer_windows_too(config_of: Build, model_folder: Path, tmp_path: Path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("It was long, and went on. " * 12)
    asked = {"texts": str(folder), "window": 32, "stride": 8, "longer_windows": [64, 128]}
    model = {"preset": None, "path": str(model_folder)}
    train(parse_config(config_of(model=model, evaluate=asked, steps=3)), say=lambda _: None, record=lambda m: None)
    found = json.loads((tmp_path / "run" / "evaluations" / "step-00000000" / "texts.json").read_bytes())
    for part, (window, stride) in zip((found, *found["longer_windows"]), ((32, 8), (64, 32), (128, 64)), strict=True):
        assert (part["window"], part["stride"]) == (window, stride)
        prompts = Prompts(model_folder, chat="auto")
        wanted = text_loss(llama(), Texts(folder), prompts, window=window, stride=stride, most_tokens=10**6)
        assert part["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    assert len({found["loss"], *(part["loss"] for part in found["longer_windows"])}) == 3
