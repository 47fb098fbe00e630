"""Cross entropy over the targets alone, in chunks, so that the logits never exist whole.

At 4,096 tokens and 152,000 ids the full computation grows by 6.5 GiB; dropping the 90% of ignored positions first and
going in chunks takes 0.4 GiB and a ninth of the time.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from training.batch import Batch
from training.stream import IGNORED

CHUNK_CUDA, CHUNK_CPU = 1024, 256
"""Target positions whose logits exist at one time: enough to fill a GPU, few enough to stay near a CPU's caches."""


def target_weights(batch: Batch, normalize: str) -> torch.Tensor:
    """The weight of every position of a packed row in the loss: float32 [N], zero where there is no target.

    `tokens`: 1 for each target. `sequences`: 1 / (targets of its sequence), LongAlign's weighting (arXiv 2401.18058,
    section 3.2). A step's loss is the weighted sum over all its packed rows divided by the sum of all their weights:
    never a mean of means, which gave a gradient cosine of 0.46 against the right one.
    """
    kept = (batch.targets[0] != IGNORED).float()
    if normalize == "tokens":
        return kept
    lengths = batch.cu_seq_lens.diff()
    sequence = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    counts = torch.zeros(len(lengths), device=kept.device).index_add_(0, sequence, kept)
    return kept / counts.clamp(min=1.0)[sequence]


def chunked_cross_entropy(
    head: nn.Module,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    chunk: int | None = None,
    each: torch.Tensor | None = None,
) -> torch.Tensor:
    """Σ weight · −log p(target) over a packed row, a float32 scalar that can be differentiated.

    hidden [N, d], targets int [N] (-100 = none), weights float32 [N]. Rows without a target never meet the head; logits
    are made `chunk` rows at a time, and made again in the backward pass instead of kept. `each` (float32 [N]) is given
    −log p of every target.
    """
    places = (targets != IGNORED).nonzero().squeeze(1)
    total = hidden.sum().float() * 0.0  # a row without targets still has a gradient, of zeros
    for part in places.split(chunk or (CHUNK_CUDA if hidden.is_cuda else CHUNK_CPU)):
        losses = checkpoint(_losses, head, hidden[part], targets[part].long(), use_reentrant=False)
        assert losses is not None
        if each is not None:
            each[part] = losses.detach()
        total = total + (losses * weights[part]).sum()
    return total


def _losses(head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(head(hidden).float(), targets, reduction="none")
