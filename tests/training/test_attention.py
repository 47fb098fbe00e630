"""Our attention against references that pack nothing, and the preflight check against calls known to be wrong."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, MistralConfig, PreTrainedModel, Qwen2Config

from tests.training.reference import BLOCK, CASES, SIZES, build, packed, plain_states, sequences
from training.attention import KINDS, NAME, _kernel, boundary_attention, kernel_of, segments, varlen
from training.attention_checks import (
    CHECKED,
    COMPARED,
    check_attention,
    check_kernel,
    compare_kernel,
    refuse_windows,
)
from training.batch import Batch
from training.errors import AttentionError
from training.flex import flex
from training.model import hidden_states


def llama(attention: str) -> PreTrainedModel:
    return build(LlamaConfig(**SIZES), attention)


def error_against_reference(model: PreTrainedModel, batch: Batch, states: torch.Tensor) -> float:
    with torch.no_grad():
        wanted = torch.cat([plain_states(model, ids, positions) for ids, positions in sequences(batch)])
    assert wanted.shape == states.shape == (batch.tokens, 64)
    return (wanted - states).abs().max().item()


@pytest.mark.parametrize("case", CASES)
def test_equals_a_plain_llama_one_sequence_at_a_time(case: str):
    model, batch = llama(NAME), packed(case)
    with torch.no_grad():
        states = hidden_states(model, batch)[0]
    assert error_against_reference(model, batch, states) < 1e-3


@pytest.mark.parametrize(
    ("case", "use_cache"),
    [("A: one sequence with a jump", False), ("B: two, both from 0", True), ("F: the second goes on counting", True)],
)
def test_the_stock_calls_are_wrong(case: str, use_cache: bool):
    """The traps this attention is for: cut without a cache, leaking with one."""
    model, batch = llama("sdpa"), packed(case)
    with torch.no_grad():
        states = stock(model, batch, use_cache=use_cache)(batch.input_ids)[0]
    assert error_against_reference(model, batch, states) > 0.1


def stock(model: PreTrainedModel, batch: Batch, **options: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(ids: torch.Tensor) -> torch.Tensor:
        call = {"input_ids": ids, "position_ids": batch.position_ids, **options}
        return model.base_model(**call).last_hidden_state

    return forward


@pytest.mark.parametrize("case", CASES)
def test_the_check_passes_ours(case: str):
    model, batch = llama(NAME), packed(case)
    check_attention(lambda ids: hidden_states(model, batch, ids), batch)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_check_finds_the_cut(attention: str):
    model, batch = llama(attention), packed("A: one sequence with a jump")
    with pytest.raises(AttentionError, match=f"attention is cut: {BLOCK} of {2 * BLOCK} tokens"):
        check_attention(stock(model, batch, use_cache=False), batch)
    with pytest.raises(AttentionError, match="attention is cut"):  # our very call, at a model without our attention
        check_attention(lambda ids: hidden_states(model, batch, ids), batch)


@pytest.mark.parametrize(
    "case", ["B: two, both from 0", "C: the second starts at 37", "F: the second goes on counting"]
)
def test_the_check_finds_the_leak(case: str):
    model, batch = llama("sdpa"), packed(case)
    with pytest.raises(AttentionError, match="attention leaks: 1 of 2 sequences"):
        check_attention(stock(model, batch, use_cache=True), batch)


def test_the_check_finds_a_past_that_sees_the_future():
    """Eager attention adds a bool mask to the scores instead of masking by it."""
    model, batch = llama("eager"), packed("A: one sequence with a jump")
    mask = torch.ones(2 * BLOCK, 2 * BLOCK, dtype=torch.bool).tril()[None, None]
    with pytest.raises(AttentionError, match="attention leaks"):
        check_attention(stock(model, batch, use_cache=False, attention_mask=mask), batch)


def test_a_call_without_boundaries_is_an_error():
    model, batch = llama(NAME), packed("A: one sequence with a jump")
    with pytest.raises(AttentionError, match="without boundaries"):
        stock(model, batch, use_cache=False)(batch.input_ids)


def heads(count: int, tokens: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, count, tokens, 16, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(
    ("options", "rows", "what"),
    [
        ({"sliding_window": 8}, 1, "sliding_window"),
        ({"softcap": 30.0}, 1, "softcap"),
        ({"s_aux": torch.ones(4)}, 1, "s_aux"),
        ({"is_causal": False}, 1, "is_causal"),
        ({"dropout": 0.1}, 1, "dropout"),
        ({"attention_mask": torch.ones(1, 10)}, 1, "attention_mask"),
        ({}, 2, "one packed row"),
    ],
)
def test_what_it_does_not_serve_is_refused(options: dict[str, Any], rows: int, what: str):
    bounds = torch.tensor([0, 10], dtype=torch.int32)
    mask = options.pop("attention_mask", None)
    with pytest.raises(AttentionError, match=what):
        boundary_attention(
            torch.nn.Identity(),
            heads(4, 10, rows),
            heads(2, 10, rows),
            heads(2, 10, rows),
            mask,
            cu_seq_lens_q=bounds,
            max_length_q=10,
            **options,
        )


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**SIZES),
        Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=1),
        LlamaConfig(**SIZES, layer_types=["full_attention", "chunked_attention", "full_attention"]),
    ],
)
def test_windowed_models_are_refused(config: Any):
    with pytest.raises(AttentionError, match="a window counts tokens"):
        refuse_windows(config)


def emulated(q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, **options: Any) -> torch.Tensor:
    """What torch documents of varlen_attn, for lack of a GPU: [T, H, D] in and out, causal only by window (-1, 0)."""
    assert q.is_contiguous()
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert max_q == max_k == int(cu_q.diff().max())
    if q.shape[1] != k.shape[1]:
        assert options.get("enable_gqa") is True
        k, v = k.repeat_interleave(q.shape[1] // k.shape[1], 1), v.repeat_interleave(q.shape[1] // v.shape[1], 1)
    out = torch.empty_like(q)
    for start, stop in zip(cu_q[:-1].tolist(), cu_q[1:].tolist(), strict=True):
        scores = torch.einsum("qhd,khd->hqk", q[start:stop], k[start:stop]) * options["scale"]
        if options.get("window_size", (-1, -1)) == (-1, 0):
            scores = scores.masked_fill(torch.ones_like(scores[0]).triu(1).bool(), -torch.inf)
        out[start:stop] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[start:stop])
    return out


def emulated_in_2_13(*args: Any, enable_gqa: bool = False, **options: Any) -> torch.Tensor:
    return emulated(*args, enable_gqa=enable_gqa, **options)


@pytest.mark.parametrize("kernel", [emulated_in_2_13, emulated])
def test_the_varlen_path_means_the_same(kernel: Any, monkeypatch: pytest.MonkeyPatch):
    """With a kernel that knows grouped heads (torch 2.13) and with one that does not (2.11)."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    bounds = torch.tensor([0, 7, 8, 20], dtype=torch.int32)
    arguments = (heads(4, 20), heads(2, 20), heads(2, 20) * 2, bounds, 12, 0.3)
    fast, exact = varlen(*arguments), segments(*arguments)
    assert fast.shape == exact.shape == (1, 20, 4, 16)
    assert torch.allclose(fast, exact, atol=1e-5)


def test_the_kernel_check_passes_a_right_kernel_and_finds_one_that_is_not_causal(monkeypatch: pytest.MonkeyPatch):
    batch = packed("C: the second starts at 37")
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", emulated_in_2_13)
    for backward in (False, True):
        compare_kernel(varlen, batch, heads=4, key_heads=2, size=16, backward=backward)

    def bidirectional(*args: Any, enable_gqa: bool = False, **options: Any) -> torch.Tensor:
        return emulated(*args, enable_gqa=enable_gqa, **options | {"window_size": (-1, -1)})

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", bidirectional)
    with pytest.raises(AttentionError, match=r"varlen attention kernel differs .* in its outputs"):
        compare_kernel(varlen, batch, heads=4, key_heads=2, size=16)


class SymmetricGradient(torch.autograd.Function):
    """Right outputs, and gradients as if every key had been seen by every query."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, bounds: Any, longest: int, scale: float) -> torch.Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.scale = scale
        return segments(q, k, v, bounds, longest, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        leaves = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            out = torch.nn.functional.scaled_dot_product_attention(*leaves, scale=ctx.scale, enable_gqa=True)
            return (*torch.autograd.grad(out.transpose(1, 2), leaves, gradient), None, None, None)


def test_the_kernel_check_finds_wrong_gradients_behind_right_outputs():
    def half_right(*arguments: Any) -> torch.Tensor:
        return SymmetricGradient.apply(*arguments)

    batch = packed("C: the second starts at 37")
    compare_kernel(half_right, batch, heads=4, key_heads=2, size=16)
    with pytest.raises(AttentionError, match=r"half_right attention kernel differs .* in its gradients"):
        compare_kernel(half_right, batch, heads=4, key_heads=2, size=16, backward=True)


@pytest.mark.parametrize(("kind", "kernel"), [("auto", varlen), ("varlen", varlen), ("flex", flex), ("exact", None)])
def test_on_cuda_the_kernel_that_is_asked_for_is_compared_both_ways(
    kind: str, kernel: Any, monkeypatch: pytest.MonkeyPatch
):
    """Outputs on up to 131,072 tokens of a row, gradients on fewer."""
    compared: list[Any] = []
    monkeypatch.setattr(
        "training.attention_checks.compare_kernel",
        lambda kernel, batch, **options: compared.append((kernel, batch, options)),
    )
    monkeypatch.setattr("training.attention_checks.ends_of", lambda batch, most: (batch, most))
    model, row = llama("eager"), SimpleNamespace(input_ids=SimpleNamespace(is_cuda=True))
    model.config._attn_implementation = KINDS[kind]
    check_kernel(model, row)  # type: ignore[arg-type]
    shape = {"heads": 4, "key_heads": 2, "size": 16}
    wanted = [(kernel, (row, COMPARED), shape), (kernel, (row, CHECKED), shape | {"backward": True})]
    assert compared == (wanted if kernel else [])


@pytest.mark.parametrize(
    ("asked", "dtype", "said"),
    [
        (NAME, torch.bfloat16, "scaled_dot_product_attention, a sequence at a time"),
        (f"{NAME}_across_ranks", torch.float32, "scaled_dot_product_attention, a sequence at a time"),
        (f"{KINDS['flex']}_across_ranks", torch.float32, "FlexAttention"),
        (KINDS["flex"], torch.float32, "FlexAttention"),
        ("eager", torch.float32, "the model's own attention, a sequence at a time"),
    ],
)
def test_a_run_says_what_computes_its_attention(asked: str, dtype: torch.dtype, said: str):
    model = llama("eager")
    model.config._attn_implementation = asked
    assert kernel_of(model, dtype) == said


def test_on_cuda_half_precision_is_varlens():
    assert _kernel(True, torch.bfloat16) is _kernel(True, torch.float16) is varlen
    assert _kernel(True, torch.float32) is _kernel(False, torch.bfloat16) is segments


def test_under_autocast_attention_is_done_in_the_compute_dtype(monkeypatch: pytest.MonkeyPatch):
    """RoPE lifts queries and keys to float32 there, values stay bfloat16: the kernel must get one dtype."""
    seen: list[tuple[torch.dtype, ...]] = []

    def watched(q: Any, k: Any, v: Any, *rest: Any) -> torch.Tensor:
        seen.append((q.dtype, k.dtype, v.dtype))
        return segments(q, k, v, *rest)

    monkeypatch.setattr("training.attention.segments", watched)
    model, batch = build(LlamaConfig(**SIZES), NAME), packed("C: the second starts at 37")
    with torch.no_grad():
        exact = hidden_states(model, batch)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = hidden_states(model, batch)
    assert seen == [(torch.float32,) * 3] * 3 + [(torch.bfloat16,) * 3] * 3
    assert torch.nn.functional.cosine_similarity(exact, rounded.float(), dim=-1).min() > 0.9


class LargestProduct(TorchDispatchMode):
    """Looks for tensors with two dimensions of the packed row's length."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens, self.seen, self.squares = tokens, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.seen += 1
            self.squares += sum(size == self.tokens for size in result.shape) > 1
        return result


def test_no_tensor_spans_the_packed_row_twice():
    batch = packed("C: the second starts at 37")
    assert batch.tokens == 44  # no other size of the model
    counts: dict[str, LargestProduct] = {}
    for attention in (NAME, "eager"):
        model = llama(attention)
        with LargestProduct(batch.tokens) as counts[attention]:
            hidden_states(model, batch).sum().backward()
    assert counts[NAME].seen > 100
    assert counts[NAME].squares == 0
    assert counts["eager"].squares > 0
