"""The RoPE base: what auto computes, what is refused, and that the model's own buffers agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from packing.dataset.errors import SpecError
from training.config import ModelConfig
from training.errors import RopeError
from training.model import load_model
from training.presets import tiny
from training.rope import check_rope, check_saved_rope, ntk_base, read_base, set_rope
from training.stream import Extent


def extent(position: int) -> Extent:
    return Extent(position=position, token_id=63, row_tokens=100)


def test_the_formula_gives_longskyworks_figure():
    """10,000 to 260,000 for 200K: about what 200,000 and 204,800 positions of a window of 8,192 give."""
    assert ntk_base(10_000, window=8192, needed=200_000, size=128) == pytest.approx(256_842, rel=1e-4)
    assert ntk_base(10_000, window=8192, needed=204_800, size=128) == pytest.approx(263_105, rel=1e-4)
    assert ntk_base(10_000, window=4096, needed=200_000, size=128) == pytest.approx(519_367, rel=1e-4)


def test_the_slowest_rotation_turns_as_far_as_before():
    """What NTK-aware scaling promises: the last frequency is slowed by exactly the scale, the first not at all."""
    base = ntk_base(10_000, window=4096, needed=131_072, size=64)
    assert (10_000 / base) ** (62 / 64) == pytest.approx(4096 / 131_072)


@pytest.mark.parametrize("needed", [1, 4095, 4096])
def test_data_inside_the_window_leave_the_base_alone(needed: int):
    config = tiny(64)
    assert set_rope(config, "auto", needed=needed) == 10_000
    assert config.max_position_embeddings == 4096


def test_a_second_stage_does_not_scale_a_second_time():
    config = tiny(64)
    first = set_rope(config, "auto", needed=131_072)
    assert first > 300_000
    assert config.max_position_embeddings == 131_072
    assert set_rope(config, "auto", needed=131_072) == first


def test_a_number_is_taken_as_given_and_lowering_refused():
    config = tiny(64)
    assert set_rope(config, 500_000, needed=131_072) == 500_000
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 500_000.0}
    with pytest.raises(SpecError, match="/model/rope_base: 10000 is below the model's own base, 500000"):
        set_rope(config, 10_000.0, needed=10)


def test_other_kinds_of_rope_are_left_alone_or_refused():
    settings = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
    config = LlamaConfig(rope_parameters=settings, max_position_embeddings=8192)
    assert set_rope(config, "auto", needed=8192) == 10_000
    assert config.rope_parameters == settings
    for asked, needed in (("auto", 8193), (20_000.0, 100)):
        with pytest.raises(RopeError, match="RoPE is of type linear"):
            set_rope(config, asked, needed=needed)
    with pytest.raises(RopeError, match="has no RoPE base"):
        set_rope(GPT2Config(), "auto", needed=100)


def test_the_base_is_in_the_models_buffers(tiny_manifest: Any):
    model: Any = load_model(ModelConfig(preset="tiny"), extent=extent(131_071), manifest=tiny_manifest)
    inv_freq = model.model.rotary_emb.inv_freq
    wanted = ntk_base(10_000, window=4096, needed=131_072, size=16)
    assert read_base(inv_freq) == pytest.approx(wanted, rel=1e-5)
    assert check_rope(model) == wanted
    assert inv_freq.dtype == torch.float32


def test_a_base_that_is_only_in_the_config_is_found_out(tiny_manifest: Any, tmp_path: Path):
    """The traps: a config changed after the build leaves the buffer as it was, and saves the new figure."""
    model: Any = load_model(ModelConfig(preset="tiny"), extent=extent(100), manifest=tiny_manifest)
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 260_000.0}
    with pytest.raises(RopeError, match=r"inv_freq was made with base 10000\S*, the model's config says 260000"):
        check_rope(model)
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 10_000.0}
    model.save_pretrained(tmp_path)
    check_saved_rope(tmp_path, model)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["rope_parameters"]["rope_theta"] = 20_000.0
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(RopeError, match="saved config gives RoPE base 20000"):
        check_saved_rope(tmp_path, model)


def test_frequencies_in_bfloat16_are_found_out(tiny_manifest: Any):
    model: Any = load_model(ModelConfig(preset="tiny"), extent=extent(100), manifest=tiny_manifest)
    with pytest.raises(RopeError, match=r"is torch\.bfloat16, not float32"):
        check_rope(model.to(torch.bfloat16))


def test_a_model_without_frequencies_is_found_out():
    config = tiny(64)
    model = AutoModelForCausalLM.from_config(config)
    model.model.rotary_emb = torch.nn.Identity()
    with pytest.raises(RopeError, match="keeps no inv_freq"):
        check_rope(model)
