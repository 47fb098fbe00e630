"""The chunked loss against the plain one, and the normalisation of a step against all its tokens at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.training.conftest import token_rows
from training.batch import Batch, StepData, lay_out
from training.config import ModelConfig
from training.loss import chunked_cross_entropy, target_weights
from training.model import hidden_states, load_model
from training.step import accumulate
from training.stream import DataState, Extent, Row


def rows(count: int, seed: int = 0) -> list[Row]:
    columns = ("input_ids", "labels", "position_ids", "seq_lengths")
    return [Row(name="", **{c: row[c] for c in columns}) for row in token_rows(count, seed=seed)]


class CountingHead(nn.Linear):
    """A head that notes how many rows it was given at once."""

    def __init__(self) -> None:
        super().__init__(16, 50)
        self.sizes: list[int] = []

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(input))
        return super().forward(input)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_value_and_gradients_equal_the_plain_computation(chunk: int):
    generator = torch.Generator().manual_seed(0)
    head = CountingHead()
    hidden = torch.randn(60, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (60,), generator=generator, dtype=torch.int32)
    targets[torch.rand(60, generator=generator) < 0.6] = -100
    kept = int((targets != -100).sum())
    weights = torch.rand(60, generator=generator)
    plain = (cross_entropy(head(hidden), targets.long(), reduction="none", ignore_index=-100) * weights).sum()
    wanted = torch.autograd.grad(plain, [hidden, head.weight, head.bias])
    head.sizes.clear()
    loss = chunked_cross_entropy(head, hidden, targets, weights, chunk=chunk)
    assert 10 < kept < 40
    assert sum(head.sizes) == kept  # ignored rows never meet the head
    assert max(head.sizes) == min(chunk, kept)
    found = torch.autograd.grad(loss, [hidden, head.weight, head.bias])
    assert torch.allclose(loss, plain, rtol=1e-6)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("bias", "frozen"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("chunk", [7, 100])
def test_a_linear_heads_gradients_come_with_its_losses(chunk: int, bias: bool, frozen: bool):
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(16, 50, bias=bias)
    head.weight.requires_grad_(not frozen)
    hidden = torch.randn(60, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (60,), generator=generator, dtype=torch.int32)
    targets[torch.rand(60, generator=generator) < 0.6] = -100
    weights = torch.rand(60, generator=generator)
    leaves = [leaf for leaf in (hidden, *head.parameters()) if leaf.requires_grad]
    wanted_each = cross_entropy(head(hidden), targets.long(), reduction="none", ignore_index=-100)
    plain = (wanted_each * weights).sum()
    wanted = torch.autograd.grad(plain / 3, leaves)
    each = torch.zeros(60)
    loss = chunked_cross_entropy(head, hidden, targets, weights, chunk=chunk, each=each)
    found = torch.autograd.grad(loss / 3, leaves)  # what comes down from above counts
    assert torch.allclose(loss, plain, rtol=1e-6)
    assert torch.allclose(each, wanted_each, atol=1e-6)
    assert not each.requires_grad
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_in_bfloat16_a_linear_heads_gradients_are_those_of_logits_made_again():
    """Of the same bfloat16 logits: only sums over chunks differ, which are float32 here and bfloat16 there."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(60, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (60,), generator=generator)
    plain, counting = nn.Linear(16, 50), CountingHead()
    counting.load_state_dict(plain.state_dict())
    found: list[list[torch.Tensor]] = []
    for head in (plain, counting):
        with torch.autocast("cpu", torch.bfloat16):
            loss = chunked_cross_entropy(head, hidden, targets, torch.ones(60), chunk=16)
        assert loss.dtype == torch.float32
        found.append([loss.detach(), *torch.autograd.grad(loss, [hidden, head.weight, head.bias])])
    assert counting.sizes  # the other way was gone
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-6)
    for ours, theirs in zip(found[0][1:], found[1][1:], strict=True):
        assert ours.dtype == torch.float32
        assert torch.allclose(ours, theirs, rtol=0.03, atol=0.03)


def test_a_row_without_targets_has_a_loss_and_a_gradient_of_zero():
    hidden = torch.randn(5, 16, requires_grad=True)
    for head in (CountingHead(), nn.Linear(16, 50)):
        loss = chunked_cross_entropy(head, hidden, torch.full((5,), -100), torch.zeros(5))
        loss.backward()
        assert loss.item() == 0.0
        assert hidden.grad is not None
        assert not hidden.grad.any()
        hidden.grad = None


def test_weights_of_sequences_add_up_to_one_each():
    batch = lay_out(rows(8))
    lengths = batch.cu_seq_lens.diff().tolist()
    weights = target_weights(batch, "sequences").split(lengths)
    targets = batch.targets[0].split(lengths)
    with_targets = 0
    for weight, target in zip(weights, targets, strict=True):
        kept = target != -100
        assert not weight[~kept].any()
        if kept.any():
            with_targets += 1
            assert torch.allclose(weight[kept], torch.ones(()) / kept.sum())
    assert with_targets > 8
    assert target_weights(batch, "tokens").tolist() == (batch.targets[0] != -100).float().tolist()


def step_of(batches: list[Batch]) -> StepData:
    return StepData(batches=tuple(batches), state=DataState())


def gradient_of(model: Any, batches: list[Batch], normalize: str) -> tuple[torch.Tensor, float, int]:
    model.zero_grad()
    loss, targets = accumulate(model, step_of(batches), normalize=normalize)
    assert loss is not None
    return torch.cat([p.grad.flatten() for p in model.parameters()]), loss, targets


def plain_gradient(model: Any, batch: Batch, normalize: str) -> tuple[torch.Tensor, float]:
    """All logits at once, and the mean written out: of all targets, or of the means of the sequences."""
    model.zero_grad()
    logits = model.lm_head(hidden_states(model, batch))[0]
    each = cross_entropy(logits, batch.targets[0].long(), reduction="none", ignore_index=-100)
    kept = batch.targets[0] != -100
    if normalize == "tokens":
        loss = each[kept].mean()
    else:
        lengths = batch.cu_seq_lens.diff().tolist()
        pairs = zip(each.split(lengths), kept.split(lengths), strict=True)
        loss = torch.stack([values[mask].mean() for values, mask in pairs if mask.any()]).mean()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()]), loss.item()


@pytest.mark.parametrize("normalize", ["tokens", "sequences"])
def test_a_step_has_the_gradient_of_all_its_rows_at_once(normalize: str, tiny_manifest: Any):
    """However rows fall into packed rows: a mean of packed rows' means would be another gradient."""
    extent = Extent(position=2000, token_id=63, row_tokens=72)
    model = load_model(ModelConfig(preset="tiny"), extent=extent, manifest=tiny_manifest)
    some = rows(7)
    some[0].labels[:-1] = -100  # one packed row with a single target
    some[0].labels[-1] = some[0].input_ids[-1]
    whole = lay_out(some)
    wanted, loss = plain_gradient(model, whole, normalize)
    splits = [[some], [some[:1], some[1:]], [some[:3], some[3:4], some[4:]]]
    for parts in splits:
        found, measured, targets = gradient_of(model, [lay_out(part) for part in parts], normalize)
        assert targets == int((whole.targets != -100).sum())
        assert measured == pytest.approx(loss, rel=1e-5)
        assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-6)
    means = [plain_gradient(model, lay_out(part), normalize)[0] for part in splits[1]]
    assert not torch.allclose(sum(means) / 2, wanted, rtol=1e-3, atol=1e-6)


def test_a_step_without_targets_has_no_loss(tiny_manifest: Any):
    extent = Extent(position=2000, token_id=63, row_tokens=72)
    model = load_model(ModelConfig(preset="tiny"), extent=extent, manifest=tiny_manifest)
    (row,) = rows(1)
    row.labels[:] = -100
    assert np.all(row.labels == -100)
    assert accumulate(model, step_of([lay_out([row])]), normalize="tokens") == (None, 0)
