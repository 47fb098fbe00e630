"""The RoPE base: chosen from the model's own base and window and the data's largest position, set once, and read back.

NTK-aware scaling (bloc97, 2023; used by LongSkywork, arXiv 2406.00605): base' = base · scale^(d / (d − 2)) with d the
rotated dimensions of a head and scale = positions needed / window, so that the slowest rotation turns as far over the
needed positions as it did over the window. With d = 128 and base 10,000, 200,000 positions give 257,000 from a window
of 8,192 (LongSkywork's 260,000 lies at 202,500) and 519,000 from one of 4,096. The base is only ever raised.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from packing.dataset.errors import FieldProblem, SpecError
from training.errors import RopeError

SCALED = ("linear", "dynamic", "yarn", "longrope", "llama3")
"""Kinds of RoPE with a rule of their own, that are taken as they are inside their windows."""


def ntk_base(base: float, *, window: int, needed: int, size: int) -> float:
    """The NTK-aware base for `needed` positions of a model trained with `base` on `window` positions; `size` = d."""
    if needed <= window or size <= 2:
        return base
    return base * (needed / window) ** (size / (size - 2))


def set_rope(config: Any, asked: str | float, *, needed: int) -> float:
    """Set a model config's RoPE base and window before the model is built; returns the base.

    `asked`: "auto" or a base taken as given. `needed` = the data's largest position + 1. The window
    (max_position_embeddings) is raised with the base, so that a next stage that starts from this one's checkpoint does
    not scale a second time.

    Raises SpecError where the base would be lowered, RopeError where the model has no rotary positions of the plain
    kind to scale.
    """
    parameters: dict[str, Any] = dict(getattr(config, "rope_parameters", None) or {})
    own, kind = parameters.get("rope_theta"), parameters.get("rope_type", "default")
    window: int | None = getattr(config, "max_position_embeddings", None)
    if own is None or window is None:
        message = f"a model of type {config.model_type} has no RoPE base and window: its positions cannot be stretched"
        raise RopeError(message)
    base = ntk_base(own, window=window, needed=needed, size=rotated_size(config)) if asked == "auto" else float(asked)
    if base < own:
        message = f"{base:g} is below the model's own base, {own:g}: lowering it would undo what the model has learnt"
        raise SpecError([FieldProblem(pointer="/model/rope_base", message=message)])
    if kind != "default":
        _refuse_scaled(config, kind, window=window, needed=needed, changed=base != own)
    if kind == "default":
        # Both keys: transformers ignores a rope_theta that stands elsewhere once the config exists.
        config.rope_parameters = {**parameters, "rope_type": "default", "rope_theta": float(base)}
        config.max_position_embeddings = max(window, needed)
    return float(base)


def _refuse_scaled(config: Any, kind: str, *, window: int, needed: int, changed: bool) -> None:
    """Raise RopeError where RoPE of a kind that is scaled by a rule of its own would not rotate every row alike.

    linear, yarn and llama3 scale once and for all. dynamic scales by the largest position of the rows it has seen, but
    not inside its window; longrope changes over for a whole packed row once a position lies beyond the window it was
    first trained with.
    """
    parameters: dict[str, Any] = config.rope_parameters
    fixed = window
    if kind == "longrope":
        fixed = parameters.get("original_max_position_embeddings") or config.original_max_position_embeddings
    elif kind not in SCALED:
        message = f"its RoPE is of type {kind}, which the worker does not know: it serves default, {', '.join(SCALED)}"
        raise RopeError(message)
    if changed or needed > fixed:
        message = (
            f"its RoPE is of type {kind}, with a rule of its own for {fixed} positions; the data need {needed}, "
            "and only plain RoPE (type default) is stretched: take data with smaller positions, or a model with it"
        )
        raise RopeError(message)


def rotated_size(config: Any) -> int:
    """How many dimensions of a head are rotated."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    parameters: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    share = parameters.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0
    return int(head * share)


def read_base(inv_freq: torch.Tensor) -> float:
    """The base that inverse frequencies [d / 2] = base^(−2i / d) were made with, from the last and slowest of them."""
    size = 2 * len(inv_freq)
    return math.exp(-math.log(inv_freq[-1].double().item()) * size / (size - 2))


def check_rope(model: nn.Module) -> float:
    """Read the base back from the model's own buffers and compare it with its config; returns it.

    Raises RopeError where a buffer is not float32 (bfloat16 makes noise of positions from 2,047 on), or holds other
    frequencies than the config says, or where there is none.
    """
    config: Any = model.config
    parameters = config.rope_parameters
    base = float(parameters["rope_theta"])
    buffers = [(name, b) for name, b in model.named_buffers() if name.rpartition(".")[2] == "inv_freq"]
    if not buffers:
        message = f"a model of type {config.model_type} keeps no inv_freq buffer: its RoPE base cannot be read back"
        raise RopeError(message)
    for name, buffer in buffers:
        if buffer.dtype != torch.float32:
            message = f"{name} is {buffer.dtype}, not float32: positions beyond 2,047 would be noise"
            raise RopeError(message)
        kind = parameters["rope_type"]
        if kind == "default" and not _made_with(buffer, base):
            message = f"{name} was made with base {read_base(buffer):.6g}, the model's config says {base:.6g}"
            raise RopeError(message)
        if kind != "default" and not torch.allclose(buffer.cpu(), ROPE_INIT_FUNCTIONS[kind](config)[0].cpu()):
            message = f"{name} holds other frequencies than RoPE of type {kind} with the model's config gives"
            raise RopeError(message)
    return base


def check_saved_rope(folder: Path, model: nn.Module) -> None:
    """Raise RopeError unless the config.json saved in `folder` gives the base that is in the model's buffers."""
    saved: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    base = (saved.get("rope_parameters") or saved).get("rope_theta")
    if base != check_rope(model):
        message = f"the saved config gives RoPE base {base}, the model was trained with {check_rope(model)}"
        raise RopeError(message)


def _made_with(inv_freq: torch.Tensor, base: float) -> bool:
    size = 2 * len(inv_freq)
    exponents = torch.arange(0, size, 2, dtype=torch.float64) / size
    return torch.allclose(inv_freq.double().cpu(), base**-exponents, rtol=1e-5, atol=0.0)
