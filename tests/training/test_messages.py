"""Rows of messages as rows of tokens: what packing writes of the same conversations, token for token and label for label."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packing.dataset.errors import DatasetError, TokenizerError
from packing.dataset.manifest import NAME, Manifest
from packing.dataset.schema import SYNL
from packing.dataset.writer import write_shard
from packing.tokenizers import BUILTIN
from tests.conftest import conversation, write_lines
from tests.packing import templates
from training.config import ModelConfig, parse_config
from training.loop import train
from training.messages import BUILTIN as BUILTIN_OF_TRAINING
from training.messages import ChatEncoder, chat_encoder, read_tokenizer
from training.source import open_source
from training.stream import DataState, RowStream

SYNL_SPEC: dict[str, Any] = {
    "kind": "synl",
    "samples": 16,
    "tasks": {"lookup": 1, "row": 1},
    "formats": {"csv": 1},
    "locales": {"en_US": 1},
    "turns": {"min": 1, "max": 2},
    "length": {"min": 1000, "max": 1600, "draw": "uniform"},
    "split": {"train": 1, "test": 1},
}


def encoder_of(folder: Path, template: str) -> ChatEncoder:
    """The builtin tokenizer with another template."""
    shutil.copytree(BUILTIN, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    tokens = {"bos_token": "<|reserved_0|>", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | tokens | {"chat_template": template}))
    return ChatEncoder(read_tokenizer(folder), where="a test")


def test_the_builtin_tokenizer_is_found_without_packing():
    assert BUILTIN_OF_TRAINING == BUILTIN


TEMPLATES = templates.ALL | {name: templates.FAMILIES[name] for name in ("qwen", "mistral")}


@pytest.mark.parametrize("name", TEMPLATES)
def test_rows_equal_what_packing_writes_of_the_same_conversations(tmp_path: Path, build: Any, name: str):
    """Ids, labels, boundaries and positions of strategy `none`, under templates with a clock, thinking, plain words for borders …"""
    encoder = encoder_of(tmp_path / "tokenizer", TEMPLATES[name])
    talks = [
        conversation(i, turns=1 + i % 4, system=name in {"chatml", "qwen", "mistral"} and i % 2 == 0) for i in range(24)
    ]
    for talk in talks[:6]:  # contents that a template trims
        talk["messages"][-1]["content"] = "\n " + talk["messages"][-1]["content"] + " \n"
    path = write_lines(tmp_path / "talks.jsonl", talks)
    out = build(path, strategy="none", tokenizer=str(tmp_path / "tokenizer"), max_length=100_000)
    rows = pq.read_table(next((out / "data").iterdir())).to_pylist()
    assert len(rows) == len(talks)
    learnt = 0
    for talk, wanted in zip(talks, rows, strict=True):
        row = encoder.row(talk["messages"], name="row")
        for column in ("input_ids", "labels", "position_ids", "seq_lengths"):
            assert getattr(row, column).tolist() == wanted[column], column
            assert getattr(row, column).dtype == np.int32
        learnt += int((row.labels != -100).sum())
    assert learnt > 24 * 5


def test_a_row_that_spells_a_special_token_or_is_refused_by_the_template_is_named(tmp_path: Path):
    encoder = encoder_of(tmp_path / "tokenizer", templates.BRACKETS)
    with pytest.raises(DatasetError, match=r"row 7 spells the special token '<\|im_end\|>'"):
        encoder.row([{"role": "user", "content": "a<|im_end|>b"}], name="row 7")
    with pytest.raises(DatasetError, match=r"row 8 is refused by the model's chat template .only user and assistant"):
        encoder.row([{"role": "system", "content": "a"}], name="row 8")
    rewriting = "{% for m in messages %}{{ m.role }}: {{ m.content | replace('a', 'b') }}{% endfor %}"
    encoder = encoder_of(tmp_path / "rewriting", rewriting)
    with pytest.raises(DatasetError, match="row 9: the model's chat template rewrites its messages"):
        encoder.row([{"role": "user", "content": "banana"}], name="row 9")


def test_the_stream_tokenises_lazily_in_the_same_order_from_any_row_on(build: Any):
    source = open_source(str(build(None, **SYNL_SPEC)))
    encoder = chat_encoder(ModelConfig(preset="tiny"), source.manifest)
    encoded: list[str] = []

    class Counting:
        largest_id = encoder.largest_id

        def row(self, messages: Any, *, name: str) -> Any:
            encoded.append(name)
            return encoder.row(messages, name=name)

    stream = RowStream(source, seed=5, encoder=Counting)
    assert 0 < stream.rows < 16  # the split train alone
    rows = stream.rows_from(DataState())
    whole = [next(rows) for _ in range(2 * stream.rows)]
    assert len(encoded) == 2 * stream.rows
    assert sorted(encoded[: stream.rows]) == sorted(set(encoded))
    for skip in (1, stream.rows - 1, stream.rows, stream.rows + 2):
        encoded.clear()
        row, state = next(stream.rows_from(whole[skip - 1][1]))
        assert len(encoded) == 1
        assert (row.name, state) == (whole[skip][0].name, whole[skip][1])
        assert np.array_equal(row.input_ids, whole[skip][0].input_ids)
    sizes = {len(row.input_ids) for row, _ in whole}
    extent = stream.extent(100_000)
    assert max(sizes) <= extent.row_tokens <= max(sizes) * 65 // 64
    assert extent.position == extent.row_tokens - 1
    assert stream.extent(500).position == 499
    assert stream.first_longer_than(max(sizes)) is None
    assert stream.first_longer_than(max(sizes) - 1) == (
        next(r.name for r, _ in whole if len(r.input_ids) == max(sizes)),
        max(sizes),
    )


def config_for(dataset: Path, tmp_path: Path, **data: Any) -> dict[str, Any]:
    return {
        "model": {"preset": "tiny"},
        "data": {"source": str(dataset), **data},
        "batch": {"tokens_per_step": 3200, "row_tokens": 1600},
        "optimizer": {"lr": 3.0e-3, "warmup": 1},
        "steps": 3,
        "checkpoint": {"dir": str(tmp_path / "run"), "every": 6, "keep": 1},
    }


NEEDLE_SPEC = {
    "kind": "needle",
    "lengths": [512],
    "tasks": ["passkey", "niah_single"],
    "depths": 3,
    "repeats": 1,
    "split": "train",
}


@pytest.mark.parametrize("spec", [SYNL_SPEC, NEEDLE_SPEC], ids=["synl", "needle"])
def test_a_few_steps_on_messages(tmp_path: Path, build: Any, spec: dict[str, Any]):
    metrics: list[dict[str, Any]] = []
    config = config_for(build(None, **spec), tmp_path)
    train(parse_config(config), say=lambda line: None, record=metrics.append)
    saved = sorted(Path(config["checkpoint"]["dir"]).glob("step-*"))[-1]
    assert (saved / "tokenizer.json").read_bytes() == (
        BUILTIN / "tokenizer.json"
    ).read_bytes()  # a model to ask at once
    assert len(metrics) == 3
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert all(0 < m["targets"] < m["tokens"] / 2 for m in metrics)


def test_rows_that_are_too_long_are_refused_before_a_step_or_dropped_and_counted(tmp_path: Path, build: Any):
    dataset = build(None, **SYNL_SPEC)
    config = config_for(dataset, tmp_path) | {"batch": {"tokens_per_step": 2600, "row_tokens": 1300}}
    with pytest.raises(
        DatasetError, match=r"has \d+ tokens, more than batch.row_tokens \(1300\).*data.too_long to drop"
    ):
        train(parse_config(config), say=lambda line: None, record=lambda m: None)
    metrics: list[dict[str, Any]] = []
    config["data"]["too_long"] = "drop"
    train(parse_config(config), say=lambda line: None, record=metrics.append)
    assert sum(m["dropped"] for m in metrics) > 0
    config["batch"] = {"tokens_per_step": 100, "row_tokens": 100}
    config["checkpoint"]["dir"] = str(tmp_path / "none fits")
    with pytest.raises(DatasetError, match=r"more than batch\.row_tokens"):
        train(parse_config(config), say=lambda line: None, record=lambda m: None)


def test_a_preset_refuses_messages_of_a_tokenizer_it_does_not_have(tmp_path: Path, build: Any):
    manifest = open_source(str(build(None, **SYNL_SPEC))).manifest
    fields = {name: getattr(manifest, name) for name in manifest.__slots__}
    other = Manifest(**fields | {"tokenizer": {"name": "other", "sha256": "0" * 64}})
    with pytest.raises(TokenizerError, match=r"made with the tokenizer 'other'.*set model\.tokenizer"):
        chat_encoder(ModelConfig(preset="tiny"), other)
    with pytest.raises(TokenizerError, match=r"holds no tokenizer\.json"):
        chat_encoder(ModelConfig(path=str(tmp_path)), manifest)
    plain = tmp_path / "plain"
    shutil.copytree(BUILTIN, plain)
    config = json.loads((plain / "tokenizer_config.json").read_text())
    (plain / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "chat_template"}))
    with pytest.raises(TokenizerError, match="has no chat template"):
        chat_encoder(ModelConfig(preset="tiny", tokenizer=str(plain)), other)


def test_messages_without_an_assistant_have_nothing_to_learn(tmp_path: Path, build: Any):
    dataset = build(None, **SYNL_SPEC)
    manifest = Manifest.from_bytes((dataset / NAME).read_bytes())
    file = next(f for f in manifest.files if f.split == "train")
    rows = pq.read_table(dataset / file.path).to_pylist()
    mute = [row | {"messages": [m for m in row["messages"] if m["role"] != "assistant"]} for row in rows]
    with (dataset / file.path).open("wb") as sink:
        written = write_shard([pa.RecordBatch.from_pylist(mute, schema=SYNL)], SYNL, sink)
    value = json.loads(manifest.to_bytes())
    (entry,) = [f for f in value["files"] if f["path"] == file.path]
    entry |= {"bytes": written.bytes, "sha256": written.sha256, "content_sha256": written.content_sha256}
    (dataset / NAME).write_text(json.dumps(value))
    with pytest.raises(DatasetError, match="'train' has nothing to learn"):
        train(parse_config(config_for(dataset, tmp_path)), say=lambda line: None, record=lambda m: None)
