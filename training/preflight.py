"""The preflight for a model and a trainer that are not ours: does attention follow the rows' boundaries?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from training.attention_checks import refuse_windows
from training.collate import ColumnsError
from training.errors import AttentionError
from training.influence import check_influence, numbers_from_lengths, sequence_numbers

LABELS = ("labels", "shift_labels", "num_items_in_batch")
"""Arguments that make a loss: the check needs none."""


def check_attention(
    model: nn.Module, batch: Mapping[str, Any], *, seq_lengths: Sequence[Sequence[int]] | None = None
) -> None:
    """Check, before training, that a model called with this batch sees exactly what the rows' boundaries declare.

    `batch`: the model's arguments as a collator makes them: `input_ids` and `position_ids` int [B, N], and whatever
    tells the model about boundaries. What they should be is read from `cu_seq_lens_q` (over the batch's tokens row by
    row), or from `seq_lengths`, the lengths of the sequences in each row, for a batch that does not say; the rest of a
    row is then padding. Single tokens are changed and the outputs compared bit for bit: 3 + 2·⌈log2 S⌉ forward passes
    for S sequences, without gradients, in training mode (gradient checkpointing changes the mask that transformers
    makes), every pass from the same random state. Tensors go to the model's device.

    Raises AttentionError where attention is cut or leaks or where layers see a window only, ColumnsError where the
    batch has no positions or nobody declares boundaries. What the model itself raises is passed on.
    """
    device = next(model.parameters()).device
    arguments = _on_device(batch, device)
    sequences = _declared(arguments, seq_lengths)
    config: Any = getattr(model, "config", None)
    if config is not None:
        refuse_windows(config.get_text_config() if hasattr(config, "get_text_config") else config)

    def forward(ids: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return _outputs(model, {**arguments, "input_ids": ids})

    training = model.training
    model.train()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            check_influence(forward, arguments["input_ids"], sequences, where="the batch")
    finally:
        model.train(training)


def _on_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
        if name not in LABELS
    }


def _declared(batch: Mapping[str, Any], seq_lengths: Sequence[Sequence[int]] | None) -> torch.Tensor:
    """The number of each token's sequence, int64 [B, N]."""
    if batch.get("position_ids") is None:
        message = (
            "the batch has no position_ids: the model would count from 0 and the rows' positions are lost; collate with"
            " training.RowCollator and set remove_unused_columns=False"
        )
        raise ColumnsError(message, param="position_ids")
    ids: torch.Tensor = batch["input_ids"]
    if seq_lengths is not None:
        return numbers_from_lengths(seq_lengths, (ids.shape[0], ids.shape[1])).to(ids.device)
    bounds: torch.Tensor | None = batch.get("cu_seq_lens_q")
    if bounds is None:
        message = (
            "the batch declares no boundaries (cu_seq_lens_q): collate with training.RowCollator, or say seq_lengths"
        )
        raise ColumnsError(message, param="cu_seq_lens_q")
    if int(bounds[0]) != 0 or int(bounds[-1]) != ids.numel() or bool((bounds.diff() < 1).any()):
        message = f"cu_seq_lens_q does not rise from 0 to the batch's {ids.numel()} tokens"
        raise AttentionError(message)
    return sequence_numbers(bounds).view_as(ids)


def _outputs(model: nn.Module, arguments: dict[str, Any]) -> torch.Tensor:
    """What the model makes of each token: hidden states where it can be asked for them (logits are much larger)."""
    called = model.base_model if isinstance(model, PreTrainedModel) else model
    result: Any = called(**arguments)
    if isinstance(result, torch.Tensor):
        return result
    return result.last_hidden_state if "last_hidden_state" in result else result.logits
