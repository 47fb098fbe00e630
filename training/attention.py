"""Attention that follows declared boundaries, whatever the positions do.

Hugging Face models take any position step other than +1 for the border of a packed document, so a row with jumping
positions is silently cut: the response never sees its instruction. Here boundaries come as `cu_seq_lens_*` through the
model call and positions serve RoPE alone. Registered under a name without a mask function of its own, so transformers
builds no mask and guesses no boundary; a call without boundaries is an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from training.errors import AttentionError
from training.flex import flex

NAME = "longweave_boundaries"
"""Our name at transformers. "flash" must not be part of it: that would set off the download of a kernel."""

KINDS = {"auto": NAME, "varlen": f"{NAME}_varlen", "flex": f"{NAME}_flex", "exact": f"{NAME}_exact"}
"""The names at transformers of what model.attention chooses among."""
ACROSS = "_across_ranks"
"""What stands behind one of them where a row's tokens lie with several ranks (training.sequence_parallel)."""
_ASKED: list[set[int]] = []
"""The modules that have called this attention, while somebody counts them. (A ContextVar would break every compiled graph
in two.)"""

WITHOUT_BOUNDARIES = frozenset({"bloom"})
"""Types of models that cannot be told boundaries but take no positions either: their sequences are rows of their own."""

UNSERVED = ("sliding_window", "softcap", "s_aux", "position_bias")
"""Arguments by which models ask attention for more than softmax(q·k)·v inside boundaries."""


Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int, float], torch.Tensor]
"""Queries, keys, values, boundaries, longest sequence and scale to [1, N, H, D]."""


def boundary_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    kernel: Kernel | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each sequence of one packed row, by `kernel`, else by varlen in half precision on CUDA and
    exactly elsewhere.

    query [1, H, N, D], key and value [1, H_kv, N, D] with H a multiple of H_kv; cu_seq_lens_q int32 [S + 1] from 0 to
    N; returns [1, N, H, D] in the value's dtype. Raises AttentionError where boundaries are missing or more is asked
    for than is served.
    """
    if _ASKED:
        _ASKED[-1].add(id(module))
    _refuse(module, query, key, attention_mask, dropout, options)
    if cu_seq_lens_q is None or max_length_q is None:
        message = (
            "attention was called without boundaries (cu_seq_lens_q, max_length_q), and they cannot be guessed from "
            "positions that jump: call the model on what training.RowCollator makes of the rows"
        )
        raise AttentionError(message)
    # Under autocast RoPE lifts queries and keys to float32 while values stay in the compute dtype.
    query, key = query.to(value.dtype), key.to(value.dtype)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if kernel is None:
        kernel = _kernel(query.is_cuda, query.dtype)
    return kernel(query, key, value, cu_seq_lens_q, max_length_q, scale), None


def _kernel(cuda: bool, dtype: torch.dtype) -> Kernel:  # noqa: FBT001 (one of the two things that decide)
    return varlen if cuda and dtype in {torch.float16, torch.bfloat16} else segments


def kernel_of(model: PreTrainedModel, dtype: torch.dtype) -> str:
    """What a model's attention is computed by where its work is done in a dtype, in words."""
    config: Any = model.config
    name: str = config._attn_implementation
    if not name.startswith(NAME):
        return "the model's own attention, a sequence a row"
    name = name.removesuffix(ACROSS)
    if name == KINDS["flex"]:
        return "FlexAttention"
    if name != KINDS["exact"] and _kernel(model.device.type == "cuda", dtype) is varlen:
        return f"torch's varlen kernel ({'grouped heads' if _knows_groups() else 'key heads repeated'})"
    return "scaled_dot_product_attention, a sequence at a time"


def _refuse(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    options: dict[str, Any],
) -> None:
    """Raise AttentionError for anything this attention would otherwise leave out in silence."""
    asked = [name for name in UNSERVED if options.get(name) is not None]
    if mask is not None:
        asked.append("attention_mask")
    if dropout:
        asked.append("dropout")
    if getattr(module, "is_causal", True) is False or options.get("is_causal") is False:
        asked.append("is_causal=False")
    if asked:
        message = f"the model's attention asks for {', '.join(asked)}, which the training worker does not serve"
        raise AttentionError(message)
    if query.shape[0] != 1 or query.shape[2] != key.shape[2]:
        message = (
            "attention takes one packed row without a cache, not queries of shape "
            f"{tuple(query.shape)} and keys of shape {tuple(key.shape)}"
        )
        raise AttentionError(message)


@contextmanager
def askers() -> Generator[set[int]]:
    """The set of modules (by id) that ask this attention within the block, as it fills."""
    asked: set[int] = set()
    _ASKED.append(asked)
    try:
        yield asked
    finally:
        _ASKED.pop()


def segments(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, max_length: int, scale: float
) -> torch.Tensor:
    """One causal call of scaled_dot_product_attention for each sequence: exact on every device, and never N×N."""
    del max_length
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    lengths = bounds.diff().tolist()
    outputs = [
        scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        for q, k, v in zip(
            query.split(lengths, dim=2), key.split(lengths, dim=2), value.split(lengths, dim=2), strict=True
        )
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2)


def _knows_groups() -> bool:
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, max_length: int, scale: float
) -> torch.Tensor:
    """The same through torch's varlen kernel (CUDA, half precision). Its default window is not causal: (-1, 0) is."""
    from torch.nn.attention.varlen import varlen_attn

    gqa: dict[str, Any] = {}
    if query.shape[1] != key.shape[1]:
        if _knows_groups():
            gqa = {"enable_gqa": True}
        else:  # torch 2.11 wants as many key heads as query heads
            repeats = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    q, k, v = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    output: Any = varlen_attn(q, k, v, bounds, bounds, max_length, max_length, scale=scale, window_size=(-1, 0), **gqa)
    return output[None]


# varlen serves half precision alone: the float32 of a preflight is done exactly.
FUNCTIONS: dict[str, Callable[..., tuple[torch.Tensor, None]]] = {
    KINDS["auto"]: boundary_attention,
    KINDS["varlen"]: boundary_attention,
    KINDS["flex"]: partial(boundary_attention, kernel=flex),
    KINDS["exact"]: partial(boundary_attention, kernel=segments),
}
"""By the name at transformers."""
for _name, _function in FUNCTIONS.items():
    AttentionInterface.register(_name, _function)
