"""AdamW over a model's parameters, and the learning rate of every step."""

from __future__ import annotations

import math

import torch
from torch import nn

from training.config import OptimizerConfig

BETAS = (0.9, 0.95)
COOLDOWN = 0.1
"""Share of the steps over which `wsd` falls to zero."""


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW, with weight decay on matrices only, by torch's fused kernel: a pass over parameters and states in the place of
    a dozen, on a GPU without the copies that its other forms make, and for weights that are spread over ranks too."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=BETAS, fused=True)


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of a step (1 … steps): a linear warm-up, then constant, a cosine to zero, or constant with a
    linear fall to zero over the last tenth (wsd)."""
    if step <= config.warmup:
        return config.lr * step / config.warmup
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1.0 + math.cos(math.pi * (step - 1 - config.warmup) / (steps - config.warmup)))
    if config.schedule == "wsd":
        fall = max(1, round(steps * COOLDOWN))
        return config.lr * min(1.0, (steps - step + 1) / fall)
    return config.lr
