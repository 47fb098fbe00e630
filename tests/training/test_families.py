"""Every family the worker serves, against a decoder in plain torch that packs nothing: outputs and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import FalconConfig, LlamaConfig, MptConfig, PreTrainedModel

from packing.dataset.manifest import Manifest
from tests.training.reference import CASES, FAMILIES, SIZES, build, packed, plain_states, sequences
from training.attention import NAME
from training.attention_checks import check_attention, check_routed, refuse_windows
from training.batch import Batch
from training.config import ModelConfig
from training.errors import AttentionError
from training.model import hidden_states, load_model, output_head, preflight
from training.stream import Extent

EXTENT = Extent(position=100, token_id=60, row_tokens=44)


def gradients(model: PreTrainedModel, states: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a sum over the states that no two places weigh alike in."""
    body = {name: p for name, p in model.named_parameters() if not name.startswith("lm_head")}
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
    return dict(zip(body, torch.autograd.grad((states * weights).sum(), list(body.values())), strict=True))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_gradients_equal_plain_torch_one_sequence_at_a_time(family: str, case: str):
    refuse_windows(FAMILIES[family])
    model, batch = build(FAMILIES[family], NAME).train(), packed(case)
    states = hidden_states(model, batch)[0]
    wanted = torch.cat([plain_states(model, ids, positions) for ids, positions in sequences(batch)])
    assert states.shape == wanted.shape == (batch.tokens, 64)
    assert (wanted - states).abs().max() < 1e-3
    ours, theirs = gradients(model, states), gradients(model, wanted)
    assert len(ours) >= 20
    for name, gradient in theirs.items():
        assert gradient.abs().max() > 0, name
        assert (ours[name] - gradient).abs().max() < 1e-3 * gradient.abs().max(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_preflight_passes_and_the_loss_is_taken_on_the_models_own_logits(family: str):
    """Granite divides its logits, and the chunked loss with it."""
    model, batch = build(FAMILIES[family], NAME), packed("C: the second starts at 37")
    check_attention(lambda ids: hidden_states(model, batch, ids), batch)
    preflight(model, batch)
    with torch.no_grad():
        ours = output_head(model)(hidden_states(model, batch))
        own = model(**_call(batch)).logits
    assert torch.allclose(ours, own, rtol=1e-5, atol=1e-5)
    targets = batch.input_ids[0].long()
    assert torch.allclose(cross_entropy(ours[0], targets), cross_entropy(own[0], targets))


def _call(batch: Batch) -> dict[str, Any]:
    return {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "cu_seq_lens_q": batch.cu_seq_lens,
        "max_length_q": batch.max_length,
        "use_cache": False,
    }


@pytest.mark.parametrize("config", [FalconConfig(), MptConfig()])
def test_a_family_that_computes_attention_by_itself_is_refused(config: Any, tmp_path: Path, tiny_manifest: Manifest):
    """Before any weights are looked for: there are none."""
    config.save_pretrained(tmp_path)
    with pytest.raises(
        AttentionError, match=f"models of type {config.model_type} compute attention in a way of their own"
    ):
        load_model(ModelConfig(path=str(tmp_path)), extent=EXTENT, manifest=tiny_manifest)


def test_a_model_with_one_layer_of_another_kind_is_refused():
    model, batch = build(FAMILIES["llama"], NAME), packed("A: one sequence with a jump")
    check_routed(model, lambda: hidden_states(model, batch))
    model.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(AttentionError, match="ours was asked in 2 of 3 layers"):
        check_routed(model, lambda: hidden_states(model, batch))


def squares_in_graphs(attention: str) -> tuple[int, int]:
    """How many values the graphs hold that torch.compile makes of a model of one layer, and how many of them span the
    packed row twice."""
    config = LlamaConfig(**SIZES | {"num_hidden_layers": 1})
    model, batch = build(config, attention), packed("C: the second starts at 37")
    shapes: list[tuple[int, ...]] = []

    def kept(graph: torch.fx.GraphModule, _: Any) -> Any:
        values = [node.meta.get("example_value") for node in graph.graph.nodes]
        shapes.extend(tuple(map(int, value.shape)) for value in values if isinstance(value, torch.Tensor))
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(lambda ids: hidden_states(model, batch, ids), backend=kept, dynamic=False)
    with torch.no_grad():
        states = compiled(batch.input_ids)
        assert torch.allclose(states, hidden_states(model, batch), atol=1e-4)
    return len(shapes), sum(shape.count(batch.tokens) > 1 for shape in shapes)


@pytest.mark.slow
def test_under_torch_compile_no_value_of_the_graph_spans_the_row_twice():
    """transformers' own attention gets an N×N mask there, whatever the positions."""
    values, squares = squares_in_graphs(NAME)
    assert values > 50
    assert squares == 0
    assert squares_in_graphs("sdpa")[1] > 0
