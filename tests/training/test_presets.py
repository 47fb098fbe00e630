"""Models that know positions in other ways than RoPE: trained on plain rows, and told apart from what jumps teach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, OPTConfig

from packing.dataset.errors import SpecError
from packing.dataset.manifest import Manifest
from tests.training.conftest import CIP, token_rows, write_dataset
from tests.training.reference import packed, sequences
from tests.training.test_run import StoppedError, run
from training.attention import NAME
from training.batch import Batch
from training.config import ModelConfig
from training.config.sections import PRESETS as NAMED
from training.errors import PositionError
from training.model import describe, hidden_states, load_model, preflight
from training.positions import kind_of, set_positions
from training.presets import PRESETS
from training.stream import Extent

OTHERS = ("tiny-learned", "tiny-alibi", "tiny-nope")
PLAIN = Extent(position=71, token_id=63, row_tokens=72)
JUMPING = replace(PLAIN, position=1000, jumps=True)


def test_the_config_knows_the_presets_by_name():
    assert tuple(PRESETS) == NAMED


def counted(batch: Batch) -> Batch:
    """The batch with every sequence counted from 0."""
    lengths = batch.cu_seq_lens.diff().tolist()
    positions = np.concatenate([np.arange(n) for n in lengths]).astype(np.int32)
    return replace(batch, position_ids=torch.from_numpy(positions)[None])


@pytest.mark.parametrize("preset", OTHERS)
def test_rows_that_jump_are_refused_with_the_reason(preset: str, tiny_manifest: Manifest):
    kind = {"tiny-learned": "a table of learned positions", "tiny-alibi": "ALiBi", "tiny-nope": "no positions at all"}
    does = "vectors far apart" if preset == "tiny-learned" else "the jumps would change nothing"
    with pytest.raises(PositionError, match=rf"positions jump, .* has {kind[preset]}.*{does}.*strategy none"):
        load_model(ModelConfig(preset=preset), extent=JUMPING, manifest=tiny_manifest)
    with pytest.raises(SpecError, match=r"/model/rope_base: a model of type .* no RoPE"):
        load_model(ModelConfig(preset=preset, rope_base=20_000.0), extent=PLAIN, manifest=tiny_manifest)


@pytest.mark.parametrize("preset", OTHERS)
def test_what_jumps_do_to_each(preset: str, tiny_manifest: Manifest):
    """What the refusals say: to ALiBi and to no positions at all, nothing, to the last bit."""
    model = load_model(ModelConfig(preset=preset), extent=PLAIN, manifest=tiny_manifest).eval()
    batch = counted(packed("B: two, both from 0"))
    jumped = replace(batch, position_ids=batch.position_ids * 40)
    with torch.no_grad():
        same = torch.equal(hidden_states(model, batch), hidden_states(model, jumped))
    assert same == (preset != "tiny-learned")


@pytest.mark.parametrize("preset", OTHERS)
def test_packed_rows_are_what_their_sequences_are_alone(preset: str, tiny_manifest: Manifest):
    """By the stock model with an explicit mask, one sequence at a time."""
    model = load_model(ModelConfig(preset=preset), extent=PLAIN, manifest=tiny_manifest).eval()
    eager = AutoModelForCausalLM.from_config(PRESETS[preset](64), attn_implementation="eager").eval()
    with torch.no_grad():  # as drawn, scores are too small for the positions to show
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.3
    eager.load_state_dict(model.state_dict())
    batch = counted(packed("C: the second starts at 37"))
    preflight(model, batch)
    alone: list[torch.Tensor] = []
    with torch.no_grad():
        for ids, positions in sequences(batch):
            call: dict[str, Any] = {"input_ids": ids[None], "use_cache": False}
            if preset != "tiny-alibi":  # its mask is a padding mask, and it makes the causal one itself
                mask = torch.full((len(ids), len(ids)), torch.finfo(torch.float32).min).triu(1)
                call |= {"position_ids": positions[None], "attention_mask": mask[None, None]}
            alone.append(eager.base_model(**call).last_hidden_state[0])
        assert torch.allclose(torch.cat(alone), hidden_states(model, batch)[0], atol=1e-4)
        turned = batch.input_ids.roll(1, dims=1)
        assert not torch.allclose(hidden_states(model, batch, turned), hidden_states(model, batch), atol=1e-2)


def test_a_table_of_positions_ends_where_it_ends(tiny_manifest: Manifest):
    load_model(ModelConfig(preset="tiny-learned"), extent=replace(PLAIN, position=4095), manifest=tiny_manifest)
    with pytest.raises(PositionError, match=r"positions go to 4,096, and the model's table .* ends at 4,095"):
        load_model(ModelConfig(preset="tiny-learned"), extent=replace(PLAIN, position=4096), manifest=tiny_manifest)


def test_opt_has_a_table_too():
    assert kind_of(OPTConfig()) == "learned"
    with pytest.raises(PositionError, match="positions jump"):
        set_positions(OPTConfig(), "auto", JUMPING)


@pytest.mark.parametrize("preset", OTHERS)
def test_each_trains_on_plain_rows_and_goes_on_bit_for_bit(
    config_of: Callable[..., dict[str, Any]], tmp_path: Path, preset: str
):
    rows = write_dataset(tmp_path / "plain", [token_rows(4, longest=8, positions=False)], schema=CIP)
    value = config_of(model={"preset": preset}, data={"source": str(rows)}, optimizer={"lr": 1e-2})
    lines, metrics = run(value | {"checkpoint": {"dir": str(tmp_path / "whole"), "every": 8}})
    assert any(line.startswith("model: ") and ("positions" in line or "ALiBi" in line) for line in lines)
    assert metrics[-1]["loss"] < 0.8 * metrics[0]["loss"]
    with pytest.raises(StoppedError):
        run(value, stop_at=5)
    _, rest = run(value)
    assert [m["loss"] for m in rest] == [m["loss"] for m in metrics[3:]]
    folder = tmp_path / "run" / "step-00000008"
    AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert NAME not in (folder / "config.json").read_text()


def test_a_model_is_described_by_its_positions(tiny_manifest: Manifest):
    said = {
        preset: describe(load_model(ModelConfig(preset=preset), extent=PLAIN, manifest=tiny_manifest))
        for preset in PRESETS
    }
    assert "RoPE base 10,000 on 16 dimensions, window 4,096" in said["tiny"]
    assert "a table of learned positions, 4,096 of them" in said["tiny-learned"]
    assert "bloom" in said["tiny-alibi"]
    assert "ALiBi" in said["tiny-alibi"]
    assert "no positions at all" in said["tiny-nope"]
