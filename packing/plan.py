"""The protocol of a dataset's kind: spec -> plan -> shards, and what they are made of.

A plan cuts the work into shards that know nothing of workers, retries or order; a shard is built from (spec, shard) alone. So any
worker may build any shard, twice if need be, and the bytes are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from packing.dataset.errors import LongweaveError
from packing.dataset.statistics import Histogram
from packing.spec import CommonSpec
from packing.tokenizers import Tokenizer

FIRST_REASONS = 20
"""How many rejected rows a manifest names; the rest is counted only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """An immutable cut of a source, at most 64 MiB of its text, kept as one Parquet file and found by the digest of that file.

    `first_row` is the number (from 1) that the piece's first row has in its file `name`, `first_index` the one (from 0) over all pieces of
    the source; `field` is the spec's pointer of the source.
    `container` is `lines` (one binary column, a line a row, blank ones included) or `columns` (the source's own columns).
    """

    digest: str
    container: str
    field: str
    name: str
    first_row: int
    first_index: int
    rows: int
    bytes: int


class Inputs(Protocol):
    """What a kind may read: pieces by digest, and the spec's tokenizer. Nothing else enters a dataset."""

    @property
    def pieces(self) -> Sequence[Piece]: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def read(self, piece: Piece) -> pa.Table:
        """The rows of a piece, checked against its digest."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of the dataset to come. `work` is plain JSON, for the kind alone to read; `number` counts within the split."""

    index: int
    split: str
    number: int
    of: int
    work: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Where the shard's file stands in the dataset."""
        return f"data/{self.split}-{self.number:05d}-of-{self.of:05d}.parquet"

    def to_json(self) -> dict[str, Any]:
        """The shard as plain JSON, to hand to any worker."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The shards of a dataset, in order."""

    shards: tuple[Shard, ...]

    @classmethod
    def of_work(cls, work: Sequence[Mapping[str, Any]], *, split: str = "train") -> Plan:
        """A plan with one split, a shard for each piece of work."""
        count = len(work)
        return cls(shards=tuple(Shard(index=i, split=split, number=i, of=count, work=w) for i, w in enumerate(work)))


@dataclass(slots=True)
class Tally:
    """What a shard counted while it was built: mergeable, and carried by its receipt into the manifest."""

    counts: dict[str, int] = field(default_factory=dict[str, int])
    rejected: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    histograms: dict[str, Histogram] = field(default_factory=dict[str, Histogram])

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self.counts[name] = self.counts.get(name, 0) + int(by)

    def reject(self, error: LongweaveError, *, source: str, row: int, reason: str, skip: bool) -> None:
        """Count a row that cannot be used and keep the first reasons; raise `error` unless such rows are to be skipped."""
        if not skip:
            raise error
        self.count("rows_rejected")
        if len(self.rejected) < FIRST_REASONS:
            self.rejected.append({"source": source, "row": row, "reason": reason})

    def histogram(self, name: str, empty: Histogram) -> Histogram:
        """The named histogram, made from `empty` when it is not there yet."""
        return self.histograms.setdefault(name, empty)

    def merge(self, other: Tally) -> None:
        """Add another shard's tally; merging in shard order gives the same result whoever built the shards."""
        for name, by in other.counts.items():
            self.count(name, by)
        self.rejected.extend(other.rejected[: FIRST_REASONS - len(self.rejected)])
        for name, histogram in other.histograms.items():
            if name in self.histograms:
                self.histograms[name].merge(histogram)
            else:
                self.histograms[name] = histogram.copy()

    def to_json(self) -> dict[str, Any]:
        """The tally as plain JSON."""
        return {
            "counts": dict(sorted(self.counts.items())),
            "rejected": self.rejected,
            "histograms": {name: h.to_json() for name, h in sorted(self.histograms.items())},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tally:
        """The inverse of `to_json`."""
        return cls(
            counts=dict(value["counts"]),
            rejected=list(value["rejected"]),
            histograms={name: Histogram.from_json(h) for name, h in value["histograms"].items()},
        )


class Kind(Protocol):
    """What every kind of dataset is: one module with these names, all of them pure.

    `survey` looks at one piece before the plan is made, and only where `needs_survey` says that the plan must know its input.
    `build` yields the rows of one shard. `check` raises DatasetError where a row breaks the kind's invariants: it is run on every row
    written, and by verify. `conclude` sees the whole dataset's tally before the commit: it returns warnings, or raises InputError
    where the dataset as a whole makes no sense.
    """

    @property
    def Spec(self) -> type[CommonSpec]: ...  # noqa: N802 (a class of the module)

    def needs_survey(self, spec: Any) -> bool: ...
    def survey(self, spec: Any, piece: Piece, inputs: Inputs) -> pa.Table: ...
    def plan(self, spec: Any, inputs: Inputs, surveys: Sequence[pa.Table]) -> Plan: ...
    def schema(self, spec: Any) -> pa.Schema: ...
    def build(self, spec: Any, shard: Shard, inputs: Inputs, tally: Tally) -> Iterator[pa.RecordBatch]: ...
    def check(self, spec: Any, batch: pa.RecordBatch) -> None: ...
    def conclude(self, spec: Any, tally: Tally) -> list[str]: ...
