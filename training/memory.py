"""What a model computes in, and what it keeps for the backward pass.

Weights, their gradients and the optimizer's states are float32 whatever is chosen: bfloat16 is what the work is done in
(torch.autocast), and RoPE's phases stay out of it, for in bfloat16 positions from 2,047 on are noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from training.config import ModelConfig
from training.errors import ModelError

_WORK = "longweave_work"
"""The attribute of a model that holds what its work is asked to be done in."""


def prepare(model: PreTrainedModel, config: ModelConfig) -> None:
    """Have a model compute in model.dtype and keep what model.checkpointing and model.mlp_chunk ask for.

    Raises ModelError where it is not made for that.
    """
    setattr(model, _WORK, config.dtype)
    if config.mlp_chunk is not None:
        _chunk_mlps(model, config.mlp_chunk)
    if config.checkpointing:
        _checkpoint_layers(model, offload=config.offload)


def work_dtype(model: PreTrainedModel) -> torch.dtype:
    """What a model computes in: bfloat16 where it was asked for, and under `auto` on CUDA, else float32."""
    asked = getattr(model, _WORK, "auto")
    half = asked == "bfloat16" or (asked == "auto" and model.device.type == "cuda")
    return torch.bfloat16 if half else torch.float32


def at_work(model: PreTrainedModel) -> torch.autocast:
    """The context in which a model computes in its dtype."""
    return torch.autocast(model.device.type, torch.bfloat16, enabled=work_dtype(model) == torch.bfloat16)


def _checkpoint_layers(model: PreTrainedModel, *, offload: bool) -> None:
    """Keep a layer's input alone, in the CPU's memory with `offload`, and compute the layer again in the backward pass."""
    if not model.supports_gradient_checkpointing:
        message = f"a {type(model).__name__} cannot compute its layers again: set model.checkpointing to false"
        raise ModelError(message, param="/model/checkpointing")
    # Renamed in transformers 5.23; both take the options of torch's checkpoint first.
    enable: Callable[[dict[str, Any]], None] = (
        getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    )
    enable({"use_reentrant": False})
    if offload:
        layers: list[Any] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        for layer in layers:
            layer._gradient_checkpointing_func = _offloading


def _offloading(forward: Callable[..., Any], *inputs: Any) -> Any:
    """A layer's forward pass that keeps its inputs in the CPU's memory."""
    # Of hooks within hooks the inner ones decide: those of checkpoint take what the layer keeps, these its inputs.
    with save_on_cpu(pin_memory=torch.cuda.is_available()):
        return checkpoint(forward, *inputs, use_reentrant=False)


def _chunk_mlps(model: PreTrainedModel, tokens: int) -> None:
    """Have every layer's MLP take `tokens` tokens at a time, and again in the backward pass: its widest values, some
    3.5 to 8 times the hidden size, never exist for a whole row."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    mlps = [mlp for layer in layers if isinstance(mlp := getattr(layer, "mlp", None), nn.Module)]
    if not mlps or len(mlps) != len(layers):
        message = (
            f"the layers of a {type(model).__name__} have no MLP that can be taken apart: leave model.mlp_chunk out"
        )
        raise ModelError(message, param="/model/mlp_chunk")
    for mlp in mlps:
        mlp.forward = _chunked(mlp.forward, tokens)


def _chunked(forward: Callable[[torch.Tensor], torch.Tensor], tokens: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def run(hidden: torch.Tensor) -> torch.Tensor:
        """hidden [B, N, d] → [B, N, d]."""
        parts: list[torch.Tensor] = [
            checkpoint(forward, part, use_reentrant=False) if torch.is_grad_enabled() else forward(part)
            for part in hidden.split(tokens, dim=1)
        ]
        return torch.cat(parts, dim=1)

    return run
