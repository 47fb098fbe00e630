"""Attention inside boundaries by FlexAttention: its mask as blocks, made from the boundaries and never N×N."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from training.influence import sequence_numbers

BLOCK = 128
"""Tokens of a block: what FlexAttention's kernels work in."""

_last: tuple[torch.Tensor, BlockMask] | None = None
"""The mask of the boundaries seen last: all layers of a pass ask for the same."""


def flex(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, max_length: int, scale: float
) -> torch.Tensor:
    """Causal attention inside sequences; shapes as for training.attention.boundary_attention.

    Compiled on CUDA. On a CPU it runs uncompiled, for comparison: with scores of the whole row in memory.
    """
    global _last
    del max_length
    if _last is None or _last[0] is not bounds:
        _last = (bounds, block_mask(bounds))
    attend: Any = compiled() if query.is_cuda else flex_attention
    grouped = query.shape[1] != key.shape[1]
    return attend(query, key, value, block_mask=_last[1], scale=scale, enable_gqa=grouped).transpose(1, 2)


def block_mask(bounds: torch.Tensor) -> BlockMask:
    """Which blocks of keys each block of queries sees, from boundaries int32 [S + 1] between 0 and N.

    (N / 128)² flags are made, where create_block_mask would first make N² of them unless it is compiled.
    """
    tokens = int(bounds[-1])
    starts = bounds[:-1][sequence_numbers(bounds)]  # of each token's sequence; they never fall
    first = torch.arange(0, tokens, BLOCK, device=bounds.device)
    last = (first + BLOCK - 1).clamp(max=tokens - 1)
    rows, columns = (first // BLOCK)[:, None], (first // BLOCK)[None]
    seen = (columns >= (starts[first] // BLOCK)[:, None]) & (columns <= rows)
    # Whole: before the diagonal, and not before the start of the row's last sequence.
    full = seen & (columns * BLOCK >= starts[last][:, None]) & (columns < rows)
    partial = seen & ~full

    def inside(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        del b, h
        return (k <= q) & (k >= starts[q])

    return BlockMask.from_kv_blocks(
        *_listed(partial), *_listed(full), BLOCK_SIZE=BLOCK, mask_mod=inside, seq_lengths=(tokens, tokens)
    )


def _listed(flags: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Flags [R, C] as counts int32 [1, 1, R] and the columns that have them, first in each row, int32 [1, 1, R, C]."""
    order = flags.int().argsort(dim=1, descending=True, stable=True)
    return flags.sum(dim=1, dtype=torch.int32)[None, None], order.int()[None, None]


@cache
def compiled(backend: str = "inductor") -> Any:
    """FlexAttention compiled for rows of any length: a graph for every length would soon reach dynamo's limit, and beyond it
    rows would run uncompiled, with scores of the whole row. Here that limit is an error."""
    return torch.compile(flex_attention, backend=backend, dynamic=True, fullgraph=True)
