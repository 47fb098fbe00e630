"""The loss by skips and distance, against a loop over every target, and that it adds up to the step's own loss."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.training.conftest import token_rows
from training.batch import Batch, StepData, lay_out
from training.config import ModelConfig
from training.loss_split import LossSplit
from training.model import hidden_states, load_model
from training.step import accumulate
from training.stream import DataState, Extent, Row

COLUMNS = ("input_ids", "labels", "position_ids", "seq_lengths")


def rows(count: int, *, seed: int, plain: bool) -> list[Row]:
    made = token_rows(count, seed=seed)
    for row in made if plain else []:
        row["position_ids"] = np.concatenate([np.arange(n, dtype=np.int32) for n in row["seq_lengths"]])
    return [Row(name="", **{column: row[column] for column in COLUMNS}) for row in made]


def by_hand(batch: Batch, each: torch.Tensor) -> tuple[dict[bool, list[float]], dict[int, list[float]]]:
    """Losses by skipped and by bucket, one target after the other."""
    skips: dict[bool, list[float]] = {False: [], True: []}
    buckets: dict[int, list[float]] = {}
    bounds = batch.cu_seq_lens.tolist()
    positions = batch.position_ids[0].tolist()
    for start, stop in itertools.pairwise(bounds):
        own = positions[start:stop]
        skipped = any(later - earlier != 1 for earlier, later in itertools.pairwise(own))
        for place in range(start, stop - 1):
            if batch.targets[0, place] != -100:
                distance = positions[place + 1] - positions[start]
                skips[skipped].append(each[place].item())
                buckets.setdefault(2 ** int(math.log2(distance)), []).append(each[place].item())
    return skips, buckets


def test_losses_are_sorted_as_by_hand(tiny_manifest: Any):
    extent = Extent(position=2000, token_id=63, row_tokens=72)
    model = load_model(ModelConfig(preset="tiny"), extent=extent, manifest=tiny_manifest)
    batches = [
        lay_out(rows(6, seed=4, plain=False) + rows(6, seed=5, plain=True)),
        lay_out(rows(3, seed=6, plain=False)),
    ]
    split = LossSplit()
    loss, targets = accumulate(
        model, StepData(batches=tuple(batches), state=DataState()), normalize="tokens", split=split
    )
    found = split.to_json()
    skips: dict[bool, list[float]] = {False: [], True: []}
    buckets: dict[int, list[float]] = {}
    for batch in batches:
        with torch.no_grad():
            logits = model.lm_head(hidden_states(model, batch))[0]
        each = cross_entropy(logits, batch.targets[0].long(), reduction="none", ignore_index=-100)
        for whole, part in zip((skips, buckets), by_hand(batch, each), strict=True):
            for key, losses in part.items():
                whole.setdefault(key, []).extend(losses)  # type: ignore[attr-defined]
    assert min(len(skips[False]), len(skips[True])) > 20
    assert len(buckets) >= 8
    for name, losses in (("unskipped", skips[False]), ("skipped", skips[True])):
        assert found[name] == {"loss": pytest.approx(np.mean(losses), rel=1e-5), "targets": len(losses)}
    assert found["distances"] == [
        {"from": bucket, "loss": pytest.approx(np.mean(buckets[bucket]), rel=1e-5), "targets": len(buckets[bucket])}
        for bucket in sorted(buckets)
    ]
    summed = sum(part["loss"] * part["targets"] for part in found["distances"])
    assert sum(part["targets"] for part in found["distances"]) == targets
    assert summed / targets == pytest.approx(loss, rel=1e-5)


def test_what_has_no_target_has_no_loss():
    assert LossSplit().to_json() == {"unskipped": None, "skipped": None, "distances": []}
