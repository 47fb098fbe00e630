"""Sequence parallelism by all-to-all (Ulysses, arXiv 2309.14509) around whatever attention a model has.

Outside attention a rank holds 1/P of a packed row's tokens and all heads; inside it holds all tokens and 1/P of the
heads, so boundaries stay those of the whole row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from training.attention import ACROSS, FUNCTIONS
from training.attention_checks import check_attention
from training.batch import Batch
from training.errors import AttentionError, ModelError
from training.model import hidden_states
from training.parallel import Ranks
from training.rows import IGNORED

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


def attend_across(model: PreTrainedModel, group: dist.ProcessGroup) -> None:
    """Let a model attend over rows whose tokens lie with the ranks of a group, by the kernel it has been given; raises
    ModelError where its heads cannot be shared."""
    config: Any = model.config
    size = dist.get_world_size(group)
    if config.num_attention_heads % size:
        message = (
            f"the model's {config.num_attention_heads} attention heads cannot be shared evenly by the {size} ranks of "
            "parallel.sequence"
        )
        raise ModelError(message, param="/parallel/sequence")
    own: str = config._attn_implementation
    AttentionInterface.register(own + ACROSS, across_ranks(FUNCTIONS[own], group))
    model.set_attn_implementation(own + ACROSS)


def padded(batch: Batch, size: int) -> Batch:
    """A packed row of a multiple of `size` tokens: what it lacks is a sequence of its own, without a target."""
    lacking = -batch.tokens % size
    if not lacking:
        return batch
    zeros = torch.zeros(1, lacking, dtype=torch.int32)
    return Batch(
        input_ids=torch.cat([batch.input_ids, zeros], dim=1),
        position_ids=torch.cat([batch.position_ids, torch.arange(lacking, dtype=torch.int32)[None]], dim=1),
        targets=torch.cat([batch.targets, torch.full_like(zeros, IGNORED)], dim=1),
        cu_seq_lens=torch.cat([batch.cu_seq_lens, batch.cu_seq_lens[-1:] + lacking]),
        max_length=max(batch.max_length, lacking),
    )


def own_tokens(batch: Batch, rank: int, size: int) -> Batch:
    """The tokens of a padded row that one of its ranks holds; the boundaries are those of the whole row."""
    return Batch(
        input_ids=batch.input_ids.chunk(size, dim=1)[rank],
        position_ids=batch.position_ids.chunk(size, dim=1)[rank],
        targets=batch.targets.chunk(size, dim=1)[rank],
        cu_seq_lens=batch.cu_seq_lens,
        max_length=batch.max_length,
    )


def own_targets(batch: Batch, rank: int, size: int) -> Batch:
    """A padded row with the targets of one of its ranks alone."""
    kept = torch.full_like(batch.targets, IGNORED)
    kept.chunk(size, dim=1)[rank].copy_(batch.targets.chunk(size, dim=1)[rank])
    return replace(batch, targets=kept)


def gathered(part: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The parts [1, N/P, …] of all ranks of a row as [1, N, …], without a gradient."""
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, part.contiguous(), group=group)
    return torch.cat(parts, dim=1)


def preflight_across(model: PreTrainedModel, batch: Batch, ranks: Ranks) -> None:
    """Check on a padded row, which all ranks of it hold, that attention across them follows the boundaries too. Raises
    AttentionError."""
    group = ranks.row_group
    assert group is not None

    def forward(ids: torch.Tensor) -> torch.Tensor:
        own = own_tokens(replace(batch, input_ids=ids), ranks.part, ranks.sequence)
        return gathered(hidden_states(model, own), group)

    training = model.training
    model.eval()
    try:
        check_attention(forward, batch, anywhere=ranks.anywhere)
    finally:
        model.train(training)
