"""A step's loss by what SkipAlign changes: sequences whose positions jump and those whose do not, and by how far a
target lies from where its sequence begins.

The distance is the one attention sees: positions between the predicted token and the first token of its sequence, which
begins the first instruction. A skip before a response makes it longer without a token in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.batch import Batch
from training.parallel import Ranks
from training.rows import IGNORED

BUCKETS = 32
"""Powers of two that a distance in int32 may lie above."""
NAMES = ("unskipped", "skipped")


def _zeros() -> NDArray[np.float64]:
    return np.zeros((len(NAMES), BUCKETS))


@dataclass(slots=True, kw_only=True)
class LossSplit:
    """Summed losses in nats and counts of targets: float64 [unskipped or skipped, ⌊log2 of the distance⌋]."""

    losses: NDArray[np.float64] = field(default_factory=_zeros)
    targets: NDArray[np.float64] = field(default_factory=_zeros)

    def add(self, batch: Batch, each: NDArray[np.float32]) -> None:
        """Take in a packed row, on the CPU, and the loss of each of its targets (float32 [N], by the token before)."""
        targets = batch.targets[0].numpy() != IGNORED
        skipped, distance = places(batch)
        bucket = np.frexp(distance[targets].astype(np.float64))[1] - 1
        key = np.where(skipped[targets], BUCKETS, 0) + bucket
        size = len(NAMES) * BUCKETS
        self.losses += np.bincount(key, each[targets].astype(np.float64), size).reshape(-1, BUCKETS)
        self.targets += np.bincount(key, minlength=size).reshape(-1, BUCKETS)

    def over(self, ranks: Ranks) -> LossSplit:
        """The sum of all ranks' splits."""
        both = ranks.totals(np.stack([self.losses, self.targets]))
        return LossSplit(losses=both[0], targets=both[1])

    def to_json(self) -> dict[str, Any]:
        """{"unskipped" and "skipped": mean loss and targets, or None without any; "distances": the same of every bucket
        that has a target, `from` a power of two up to the next}."""
        losses, targets = self.losses, self.targets
        parts = {name: _mean(losses[number].sum(), targets[number].sum()) for number, name in enumerate(NAMES)}
        by_distance = zip(losses.sum(axis=0), targets.sum(axis=0), strict=True)
        found = [(bucket, _mean(loss, count)) for bucket, (loss, count) in enumerate(by_distance)]
        return parts | {"distances": [{"from": 2**bucket} | mean for bucket, mean in found if mean is not None]}


def _mean(loss: float, targets: float) -> dict[str, Any] | None:
    return {"loss": float(loss / targets), "targets": int(targets)} if targets else None


def places(batch: Batch) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """For every token of a packed row, whether positions jump anywhere in its sequence, and the distance (at least 1) of
    the token behind it from the sequence's first; of a sequence's last token, which predicts nothing, it means nothing.
    """
    positions = batch.position_ids[0].numpy().astype(np.int64)
    bounds = batch.cu_seq_lens.numpy()
    lengths = np.diff(bounds)
    steps = np.append(np.diff(positions), 1)
    inside = np.ones(len(positions), np.bool_)
    inside[bounds[1:] - 1] = False
    jumps = np.add.reduceat((inside & (steps != 1)).astype(np.int64), bounds[:-1])
    distance = np.append(positions[1:], 0) - np.repeat(positions[bounds[:-1]], lengths)
    return np.repeat(jumps > 0, lengths), np.maximum(distance, 1)
