"""A step's arithmetic against torch's own count, and what is claimed of devices."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.training.conftest import token_rows
from training.batch import StepData, lay_out
from training.flops import peak_flops, work_of
from training.presets import PRESETS
from training.stream import DataState, Row


def model(**more: object) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="eager",
        bos_token_id=None,
        eos_token_id=None,
        **more,
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("more", [{"tie_word_embeddings": True}, {"head_dim": 32}])
def test_flops_are_those_torch_counts(more: dict[str, object]):
    network, length, targets = model(**more), 48, 10
    with FlopCounterMode(display=False) as counter:
        hidden = network.model(torch.zeros(1, length, dtype=torch.long), use_cache=False).last_hidden_state
        network.lm_head(hidden[:, :targets]).sum().backward()
    work = work_of(network)
    # Eager attention computes the half above the diagonal too; RoPE takes a small product of its own.
    counted = work.of(length, targets, length * length) + work.square * length * length
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.01)


def test_gpt2s_own_layers_are_counted():
    network = AutoModelForCausalLM.from_config(PRESETS["tiny-learned"](128), attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 32, dtype=torch.long), use_cache=False).logits.sum().backward()
    work = work_of(network)
    assert counter.get_total_flops() == pytest.approx(work.of(32, 32, 32 * 32) + work.square * 32 * 32, rel=0.01)


def test_a_steps_squares_are_its_sequences_own():
    """A packed row is no single long sequence: counted as one it would claim more than was done."""
    columns = ("input_ids", "labels", "position_ids", "seq_lengths")
    batches = [
        lay_out([Row(name="", **{c: row[c] for c in columns}) for row in token_rows(5, seed=seed)]) for seed in (1, 2)
    ]
    work = work_of(model())
    lengths = [n for batch in batches for n in batch.cu_seq_lens.diff().tolist()]
    targets = sum(int((batch.targets != -100).sum()) for batch in batches)
    assert len(lengths) > 10
    wanted = work.token * sum(lengths) + work.target * targets + work.square * sum(n * n for n in lengths)
    assert work.of_step(StepData(batches=tuple(batches), state=DataState())) == wanted


def test_frozen_matrices_take_no_gradient_of_their_own():
    network = model()
    whole = work_of(network)
    network.requires_grad_(False)
    assert work_of(network).token == pytest.approx(whole.token * 4 / 6)
    assert work_of(network).target == pytest.approx(whole.target * 4 / 6)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100-PCIE-40GB", 312e12),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("cpu", None),
    ],
)
def test_no_peak_is_made_up(name: str, peak: float | None):
    assert peak_flops(name) == peak
