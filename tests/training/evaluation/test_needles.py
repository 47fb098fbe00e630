"""Probes asked while training: what is asked, how it is scored, and that a cut evaluation goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from packing.dataset.errors import DatasetError, TokenizerError
from packing.dataset.manifest import Manifest
from tests.training.evaluation.conftest import byte_tokenizer, llama, probe
from training.config import ModelConfig, parse_config
from training.evaluation import ask as asking
from training.evaluation.measure import Evaluations
from training.evaluation.needles import NeedleProbes, ask
from training.evaluation.prompts import Prompts
from training.loop import train
from training.messages import BUILTIN, tokenizer_folder

Build = Callable[..., dict[str, Any]]
Needles = Callable[[Sequence[dict[str, Any]]], Path]
TOKENIZER = byte_tokenizer()


class Answering:
    """Stands for the decoding: reads the pass key out of the prompt, and answers as it is told to."""

    def __init__(self, say: Callable[[str], str] = lambda key: f" {key}.") -> None:
        self.say = say
        self.batches: list[list[str]] = []

    def __call__(self, model: Any, prompts: Sequence[np.ndarray], **named: Any) -> list[list[int]]:
        texts = [TOKENIZER.decode(prompt.tolist()) for prompt in prompts]
        self.batches.append(texts)
        keys = [re.search(r"pass key is (\d+)", text)[1] for text in texts]  # type: ignore[index]
        return [TOKENIZER(self.say(key))["input_ids"] for key in keys]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Answering:
    made = Answering()
    monkeypatch.setattr(asking, "greedy", made)
    return made


def test_a_prompt_is_the_template_with_the_prefix_begun(model_folder: Path):
    prompts = Prompts(model_folder, chat="auto")
    text = TOKENIZER.decode(prompts.prompt("Q?", " The pass key is").tolist())
    assert text == "<|im_start|>user\nQ?<|im_end|>\n<|im_start|>assistant\nThe pass key is"
    assert prompts.stops == {256, 258}  # the end of text and of a message; not the beginning of one
    plain = Prompts(model_folder, chat="none")
    assert TOKENIZER.decode(plain.prompt("Q?", " The pass key is").tolist()) == "Q? The pass key is"
    assert plain.stops == {256}


def test_a_base_model_without_a_template_takes_the_text(tmp_path: Path):
    byte_tokenizer(chat=False).save_pretrained(tmp_path)
    prompts = Prompts(tmp_path, chat="auto")
    assert not prompts.chat
    assert TOKENIZER.decode(prompts.prompt("Q?", " A").tolist()) == "Q? A"


def test_the_builtin_tokenizer_is_taken_where_the_data_were_made_with_it(tiny_manifest: Manifest):
    tiny = ModelConfig(preset="tiny")
    assert tokenizer_folder(tiny, tiny_manifest) is None
    digest = sha256((BUILTIN / "tokenizer.json").read_bytes()).hexdigest()
    assert tokenizer_folder(tiny, replace(tiny_manifest, tokenizer={"sha256": digest})) == BUILTIN
    assert tokenizer_folder(ModelConfig(path="a", tokenizer="b"), tiny_manifest) == Path("b")
    assert tokenizer_folder(ModelConfig(path="a"), tiny_manifest) == Path("a")
    builtin = Prompts(BUILTIN, chat="auto")
    assert len(builtin.stops) == 2
    assert builtin.decode(builtin.encode("pass key 12345").tolist()) == "pass key 12345"


def test_answers_are_scored_and_classed(model_folder: Path, needles_of: Needles, tmp_path: Path, answering: Answering):
    rows = [probe(n, length=512 * (1 + n % 2), depth=[0.0, 100.0][n // 4]) for n in range(8)]
    keys = [row["outputs"][0] for row in rows]
    wrong = {keys[0]: "", keys[1]: keys[1][::-1], keys[2]: "no idea", keys[3]: "the 7 " + keys[3]}
    answering.say = lambda key: wrong.get(key, f" {key}.")
    prompts = Prompts(model_folder, chat="auto")
    report = ask(llama(), NeedleProbes(needles_of(rows)), prompts, tmp_path / "a.jsonl", batch_tokens=10**6, prefill=64)
    assert report["answered"] == 8
    assert report["errors"] == {"passkey": {"another needle": 1, "empty": 1, "format": 1, "wrong": 1}}
    assert [(c["length"], c["depth"], c["recall"]) for c in report["cells"]] == [
        *((512, 0.0, 0.0), (512, 100.0, 1.0), (1024, 0.0, 0.0), (1024, 100.0, 1.0)),
    ]
    assert [(c["length"], c["recall"], c["count"]) for c in report["lengths"]] == [(512, 0.5, 4), (1024, 0.5, 4)]


def test_batches_hold_no_more_than_they_may(model_folder: Path, needles_of: Needles):
    rows = [probe(n, filler=[5, 60, 20][n % 3]) for n in range(12)]
    probes = NeedleProbes(needles_of(rows))
    prompts = Prompts(model_folder, chat="none")
    most = 2200
    found = list(probes.batches(prompts, most))
    assert sorted(p.key.id for batch in found for p in batch) == sorted(row["id"] for row in rows)
    for batch in found:
        size = max(len(p.prompt) + p.budget for p in batch) * len(batch)
        assert size <= most or len(batch) == 1
    assert max(len(batch) for batch in found) >= 3
    assert all(len(batch) == 1 for batch in probes.batches(prompts, 1))


def test_a_cut_evaluation_goes_on_with_the_answers_it_has(
    model_folder: Path, needles_of: Needles, tmp_path: Path, answering: Answering
):
    probes, prompts = NeedleProbes(needles_of([probe(n) for n in range(9)])), Prompts(model_folder, chat="none")
    path = tmp_path / "answers.jsonl"

    def asked() -> dict[str, Any]:
        answering.batches.clear()
        return ask(llama(), probes, prompts, path, batch_tokens=1600, prefill=64)

    whole = asked()
    lines, batches = path.read_bytes(), len(answering.batches)
    assert batches == 5
    assert [json.loads(line).keys() for line in lines.splitlines()] == [{"id", "prediction"}] * 9
    # Batches have 2, 2, 1, 2 and 2 probes: cut in the middle of the seventh line, between the two of the fourth.
    path.write_bytes(b"".join(lines.splitlines(keepends=True)[:7])[:-20])
    assert asked() == whole
    assert path.read_bytes() == lines
    assert len(answering.batches) == 2
    assert asked() == whole
    assert not answering.batches


def test_a_run_evaluates_before_at_intervals_and_at_its_end(
    config_of: Build, model_folder: Path, needles_of: Needles, tmp_path: Path
):
    """With the model's own answers; and nothing of the training changes."""
    folder = needles_of([probe(n, filler=8, n_tokens=5000) for n in range(4)])
    plain = config_of(model={"preset": None, "path": str(model_folder)}, checkpoint={"dir": str(tmp_path / "plain")})
    asked = plain | {"evaluate": {"needles": str(folder), "every": 3}, "checkpoint": {"dir": str(tmp_path / "run")}}
    asked["checkpoint"] |= {"every": 4}
    lines: list[str] = []
    train(parse_config(plain), say=lines.append, record=lambda m: None)
    train(parse_config(asked), say=lines.append, record=lambda m: None)
    places = sorted(path.name for path in (tmp_path / "run" / "evaluations").iterdir())
    assert places == [f"step-{n:08d}" for n in (0, 3, 6, 8)]
    newest = json.loads((tmp_path / "run" / "needles.json").read_bytes())
    assert newest["step"] == 8
    assert newest["answered"] == 4
    assert newest["chat"] is True
    assert (tmp_path / "run" / "needles.png").read_bytes().startswith(b"\x89PNG")
    assert sum("recall at 512: " in line for line in lines) == 4
    assert any("5,000 tokens, the model is set for 2,048 positions" in line for line in lines)
    weights = [(tmp_path / name / "step-00000008" / "model.safetensors").read_bytes() for name in ("plain", "run")]
    assert weights[0] == weights[1]


def test_a_run_that_was_cut_in_an_evaluation_does_it_again(
    config_of: Build, model_folder: Path, needles_of: Needles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = needles_of([probe(n, filler=8) for n in range(4)])
    value = config_of(
        model={"preset": None, "path": str(model_folder)},
        evaluate={"needles": str(folder), "every": 4},
        checkpoint={"every": 3},
    )
    run = tmp_path / "run"

    def go() -> list[str]:
        lines: list[str] = []
        train(parse_config(value), say=lines.append, record=lambda m: None)
        return [line for line in lines if "needles: recall" in line]

    assert len(go()) == 3
    first = {path.name: (path / "needles.json").read_bytes() for path in (run / "evaluations").iterdir()}
    # As if killed while the last was written: its checkpoint is there, and the run has nothing else to do.
    (run / "evaluations" / "step-00000008" / "done.json").unlink()
    (run / "evaluations" / "step-00000008" / "needles.json").unlink()
    assert len(go()) == 1
    assert go() == []
    assert {path.name: (path / "needles.json").read_bytes() for path in (run / "evaluations").iterdir()} == first
    # Settings that changed make another evaluation, of the same run: evaluation is no part of what a run is.
    value["evaluate"]["chat"] = "none"
    assert len(go()) == 1
    assert json.loads((run / "needles.json").read_bytes())["chat"] is False


def test_evaluations_of_steps_that_are_taken_again_are_dropped(
    config_of: Build, model_folder: Path, needles_of: Needles, tmp_path: Path, tiny_manifest: Manifest
):
    value = config_of(
        model={"preset": None, "path": str(model_folder)}, evaluate={"needles": str(needles_of([probe(0)]))}
    )
    for step in (0, 3, 6):
        (tmp_path / "evaluations" / f"step-{step:08d}").mkdir(parents=True)
    Evaluations(parse_config(value), tmp_path, tiny_manifest, print, after=3)
    assert sorted(path.name for path in (tmp_path / "evaluations").iterdir()) == ["step-00000000", "step-00000003"]


def test_what_cannot_be_asked_is_told_before_any_step(
    config_of: Build, model_folder: Path, needles_of: Needles, dataset: Path, tmp_path: Path
):
    def refused(kind: type[Exception], words: str, **sections: Any) -> None:
        with pytest.raises(kind, match=words):
            train(parse_config(config_of(**sections)), say=lambda line: None, record=lambda m: None)
        assert not list((tmp_path / "run").glob("metrics.jsonl"))

    own = {"preset": None, "path": str(model_folder)}
    refused(DatasetError, "holds no needle probes", model=own, evaluate={"needles": str(dataset)})
    refused(DatasetError, "holds no manifest.json", model=own, evaluate={"needles": str(tmp_path / "none")})
    folder = needles_of([probe(0)])
    refused(TokenizerError, "a preset has none", evaluate={"needles": str(folder)})
    llama(64).save_pretrained(model_folder)
    refused(DatasetError, "has 259 tokens, the model 64", model=own, evaluate={"needles": str(folder)})
    (model_folder / "tokenizer.json").unlink()
    (model_folder / "tokenizer_config.json").unlink()
    refused(TokenizerError, "no tokenizer can be read", model=own, evaluate={"needles": str(folder)})


def test_a_damaged_probe_ends_the_run_with_the_files_name(model_folder: Path, needles_of: Needles, tmp_path: Path):
    folder = needles_of([probe(n) for n in range(3)])
    (shard,) = folder.glob("data/*.parquet")
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DatasetError, match="test-00000-of-00001"):
        ask(
            llama(),
            NeedleProbes(folder),
            Prompts(model_folder, chat="none"),
            tmp_path / "a.jsonl",
            batch_tokens=99,
            prefill=9,
        )
    assert torch.is_grad_enabled()


def test_answers_of_other_ranks_are_joined_each_once(
    model_folder: Path, needles_of: Needles, tmp_path: Path, answering: Answering
):
    """As a kill leaves them: a part half joined, another with a line that was cut."""
    probes, prompts = NeedleProbes(needles_of([probe(n) for n in range(9)])), Prompts(model_folder, chat="none")
    path = tmp_path / "answers.jsonl"
    whole = ask(llama(), probes, prompts, path, batch_tokens=1600, prefill=64)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))
    (tmp_path / "answers-00001.jsonl").write_bytes(b"".join(lines[2:6]))
    (tmp_path / "answers-00003.jsonl").write_bytes(b"".join(lines[6:9])[:-9])
    answering.batches.clear()
    assert ask(llama(), probes, prompts, path, batch_tokens=1600, prefill=64) == whole
    assert sorted(path.read_bytes().splitlines(keepends=True)) == sorted(lines)
    assert len(answering.batches) == 1
    assert sorted(tmp_path.glob("answers*")) == [path]
