"""What is computed in which dtype, and that keeping less for the backward pass changes no gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import OPTConfig, PreTrainedModel

from packing.dataset.manifest import Manifest
from tests.training.conftest import token_rows
from tests.training.reference import FAMILIES, GAP, build, packed
from tests.training.test_run import StoppedError, equal, run, weights
from training.attention import NAME
from training.batch import Batch, lay_out
from training.config import ModelConfig, OptimizerConfig
from training.errors import ModelError
from training.loss import target_weights
from training.memory import at_work, prepare
from training.model import hidden_states, load_model
from training.optimizer import build_optimizer
from training.step import weighted_loss
from training.stream import Extent, Row

Build = Callable[..., dict[str, Any]]
EXTENT = Extent(position=200_000, token_id=63, row_tokens=200)


def batch() -> Batch:
    columns = ("input_ids", "labels", "position_ids", "seq_lengths")
    return lay_out([Row(name="", **{c: row[c] for c in columns}) for row in token_rows(6)])


def gradient(model: PreTrainedModel, of: Batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    weighted_loss(model, of, target_weights(of, "tokens"), 10.0).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def kept_bytes(model: PreTrainedModel, of: Batch) -> int:
    """Bytes that a forward pass keeps for its backward pass, without the weights."""
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = hidden_states(model, of)
    assert held.requires_grad
    return sum(size for place, size in kept.items() if place not in known)


def of_config(manifest: Manifest, **fields: Any) -> PreTrainedModel:
    return load_model(ModelConfig(preset="tiny", **fields), extent=EXTENT, manifest=manifest).train()


def test_bfloat16_is_what_the_work_is_done_in_and_nothing_else(tiny_manifest: Manifest):
    model = of_config(tiny_manifest, dtype="bfloat16")
    seen: dict[str, torch.dtype] = {}
    model.model.layers[0].mlp.register_forward_hook(lambda *found: seen.update(mlp=found[2].dtype))
    optimizer = build_optimizer(model, OptimizerConfig())
    gradients = gradient(model, batch())
    optimizer.step()
    assert seen["mlp"] == torch.bfloat16
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {g.dtype for g in gradients.values()} == {torch.float32}
    states = [t for state in optimizer.state.values() for t in state.values()]
    assert len(states) > 30
    assert {t.dtype for t in states} == {torch.float32}


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3", "smollm3"])
def test_phases_stay_float32_in_bfloat16(family: str):
    """A phase in bfloat16 would be noise at these positions: errors of 1 and more."""
    model, row = build(FAMILIES[family], NAME), packed("A: one sequence with a jump")
    found: list[torch.Tensor] = []
    model.model.rotary_emb.register_forward_hook(lambda *call: found.extend(call[2]))
    prepare(model, ModelConfig(path="-", dtype="bfloat16"))
    with torch.no_grad(), at_work(model):
        hidden_states(model, row)
    cos, sin = found
    half = model.model.rotary_emb.inv_freq.double()
    exact = (row.position_ids[0].double()[:, None] * half).repeat(1, 2)
    assert row.position_ids.max() > GAP
    for ours, wanted in ((cos, exact.cos()), (sin, exact.sin())):
        assert ours.dtype == torch.float32
        assert (ours[0].double() - wanted).abs().max() < 0.02


def test_float32_and_auto_are_exact_on_a_cpu_and_bfloat16_is_near(tiny_manifest: Manifest):
    exact, auto, rounded = (
        gradient(of_config(tiny_manifest, dtype=dtype), batch()) for dtype in ("float32", "auto", "bfloat16")
    )
    assert all(torch.equal(exact[name], auto[name]) for name in exact)
    flat = [torch.cat([g.flatten() for g in found.values()]) for found in (exact, rounded)]
    assert not torch.equal(*flat)
    assert torch.nn.functional.cosine_similarity(*flat, dim=0) > 0.99


@pytest.mark.parametrize("family", [*FAMILIES])
def test_checkpointing_and_chunks_keep_less_and_change_no_gradient(family: str):
    row = packed("C: the second starts at 37")
    row.targets[:] = row.input_ids.roll(-1, dims=1)
    plain = build(FAMILIES[family], NAME).train()
    again, chunked, both = (build(FAMILIES[family], NAME).train() for _ in range(3))
    prepare(again, ModelConfig(path="-", checkpointing=True))
    prepare(chunked, ModelConfig(path="-", mlp_chunk=7))
    prepare(both, ModelConfig(path="-", mlp_chunk=7, checkpointing=True))
    wanted = gradient(plain, row)
    assert len(wanted) >= 20
    for model, exact in ((again, True), (chunked, False), (both, False)):
        found = gradient(model, row)
        assert found.keys() == wanted.keys()
        for name, ours in found.items():
            if exact:
                assert torch.equal(ours, wanted[name]), name
            assert torch.allclose(ours, wanted[name], rtol=1e-4, atol=1e-5 * wanted[name].abs().max().item()), name
    most, least = kept_bytes(plain, row), kept_bytes(again, row)
    assert least < 0.3 * most
    assert kept_bytes(chunked, row) < 0.8 * most


@pytest.mark.parametrize("mlp_chunk", [None, 7])
def test_offloading_takes_the_layers_inputs_away_and_nothing_else(
    mlp_chunk: int | None, tiny_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
):
    """In the place of the CPU's memory, where all is on a CPU, an array; a layer of the wrong inputs has other gradients."""
    taken: list[np.ndarray] = []

    class Elsewhere(torch.autograd.graph.saved_tensors_hooks):
        def __init__(self, pin_memory: bool) -> None:
            assert pin_memory == torch.cuda.is_available()

            def take(tensor: torch.Tensor) -> np.ndarray:
                taken.append(tensor.detach().numpy().copy())
                return taken[-1]

            super().__init__(take, torch.from_numpy)

    row = batch()
    wanted = gradient(of_config(tiny_manifest, checkpointing=True, mlp_chunk=mlp_chunk), row)
    monkeypatch.setattr("training.memory.save_on_cpu", Elsewhere)
    model = of_config(tiny_manifest, checkpointing=True, offload=True, mlp_chunk=mlp_chunk)
    found = gradient(model, row)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert [array.shape for array in taken] == [(1, row.tokens, 64)] * model.config.num_hidden_layers
    assert not np.array_equal(taken[0], taken[1])
    taken.clear()
    with torch.no_grad():
        hidden_states(model, row)
    assert taken == []


def test_an_mlp_sees_no_more_tokens_than_it_should():
    model, row = build(FAMILIES["llama"], NAME).train(), packed("C: the second starts at 37")
    seen: list[int] = []
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda *call: seen.append(call[2].shape[1]))
    prepare(model, ModelConfig(path="-", mlp_chunk=16))
    hidden_states(model, row).sum().backward()
    assert seen == [16, 16, 12, *sorted(seen[3:])]
    assert sorted(seen[3:]) == [12, 16, 16]  # once more, for the backward pass
    with torch.no_grad():
        hidden_states(model, row)
    assert seen[6:] == [16, 16, 12]


def test_a_model_without_an_mlp_of_its_own_says_so():
    config = OPTConfig(
        vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=64, word_embed_proj_dim=32
    )
    with pytest.raises(ModelError, match=r"OPTForCausalLM have no MLP .*model\.mlp_chunk"):
        prepare(build(config, NAME), ModelConfig(path="-", mlp_chunk=16))


def test_a_run_in_bfloat16_goes_on_bit_for_bit_with_checkpointing_turned_on(config_of: Build, tmp_path: Path):
    """Weights stay float32 in the files; checkpointing changes no number, so it may be changed between."""
    model = {"dtype": "bfloat16", "mlp_chunk": 30}
    run(config_of(model=model, checkpoint={"dir": str(tmp_path / "whole")}))
    with pytest.raises(StoppedError):
        run(config_of(model=model), stop_at=5)
    lines, metrics = run(config_of(model=model | {"checkpointing": True, "offload": True}))
    assert any("going on from" in line for line in lines)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    saved = load_file(tmp_path / "run" / "step-00000008" / "optimizer.safetensors")
    assert {t.dtype for t in [*saved.values(), *weights(tmp_path / "run").values()]} == {torch.float32}
