"""Models that cannot be told boundaries: sequences of like lengths run together, and each as if it were alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from training.alone import FILLED, SCORES, _groups, hidden_states_alone


def bloom() -> BloomForCausalLM:
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4, hidden_dropout=0.0, attention_dropout=0.0)
    return BloomForCausalLM(config).double()


def test_sequences_that_run_together_are_what_each_is_alone():
    model, generator = bloom(), np.random.default_rng(3)
    for _ in range(6):
        lengths = generator.integers(1, 40, size=generator.integers(1, 12))
        bounds = torch.tensor(np.concatenate([[0], np.cumsum(lengths)]), dtype=torch.int32)
        ids = torch.tensor(generator.integers(0, 97, size=(1, int(lengths.sum()))))
        states = hidden_states_alone(model, ids, bounds)
        alone = [model.transformer(input_ids=part).last_hidden_state for part in ids.split(lengths.tolist(), dim=1)]
        torch.testing.assert_close(states, torch.cat(alone, dim=1), rtol=1e-6, atol=1e-6)
        weights = torch.randn_like(states)
        ours = torch.autograd.grad((states * weights).sum(), list(model.transformer.parameters()))
        theirs = torch.autograd.grad((torch.cat(alone, dim=1) * weights).sum(), list(model.transformer.parameters()))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", [[5], [3, 3, 3], [1, 100], list(range(1, 200)), [3000, 3000, 20, 2990]])
def test_groups_are_filled_and_bounded_and_hold_every_sequence_once(lengths):
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    groups = list(_groups(order, lengths))
    assert [i for group in groups for i in group] == order
    for group in groups:
        longest, tokens = max(lengths[i] for i in group), sum(lengths[i] for i in group)
        assert tokens >= FILLED * longest * len(group)
        assert len(group) == 1 or len(group) * longest**2 <= SCORES
    if len(lengths) > 100:
        assert len(groups) < len(lengths) / 5
