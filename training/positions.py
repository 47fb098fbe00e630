"""How a model knows positions, and whether the data's positions mean anything to it.

SkipAlign's jumps teach distances, and only rotary positions (RoPE) have distances to teach: ALiBi counts the tokens
between, a model without positions has none, and a table of learned positions keeps a vector for each of them apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import nn

from packing.dataset.errors import FieldProblem, SpecError
from training.errors import PositionError
from training.rope import check_rope, check_saved_rope, ntk_base, rotated_size, set_rope
from training.stream import Extent

Kind = Literal["rotary", "learned", "alibi", "none"]

NAMES: dict[Kind, str] = {
    "rotary": "rotary positions",
    "learned": "a table of learned positions",
    "alibi": "ALiBi, which counts the tokens between",
    "none": "no positions at all",
}
BY_TYPE: dict[str, Kind] = {"gpt2": "learned", "opt": "learned", "bloom": "alibi"}
"""Types of models without RoPE that are served; any other must have it."""


def kind_of(config: Any) -> Kind:
    """How a model of this config knows positions; `rotary` where nothing says otherwise."""
    rotated: list[int] | None = getattr(config, "no_rope_layers", None)
    if rotated is not None and not any(rotated):
        return "none"
    return BY_TYPE.get(config.model_type, "rotary")


def set_positions(config: Any, asked: str | float, extent: Extent) -> str | None:
    """Set a model's config for the data's positions before the model is built: its RoPE, see training.rope.set_rope.

    Returns a line with the figures where the data go beyond the positions the model was made for, else None.

    Raises PositionError where the data's positions mean nothing to a model without RoPE, RopeError and SpecError as
    set_rope does, and SpecError for a base where there is none.
    """
    kind = kind_of(config)
    if kind == "rotary":
        return _stretched(config, asked, extent.position + 1)
    if asked != "auto":
        message = f"a model of type {config.model_type} has {NAMES[kind]} and no RoPE: leave rope_base out"
        raise SpecError([FieldProblem(pointer="/model/rope_base", message=message)])
    if extent.jumps:
        why = {
            "learned": "a jump would train vectors far apart in it, and nothing about the distance",
            "alibi": "the jumps would change nothing",
            "none": "the jumps would change nothing",
        }[kind]
        message = (
            f"the data's positions jump, and a model of type {config.model_type} here has {NAMES[kind]}: {why}; take a "
            "model with RoPE, or rows without jumps (strategy none)"
        )
        raise PositionError(message)
    if kind == "learned" and extent.position >= config.max_position_embeddings:
        message = (
            f"the data's positions go to {extent.position:,}, and the model's table of learned positions ends at "
            f"{config.max_position_embeddings - 1:,}: take a model with RoPE, or shorter rows"
        )
        raise PositionError(message)
    return None


def _stretched(config: Any, asked: str | float, needed: int) -> str | None:
    window: int | None = getattr(config, "max_position_embeddings", None)
    own = (getattr(config, "rope_parameters", None) or {}).get("rope_theta")
    base = set_rope(config, asked, needed=needed)
    if own is None or window is None or needed <= window:
        return None
    line = f"the data's positions go to {needed - 1:,}, the model was made for {window:,}: its RoPE base {own:,.0f} becomes {base:,.0f}"
    wanted = ntk_base(own, window=window, needed=needed, size=rotated_size(config))
    if base < wanted:
        line += f", and {wanted:,.0f} is what positions so far ask for (rope_base: auto)"
    return line


def check_positions(model: nn.Module) -> str:
    """Read a model's positions back from its own buffers (see training.rope.check_rope) and say what they are."""
    config: Any = model.config
    kind = kind_of(config)
    window: int | None = getattr(config, "max_position_embeddings", None)
    if kind != "rotary":
        return NAMES[kind] if kind != "learned" else f"{NAMES[kind]}, {window:,} of them"
    return f"RoPE base {check_rope(model):,.0f} on {rotated_size(config)} dimensions, window {window:,}"


def check_saved_positions(folder: Path, model: nn.Module) -> None:
    """Raise RopeError unless the config.json saved in `folder` gives the RoPE base that is in the model's buffers."""
    if kind_of(model.config) == "rotary":
        check_saved_rope(folder, model)
