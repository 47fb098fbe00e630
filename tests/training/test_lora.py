"""Adapters: nothing but them is learnt, what is saved is what was trained, and a run goes on bit for bit."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.training.test_run import StoppedError, equal, on_disk, run, weights
from training.config import LoraConfig, parse_config
from training.errors import CheckpointError, ModelError, TrainingError
from training.lora import adapted, add_adapter, merged
from training.presets import PRESETS, tiny

Build = Callable[..., dict[str, Any]]
RANK = 3


@pytest.fixture
def base(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    settings = tiny(64)
    settings.max_position_embeddings = 4096
    AutoModelForCausalLM.from_config(settings).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def value(config_of: Build, base: Path) -> dict[str, Any]:
    lora = {"rank": RANK, "alpha": 12, "targets": ["q_proj", "v_proj", "down_proj"]}
    return config_of(model={"preset": None, "path": str(base), "lora": lora}, optimizer={"lr": 1e-2})


def last(folder: Path) -> Path:
    return folder / "step-00000008"


def test_what_is_learnt_is_of_low_rank_and_beside_the_named_layers(value: dict[str, Any], tmp_path: Path, base: Path):
    lines, metrics = run(value)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert any("M of them, the adapter's, are learnt" in line for line in lines)
    before, after = load_file(base / "model.safetensors"), weights(tmp_path / "run")
    assert before.keys() == after.keys()
    changed = 0
    for name, weight in after.items():
        singular = np.linalg.svd(np.atleast_2d((weight - before[name]).double().numpy()), compute_uv=False)
        if name.split(".")[-2] in {"q_proj", "v_proj", "down_proj"}:
            changed += 1
            assert singular[RANK - 1] > 1e-4
            assert singular[RANK] < 1e-5
        else:
            assert not singular.any(), name
    assert changed == 6
    optimizer = load_file(last(tmp_path / "run") / "optimizer.safetensors")
    assert optimizer
    assert all(".lora_" in name for name in optimizer)


@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)  # peft asks by the old name
def test_the_export_and_the_adapter_on_its_base_are_the_same_model(value: dict[str, Any], tmp_path: Path, base: Path):
    """Both through their own libraries, without anything of ours."""
    run(value)
    whole = AutoModelForCausalLM.from_pretrained(last(tmp_path / "run"), local_files_only=True).eval()
    plain = AutoModelForCausalLM.from_pretrained(base, local_files_only=True).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        untouched = plain(ids).logits
        beside = PeftModel.from_pretrained(plain, str(last(tmp_path / "run") / "adapter")).eval()(ids).logits
        added = whole(ids).logits
    assert torch.allclose(beside, added, atol=1e-5)
    assert not torch.allclose(untouched, added, atol=1e-3)


def test_a_run_that_was_cut_ends_bit_for_bit_like_one_that_was_not(value: dict[str, Any], tmp_path: Path):
    run(value | {"checkpoint": {"dir": str(tmp_path / "whole"), "every": 8}})
    with pytest.raises(StoppedError):
        run(value, stop_at=5)
    lines, metrics = run(value)
    assert any("going on from" in line for line in lines)
    assert metrics[0]["step"] == 4
    assert on_disk(tmp_path / "run") == on_disk(tmp_path / "whole")
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    adapters = [load_file(last(tmp_path / name) / "adapter" / "adapter_model.safetensors") for name in ("run", "whole")]
    assert len(adapters[0]) == 12
    assert equal(*adapters)


def test_a_base_or_an_adapter_that_changed_is_found_out(value: dict[str, Any], tmp_path: Path, base: Path):
    with pytest.raises(StoppedError):
        run(value, stop_at=5)
    shutil.copytree(tmp_path / "run", tmp_path / "kept")
    path = tmp_path / "run" / "step-00000003" / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name: tensors[name] for name in list(tensors)[1:]} | {"spare": torch.zeros(path.stat().st_size)}, path)
    # state.json knows sizes: only a file of the same size reaches the reader
    state = path.parents[1] / "state.json"
    state.write_text(state.read_text().replace(f": {_size(tmp_path / 'kept')}", f": {path.stat().st_size}"))
    with pytest.raises(CheckpointError, match="is not an adapter of this model's layers"):
        run(value)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "kept").rename(tmp_path / "run")
    found = load_file(base / "model.safetensors")
    found["model.layers.0.mlp.up_proj.weight"] += 0.1
    save_file(found, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"up_proj\.weight of the model is not what .* was trained on"):
        run(value)


def _size(folder: Path) -> int:
    return (folder / "step-00000003" / "adapter" / "adapter_model.safetensors").stat().st_size


@pytest.mark.parametrize("preset", PRESETS)
def test_it_goes_beside_the_linear_layers_of_every_preset(preset: str):
    """A new adapter changes nothing; GPT-2 keeps its matrices the other way round."""
    model: Any = AutoModelForCausalLM.from_config(PRESETS[preset](64))
    names, ids = set(model.state_dict()), torch.arange(12)[None]
    with torch.no_grad():
        before = model(ids).logits
        assert not adapted(model)
        add_adapter(model, LoraConfig(rank=2))
        assert adapted(model)
        assert torch.equal(model(ids).logits, before)
        learnt = [name for name, p in model.named_parameters() if p.requires_grad]
        assert len(learnt) > 8
        assert all(".lora_" in name for name in learnt)
        for name, p in model.named_parameters():
            if name in learnt:
                p += torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.1
        after = model(ids).logits
        assert not torch.allclose(after, before, atol=1e-3)
        whole = merged(model, model.state_dict())
        assert set(whole) == names
        plain = AutoModelForCausalLM.from_config(PRESETS[preset](64))
        plain.load_state_dict(whole)
        assert torch.allclose(plain(ids).logits, after, atol=1e-5)


def test_layers_that_are_not_there_say_so():
    with pytest.raises(ModelError, match=r"cannot be put on the model's layers \('c_attn',\)") as caught:
        add_adapter(AutoModelForCausalLM.from_config(tiny(64)), LoraConfig(targets=("c_attn",)))
    assert caught.value.param == "/model/lora/targets"


def test_without_peft_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(TrainingError, match=r"model\.lora needs peft.*pip install 'longweave\[lora\]'"):
        add_adapter(AutoModelForCausalLM.from_config(tiny(64)), LoraConfig())


def test_the_defaults_of_an_adapter_are_taken_from_an_empty_mapping(config_of: Build):
    assert parse_config(config_of(model={"lora": {}})).model.lora == LoraConfig()
    assert parse_config(config_of(model={"lora": None})).model.lora is None
