"""Loading: from local safetensors alone, whole, and with nothing in the model that this worker would leave out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CohereConfig, LlamaConfig, MistralConfig

from packing.dataset.manifest import Manifest
from training.attention import NAME
from training.batch import Batch, lay_out
from training.config import ModelConfig
from training.errors import AttentionError, ModelError
from training.memory import prepare
from training.model import hidden_states, load_model, preflight
from training.presets import tiny
from training.stream import Extent, Row

EXTENT = Extent(position=10_000, token_id=63, row_tokens=100)


def batch() -> Batch:
    positions = np.concatenate([np.arange(8), np.arange(8) + 9000, np.arange(5)]).astype(np.int32)
    ids = np.random.default_rng(0).integers(0, 64, 21).astype(np.int32)
    lengths = np.array([16, 5], np.int32)
    return lay_out([Row(name="", input_ids=ids, labels=ids, position_ids=positions, seq_lengths=lengths)])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model's directory as its makers publish it: another dtype, stock attention."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny(64)).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_directory_is_loaded_in_float32_with_our_attention_and_the_datas_base(saved: Path, tiny_manifest: Manifest):
    model = load_model(ModelConfig(path=str(saved)), extent=EXTENT, manifest=tiny_manifest)
    weights = load_file(saved / "model.safetensors")
    compared = 0
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, weights[name].float())
        compared += 1
    assert compared == len(weights) > 15
    assert model.config._attn_implementation == NAME
    assert model.config.max_position_embeddings == 10_001
    assert model.config.rope_parameters["rope_theta"] > 20_000
    preflight(model, batch())


def test_the_preflight_runs_the_model_on_the_ends_of_a_long_row_alone(
    tiny_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
):
    model = load_model(ModelConfig(preset="tiny"), extent=EXTENT, manifest=tiny_manifest)
    monkeypatch.setattr("training.model.CHECKED", 10)
    seen: list[int] = []
    model.base_model.register_forward_pre_hook(
        lambda _, args, options: seen.append(options["input_ids"].shape[1]), with_kwargs=True
    )
    preflight(model, batch())
    assert len(seen) >= 6
    assert set(seen) == {10, 5}  # and the last sequence by itself


def test_the_preset_is_the_same_every_time(tiny_manifest: Manifest):
    models: list[Any] = []
    for seed in (1, 2):  # whatever was drawn before
        torch.manual_seed(seed)
        models.append(load_model(ModelConfig(preset="tiny"), extent=EXTENT, manifest=tiny_manifest))
    one, two = models
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert one.config.vocab_size == 64


def test_weights_that_are_missing_are_not_drawn_at_random(saved: Path, tiny_manifest: Manifest):
    weights = load_file(saved / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors of the model, among them model\.layers\.1\.mlp\.up_proj"):
        load_model(ModelConfig(path=str(saved)), extent=EXTENT, manifest=tiny_manifest)


def test_pickled_weights_are_never_read(saved: Path, tiny_manifest: Manifest):
    weights = load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    torch.save(weights, saved / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(ModelConfig(path=str(saved)), extent=EXTENT, manifest=tiny_manifest)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "of_my_own", "auto_map": {"AutoConfig": "mine.Config"}}, "cannot be read"),
        (
            {"intermediate_size": 96},
            r"6 tensors in .* have another shape .*mlp\.down_proj\.weight: \[64, 176\], not \[64, 96\]",
        ),
        (
            {"num_hidden_layers": 1},
            r"holds 9 tensors of layers that its config\.json knows nothing of, among them model\.layers\.1",
        ),
    ],
)
def test_models_that_cannot_be_loaded_say_so(
    saved: Path, tiny_manifest: Manifest, capfd: pytest.CaptureFixture[str], change: dict[str, Any], says: str
):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    (saved / "mine.py").write_text("raise SystemExit('code of a model directory was run')")
    with pytest.raises(ModelError, match=says):
        load_model(ModelConfig(path=str(saved)), extent=EXTENT, manifest=tiny_manifest)
    assert "REPORT" not in capfd.readouterr().err  # no table of transformers' beside our sentence


def test_tensors_that_are_no_part_of_the_model_are_said(saved: Path, tiny_manifest: Manifest):
    weights = load_file(saved / "model.safetensors") | {"score.weight": torch.zeros(2, 64)}
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    lines: list[str] = []
    load_model(ModelConfig(path=str(saved)), extent=EXTENT, manifest=tiny_manifest, say=lines.append)
    assert any("holds 1 tensors that are no part of the model, among them score.weight" in line for line in lines)


def test_damaged_weights_say_so(saved: Path, tiny_manifest: Manifest):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(ModelConfig(path=str(saved)), extent=EXTENT, manifest=tiny_manifest)


def test_a_directory_without_a_model_says_so(tmp_path: Path, tiny_manifest: Manifest):
    with pytest.raises(ModelError, match=r"holds no config\.json: .* Hugging Face's layout$"):
        load_model(ModelConfig(path=str(tmp_path / "none")), extent=EXTENT, manifest=tiny_manifest)
    with pytest.raises(ModelError, match=r"nothing is fetched: hf download an-org/Model-135M --local-dir"):
        load_model(ModelConfig(path="an-org/Model-135M"), extent=EXTENT, manifest=tiny_manifest)


def test_data_of_another_tokenizer_are_refused(saved: Path, tiny_manifest: Manifest):
    extent = Extent(position=10, token_id=64, row_tokens=100)
    with pytest.raises(ModelError, match="token id 64, the model has 64 tokens"):
        load_model(ModelConfig(path=str(saved)), extent=extent, manifest=tiny_manifest)


def test_a_preset_needs_the_vocabularys_size(tiny_manifest: Manifest):
    fields = {name: getattr(tiny_manifest, name) for name in tiny_manifest.__slots__} | {"tokenizer": {}}
    with pytest.raises(ModelError, match=r"names no tokenizer\.vocab_size"):
        load_model(ModelConfig(preset="tiny"), extent=EXTENT, manifest=Manifest(**fields))


def test_a_windowed_model_is_refused(tmp_path: Path, tiny_manifest: Manifest):
    MistralConfig(vocab_size=64, hidden_size=32, num_attention_heads=2, num_key_value_heads=2).save_pretrained(tmp_path)
    with pytest.raises(AttentionError, match="layers of kind sliding_attention"):
        load_model(ModelConfig(path=str(tmp_path)), extent=EXTENT, manifest=tiny_manifest)


def test_dropout_inside_attention_is_refused_before_the_weights_are_read(tmp_path: Path, tiny_manifest: Manifest):
    LlamaConfig(**SMALL, attention_dropout=0.1).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"asks for attention_dropout 0\.1"):
        load_model(ModelConfig(path=str(tmp_path)), extent=EXTENT, manifest=tiny_manifest)


SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def test_preflight_refuses_a_model_that_scales_its_logits():
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL), attn_implementation=NAME)
    preflight(plain.train(), batch())
    assert plain.training
    scaled = AutoModelForCausalLM.from_config(
        CohereConfig(**SMALL, pad_token_id=None, logit_scale=0.5), attn_implementation=NAME
    )
    with pytest.raises(ModelError, match="CohereForCausalLM does more to its logits"):
        preflight(scaled, batch())


@pytest.mark.parametrize(
    "error", [TypeError("got an unexpected keyword\nand more"), RuntimeError("shapes"), KeyError("x"), IndexError()]
)
def test_a_model_that_fails_in_its_own_code_is_named(error: Exception):
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL), attn_implementation=NAME).train()

    def broken(*_: Any, **__: Any) -> None:
        raise error

    model.model.layers[1].mlp.forward = broken
    with pytest.raises(ModelError, match=rf"a LlamaForCausalLM cannot be run .*{type(error).__name__}") as caught:
        preflight(model, batch())
    assert "test_model.py, line" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.__cause__ is error
    assert model.training, "as it was"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), ModelError("a sentence of our own")])
def test_what_others_have_words_for_is_passed_on(error: Exception):
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL), attn_implementation=NAME)

    def broken(*_: Any, **__: Any) -> None:
        raise error

    model.model.layers[0].forward = broken
    with pytest.raises(type(error)) as caught:
        preflight(model, batch())
    assert caught.value is error


def test_preflight_refuses_a_model_with_stock_attention():
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL), attn_implementation="sdpa")
    with pytest.raises(AttentionError, match="ours was asked in 0 of 2 layers"):
        preflight(model, batch())


def test_gradient_checkpointing_does_not_change_what_is_seen():
    """With the stock call, turning it on flips the mask."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL), attn_implementation=NAME).train()
    plain = hidden_states(model, batch())
    prepare(model, ModelConfig(preset="tiny", checkpointing=True))
    assert torch.equal(plain, hidden_states(model, batch()))
