"""The config: strict, every offending field named, nothing accepted that does nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packing.dataset.errors import SpecError
from training.config import Config, parse_config, read_config

Build = Callable[..., dict[str, Any]]


def pointers(value: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_config(value)
    return {problem.pointer: problem.message for problem in caught.value.problems}


def test_the_contract_example_is_taken_with_its_defaults(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "model: {path: DIR, rope_base: auto, attention: auto, lora: null}\n"
        "data: {source: 'http://host:8000/v1/datasets/d', key: null, shuffle_seed: 0}\n"
        "batch: {tokens_per_step: 32768, row_tokens: 4096}\n"
        "optimizer: {lr: 2.0e-5, warmup: 20, schedule: cosine, weight_decay: 0.0, clip: 1.0}\n"
        "steps: 200\n"
        "checkpoint: {dir: runs/x, every: 50, keep: 3}\n"
        "loss: {normalize: tokens}\n"
    )
    least = {"model": {"path": "DIR"}, "data": {"source": "http://host:8000/v1/datasets/d"}}
    assert read_config(path) == parse_config(least | {"checkpoint": {"dir": "runs/x"}})


def test_a_number_without_a_point_is_a_number(tmp_path: Path, config_of: Build):
    """YAML 1.1 reads 2e-5 as a text."""
    path = tmp_path / "config.yaml"
    path.write_text("model: {preset: tiny}\ndata: {source: d}\ncheckpoint: {dir: r}\noptimizer: {lr: 2e-5}\n")
    assert read_config(path).optimizer.lr == 2e-5


@pytest.mark.parametrize(
    ("sections", "pointer", "says"),
    [
        ({"model": {"preset": "huge"}}, "/model/preset", "tiny"),
        ({"model": {"path": "DIR"}}, "/model", "exactly one of path and preset"),
        ({"model": {"preset": None}}, "/model", "exactly one of path and preset"),
        ({"model": {"rope_base": 0.5}}, "/model/rope_base", "above 1"),
        ({"model": {"rope_base": True}}, "/model/rope_base", "auto or a number"),
        ({"model": {"attention": "sdpa"}}, "/model/attention", "auto or varlen or flex or exact"),
        ({"model": {"attention": "varlen", "dtype": "float32"}}, "/model/attention", "half precision alone"),
        ({"model": {"dtype": "float16"}}, "/model/dtype", "auto or float32 or bfloat16"),
        ({"model": {"checkpointing": "yes"}}, "/model/checkpointing", "true or false"),
        ({"model": {"mlp_chunk": 0}}, "/model/mlp_chunk", "at least 1"),
        ({"model": {"offload": True}}, "/model/offload", "must go with checkpointing"),
        ({"model": {"lora": 8}}, "/model/lora", "mapping"),
        ({"model": {"lora": {"rank": 0}}}, "/model/lora/rank", "at least 1"),
        ({"model": {"lora": {"r": 8}}}, "/model/lora/r", "rank, alpha, targets"),
        ({"model": {"lora": {"targets": []}}}, "/model/lora/targets", "all-linear or a list of names"),
        ({"data": {"source": "ftp://bucket/d"}}, "/data/source", "ftp:// is not served"),
        ({"data": {"source": ""}}, "/data/source", "not empty"),
        ({"data": {"shuffle_seed": -1}}, "/data/shuffle_seed", "at least 0"),
        ({"data": {"shuffle_seed": 2**64}}, "/data/shuffle_seed", "at most"),
        ({"data": {"shuffel_seed": 1}}, "/data/shuffel_seed", "shuffle_seed"),
        ({"data": {"tokenizer": "other"}}, "/data/tokenizer", "same or any"),
        ({"batch": {"row_tokens": 1.5}}, "/batch/row_tokens", "whole number"),
        ({"batch": {"row_tokens": 100, "tokens_per_step": 150}}, "/batch/tokens_per_step", "multiple of row_tokens"),
        ({"batch": {"row_tokens": 100, "tokens_per_step": 50}}, "/batch/tokens_per_step", "multiple of row_tokens"),
        ({"optimizer": {"lr": 0}}, "/optimizer/lr", "above 0"),
        ({"optimizer": {"lr": float("nan")}}, "/optimizer/lr", "must be a number"),
        ({"optimizer": {"clip": 0}}, "/optimizer/clip", "above 0"),
        ({"optimizer": {"weight_decay": -1}}, "/optimizer/weight_decay", "at least 0"),
        ({"optimizer": {"schedule": "linear"}}, "/optimizer/schedule", "constant or cosine or wsd"),
        ({"optimizer": {"warmup": 8}}, "/optimizer/warmup", "below steps"),
        ({"steps": 0}, "/steps", "at least 1"),
        ({"steps": True}, "/steps", "whole number"),
        ({"checkpoint": {"keep": 0}}, "/checkpoint/keep", "at least 1"),
        ({"evaluate": {"every": 5}}, "/evaluate", "nothing to evaluate"),
        ({"evaluate": {"needles": "http://host/v1/datasets/d"}}, "/evaluate/needles", "a directory on this machine"),
        ({"evaluate": {"texts": "DIR", "window": 64, "stride": 64}}, "/evaluate/stride", "below window (64)"),
        ({"evaluate": {"texts": "DIR", "longer_windows": 4096}}, "/evaluate/longer_windows", "must be a list"),
        (
            {"evaluate": {"texts": "DIR", "longer_windows": [512]}},
            "/evaluate/longer_windows",
            "rise from window (1024)",
        ),
        ({"evaluate": {"texts": "DIR", "before": 1}}, "/evaluate/before", "true or false"),
        ({"evaluate": []}, "/evaluate", "mapping"),
        ({"loss": {"normalize": "rows"}}, "/loss/normalize", "tokens or sequences"),
        ({"loss": []}, "/loss", "mapping"),
        ({"epochs": 3}, "/epochs", "no field"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(config_of: Build, sections: dict[str, Any], pointer: str, says: str):
    problems = pointers(config_of(**sections))
    assert list(problems) == [pointer]
    assert says in problems[pointer]


def test_every_offending_field_is_named_at_once():
    value = {"model": {"lora": 1}, "optimizer": {"lr": "x"}, "batch": {"row": 1}, "epochs": 1}
    named = {"/model/lora", "/optimizer/lr", "/batch/row", "/epochs", "/data/source", "/checkpoint/dir"}
    assert set(pointers(value)) == named


@pytest.mark.parametrize("text", ["[1, 2]", "", "steps: 1\nsteps: 2", "model: {preset: tiny", "steps: !!python/none x"])
def test_what_is_no_config_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SpecError):
        read_config(path)
    with pytest.raises(SpecError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")


def test_a_field_given_twice_is_refused(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text("model: {preset: tiny}\ndata: {source: d}\ncheckpoint: {dir: r, every: 5, every: 6}\n")
    with pytest.raises(SpecError, match="every given twice"):
        read_config(path)


def test_no_evaluation_is_asked_for_by_null_or_by_leaving_it_out(config_of: Build):
    assert parse_config(config_of(evaluate=None)) == parse_config(config_of())
    assert not parse_config(config_of()).evaluate.asked
    assert parse_config(config_of(evaluate={"texts": "DIR"})).evaluate.asked


def test_the_key_is_not_shown(config_of: Build):
    config: Config = parse_config(config_of(data={"key": "secret"}))
    assert config.data.key == "secret"
    assert "secret" not in repr(config)
