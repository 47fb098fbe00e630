"""Greedy answers are transformers' own, token for token, whatever the batch, the padding and the pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from tests.training.evaluation.conftest import llama
from training.attention import NAME
from training.evaluation.generate import greedy, inference
from training.presets import PRESETS


def qwen() -> Any:
    config = Qwen2Config(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def prompts(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 260, size=length).astype(np.int32) for length in lengths]


def own(model: Any, prompt: np.ndarray, budget: int) -> list[int]:
    """What transformers' generate says of one prompt alone."""
    ids = torch.from_numpy(prompt.astype(np.int64))[None]
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=budget, pad_token_id=0
    )
    return made[0, len(prompt) :].tolist()


def alibi() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        settings = PRESETS["tiny-alibi"](260)
        settings.initializer_range = 0.2
        return AutoModelForCausalLM.from_config(settings, attn_implementation="eager", dtype=torch.float32)


@pytest.mark.parametrize("make", [llama, qwen, alibi])
@pytest.mark.parametrize("prefill", [1, 7, 16, 1000])
def test_it_is_generate_token_for_token(make: Any, prefill: int):
    model = make().eval()
    asked = prompts(40, 1, 33, 17)
    expected = [own(model, prompt, 12) for prompt in asked]
    assert len({tuple(answer) for answer in expected}) >= 3
    if make is not alibi:  # which has an attention of its own, and keeps it
        model.set_attn_implementation(NAME)
    model.train()
    with inference(model):
        found = greedy(model, asked, budgets=[12] * 4, stops=frozenset(), prefill=prefill)
    assert found == expected


def test_each_ends_at_its_budget_or_its_stop():
    model = llama()
    asked = prompts(20, 20, 9)
    with inference(model):
        whole = greedy(model, asked, budgets=[10, 10, 10], stops=frozenset(), prefill=8)
        cut = greedy(model, asked, budgets=[3, 10, 0], stops=frozenset(), prefill=8)
        stop = whole[1][4]
        stopped = greedy(model, asked, budgets=[10, 10, 10], stops=frozenset({stop}), prefill=8)
    assert cut == [whole[0][:3], whole[1], []]
    for answer, full in zip(stopped, whole, strict=True):
        assert answer == (full[: full.index(stop)] if stop in full else full)
    assert len(stopped[1]) < 10


def test_the_model_is_left_as_it_was():
    model = llama()
    model.set_attn_implementation(NAME)
    model.train()
    state = torch.random.get_rng_state()
    with inference(model):
        assert not model.training
        greedy(model, prompts(5), budgets=[3], stops=frozenset(), prefill=4)
    assert model.training
    assert model.config._attn_implementation == NAME
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(ZeroDivisionError), inference(model):
        _ = 1 // 0
    assert model.training
    assert model.config._attn_implementation == NAME


def test_pieces_bound_what_one_call_sees(monkeypatch: pytest.MonkeyPatch):
    model = llama()
    sizes: list[int] = []
    forward = type(model.base_model).forward

    def counted(self: Any, *args: Any, **named: Any) -> Any:
        sizes.append(named["input_ids"].shape[1])
        return forward(self, *args, **named)

    monkeypatch.setattr(type(model.base_model), "forward", counted)
    with inference(model):
        greedy(model, prompts(50, 21), budgets=[2, 2], stops=frozenset(), prefill=16)
    assert sizes == [16, 16, 16, 2, 1]
