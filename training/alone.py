"""Hidden states of models that cannot be told boundaries but take no positions either: each sequence of a packed row is a row
of its own to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

FILLED = 0.8
"""Share of a group's places that tokens take at least: sequences of like lengths go together, and the rest is padding."""
SCORES = 1 << 17
"""Scores of a head (sequences times length times length) that a group of more than one sequence has at most. These models make them all,
and four times as many take a fifth longer on a CPU, for they leave its caches."""


def hidden_states_alone(model: PreTrainedModel, input_ids: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """The last hidden states [1, N, hidden] of token ids [1, N] whose sequences lie between `bounds`, int32 [S + 1] from 0 to N.

    Sequences of like lengths run together, padded behind their ends: no token of a causal model sees what comes after it, so
    padding needs no mask and changes nothing.
    """
    lengths: list[int] = bounds.diff().tolist()
    sequences = input_ids[0].split(lengths)
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    parts = dict[int, torch.Tensor]()
    for group in _groups(order, lengths):
        padded = pad_sequence([sequences[i] for i in group], batch_first=True)
        states = model.base_model(input_ids=padded, use_cache=False).last_hidden_state
        parts |= {i: row[: lengths[i]] for i, row in zip(group, states, strict=True)}
    return torch.cat([parts[i] for i in range(len(lengths))])[None]


def _groups(order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Sequences in order of their lengths, in groups that FILLED and SCORES allow."""
    group, tokens = list[int](), 0
    for i in order:
        length = lengths[i]
        wide = (len(group) + 1) * length
        if group and (tokens + length < FILLED * wide or wide * length > SCORES):
            yield group
            group, tokens = [], 0
        group.append(i)
        tokens += length
    yield group
