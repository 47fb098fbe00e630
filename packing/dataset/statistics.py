"""Statistics that shards count apart and the manifest adds up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def powers_of_two(largest: int) -> list[int]:
    """Histogram edges 0, 1, 2, 4, … up to the first power of two above `largest`."""
    edges = [0, 1]
    while edges[-1] <= largest:
        edges.append(edges[-1] * 2)
    return edges


def even_edges(largest: int, bins: int = 32) -> list[int]:
    """Histogram edges that cut 0..largest into equal bins of whole numbers."""
    return np.unique(np.linspace(0, largest + 1, bins + 1).astype(np.int64)).tolist()


@dataclass(slots=True)
class Histogram:
    """Counts between fixed integer edges (bin i holds edges[i] <= value < edges[i + 1]), with exact sum, least and largest value."""

    edges: Sequence[int]
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    below: int = 0
    above: int = 0
    total: int = 0
    sum: int = 0
    least: int | None = None
    largest: int | None = None

    def __post_init__(self) -> None:
        if not len(self.counts):
            self.counts = np.zeros(len(self.edges) - 1, np.int64)

    def add(self, values: ArrayLike) -> None:
        """Count integer values of any shape."""
        array = np.asarray(values).astype(np.int64, copy=False).ravel()
        if not len(array):
            return
        bins = np.searchsorted(np.asarray(self.edges), array, side="right") - 1
        inside = (bins >= 0) & (bins < len(self.counts))
        self.counts += np.bincount(bins[inside], minlength=len(self.counts))
        self.below += int((bins < 0).sum())
        self.above += int((bins >= len(self.counts)).sum())
        self._extend(len(array), int(array.sum()), int(array.min()), int(array.max()))

    def add_runs(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """Count whole numbers that come in runs: `lengths` int64 [n] of them from each of `starts` int64 [n] on, one apart."""
        starts, lengths = starts[lengths > 0], lengths[lengths > 0]
        if not len(starts):
            return
        ends = starts + lengths
        edges = np.asarray(self.edges)
        # Below an edge lies of a run what lies beyond its start less what lies beyond its end.
        below = _beyond(starts, edges) - _beyond(ends, edges)
        total = int(lengths.sum())
        self.counts += np.diff(below)
        self.below += int(below[0])
        self.above += total - int(below[-1])
        self._extend(total, int((lengths * (starts + ends - 1) // 2).sum()), int(starts.min()), int(ends.max()) - 1)

    def merge(self, other: Histogram) -> None:
        """Add another histogram's counts; the edges must be the same."""
        if list(self.edges) != list(other.edges):
            message = "histograms with different edges cannot be merged"
            raise ValueError(message)
        self.counts += other.counts
        self.below += other.below
        self.above += other.above
        if other.total:
            assert other.least is not None
            assert other.largest is not None
            self._extend(other.total, other.sum, other.least, other.largest)

    def _extend(self, total: int, values_sum: int, least: int, largest: int) -> None:
        self.total += total
        self.sum += values_sum
        self.least = least if self.least is None else min(self.least, least)
        self.largest = largest if self.largest is None else max(self.largest, largest)

    def copy(self) -> Histogram:
        """A histogram of its own with the same counts."""
        return Histogram.from_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The histogram as plain JSON, with its mean."""
        return {
            "edges": list(self.edges),
            "counts": self.counts.tolist(),
            "below": self.below,
            "above": self.above,
            "total": self.total,
            "sum": self.sum,
            "min": self.least,
            "max": self.largest,
            "mean": self.sum / self.total if self.total else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Histogram:
        """The inverse of `to_json`."""
        return cls(
            edges=list(value["edges"]),
            counts=np.asarray(value["counts"], np.int64),
            below=value["below"],
            above=value["above"],
            total=value["total"],
            sum=value["sum"],
            least=value["min"],
            largest=value["max"],
        )


def _beyond(points: NDArray[np.int64], edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """How far each of `edges` int64 [E] lies beyond all `points` int64 [n] before it, summed: int64 [E]."""
    points = np.sort(points)
    before = np.searchsorted(points, edges)
    return edges * before - np.concatenate([np.zeros(1, np.int64), np.cumsum(points)])[before]
