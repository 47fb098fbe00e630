"""How much arithmetic a step is, and how much a device could do: what MFU (model FLOPs utilisation) is made of.

The convention: 6·N_blocks a token, 6·V·d a target (the loss takes no other token to the output layer), and attention counted
causally and exactly, 6·L·d·Σlen² over the sequences. Where every token is a target that is 6·(N_blocks + V·d) + 6·L·d·Σlen²/Σlen
a token. What activation checkpointing computes again is not counted. PaLM (arXiv 2204.02311, appendix B) counts full squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from training.batch import StepData
from training.rows import IGNORED

CONVENTION = (
    "6·N_blocks a token + 6·V·d a target + 6·L·d·Σlen² over the sequences (attention counted causally; frozen matrices count 4 "
    "instead of 6; nothing for recomputation), over the device's dense bfloat16 peak"
)
PEAK_FLOPS = {
    "H100": 989.4e12,
    "H200": 989.4e12,
    "H800": 989.4e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362.05e12,
}
"""Dense bfloat16 FLOPs a second by a word of the device's name: the SXM cards where there are several, by NVIDIA's data sheets."""
OTHERS = ("PCIe", "NVL", "MIG")
"""Words of cards that do less than the one the table has."""


def peak_flops(name: str) -> float | None:
    """What a device of that name could do at most, in bfloat16 FLOPs a second; None for one the table does not know."""
    if any(word in name for word in OTHERS):
        return None
    return next((peak for card, peak in PEAK_FLOPS.items() if card in name), None)


def device_name(device: torch.device) -> str:
    """The device as its maker calls it, or its type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """FLOPs of a forward and a backward pass: by token, by target, and by squared length of a sequence."""

    token: float
    target: float
    square: float

    def of(self, tokens: int, targets: int, squares: int) -> float:
        """FLOPs of so many tokens and targets in sequences whose squared lengths add up to `squares`."""
        return self.token * tokens + self.target * targets + self.square * squares

    def of_step(self, data: StepData) -> float:
        """FLOPs of a whole step, of all ranks."""
        lengths = [batch.cu_seq_lens.diff().long() for batch in data.batches]
        return self.of(
            sum(batch.tokens for batch in data.batches),
            sum(int((batch.targets != IGNORED).sum()) for batch in data.batches),
            sum(int((length * length).sum()) for length in lengths),
        )


def work_of(model: PreTrainedModel) -> Work:
    """The arithmetic of a model, read off its linear layers; whole sizes also where its weights are spread over ranks."""
    head: Any = model.get_output_embeddings()
    blocks = sum(_passes(layer) * layer.weight.numel() for layer in _products(model) if layer is not head)
    config: Any = model.config
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Work(
        token=float(blocks),
        target=float(_passes(head) * head.weight.numel()),
        square=6.0 * config.num_hidden_layers * width,
    )


def _products(model: nn.Module) -> list[Any]:
    """The layers that multiply by a matrix; GPT-2 has its own kind."""
    return [module for module in model.modules() if isinstance(module, nn.Linear | Conv1D)]


def _passes(layer: nn.Module) -> int:
    """FLOPs a weight and token: two forward, two for the input's gradient, two for the weight's own where it is trained."""
    weight: Any = layer.weight
    return 6 if weight.requires_grad else 4
