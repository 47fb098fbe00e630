"""Sequence parallelism by all-to-all (Ulysses, arXiv 2309.14509) around whatever attention a model has.

Outside attention a rank holds 1/P of a packed row's tokens and all heads; inside it holds all tokens and 1/P of the
heads, so boundaries stay those of the whole row. The training loop does not use it yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from training.errors import AttentionError

Attention = Callable[..., tuple[torch.Tensor, Any]]
"""An attention as transformers calls it: (module, query, key, value, mask, **options) to ([1, N, H, D], …)."""


class _Exchange(torch.autograd.Function):
    """Piece p of dimension 0 goes to rank p of the group, and what comes from rank p becomes piece p."""

    @staticmethod
    def forward(ctx: Any, pieces: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.group = group
        received = torch.empty_like(pieces, memory_format=torch.contiguous_format)
        dist.all_to_all_single(received, pieces.contiguous(), group=group)
        return received

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return exchange(gradient, ctx.group), None


def exchange(pieces: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """All-to-all over dimension 0, of the group's size; its gradient is the same exchange."""
    result: Any = _Exchange.apply(pieces, group)
    return result


def across_ranks(attention: Attention, group: dist.ProcessGroup) -> Attention:
    """The same attention for query [1, H, N/P, D] and key, value [1, H_kv, N/P, D]: a rank's tokens of a row.

    Every rank holds equally many tokens, in order; boundaries among the options are those of the whole row. Key heads
    that P ranks cannot share are repeated. Raises AttentionError where P does not divide H.
    """
    size = dist.get_world_size(group)

    def attend(
        module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
    ) -> tuple[torch.Tensor, Any]:
        heads, key_heads = query.shape[1], key.shape[1]
        if heads % size:
            message = f"the model's {heads} attention heads cannot be shared evenly by {size} ranks of a sequence"
            raise AttentionError(message)
        repeats = next(r for r in range(1, heads // key_heads + 1) if key_heads * r % size == 0)
        key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
        query, key, value = (_to_heads(tensor, group, size) for tensor in (query, key, value))
        output, rest = attention(module, query, key, value, mask, **options)
        return _to_tokens(output, group, size), rest

    return attend


def _to_heads(tensor: torch.Tensor, group: dist.ProcessGroup, size: int) -> torch.Tensor:
    """[1, H, N/P, D] of this rank's tokens to [1, H/P, N, D] of its heads."""
    _, heads, tokens, depth = tensor.shape
    pieces = exchange(tensor.reshape(size, heads // size, tokens, depth), group)
    return pieces.transpose(0, 1).reshape(1, heads // size, size * tokens, depth)


def _to_tokens(tensor: torch.Tensor, group: dist.ProcessGroup, size: int) -> torch.Tensor:
    """[1, N, H/P, D] of this rank's heads to [1, N/P, H, D] of its tokens."""
    _, tokens, heads, depth = tensor.shape
    pieces = exchange(tensor.reshape(size, tokens // size, heads, depth), group)
    return pieces.transpose(0, 1).reshape(1, tokens // size, size * heads, depth)
