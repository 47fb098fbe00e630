"""Rows of tokens into weights: the bundled worker, and what makes our rows right in other trainers.

    from training import ATTENTION, RowCollator, check_attention

Names are imported when first asked for: `longweave --help` must not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.attention import NAME as ATTENTION
    from training.collate import ColumnsError, RowCollator
    from training.errors import AttentionError
    from training.preflight import check_attention
    from training.rope import set_rope

__all__ = ["ATTENTION", "AttentionError", "ColumnsError", "RowCollator", "check_attention", "set_rope"]

_PLACES = {
    "ATTENTION": ("training.attention", "NAME"),
    "AttentionError": ("training.errors", "AttentionError"),
    "ColumnsError": ("training.collate", "ColumnsError"),
    "RowCollator": ("training.collate", "RowCollator"),
    "check_attention": ("training.preflight", "check_attention"),
    "set_rope": ("training.rope", "set_rope"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        message = f"module 'training' has no attribute {name!r}"
        raise AttributeError(message)
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)
