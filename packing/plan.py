"""The protocol of a dataset's kind: spec -> plan -> shards, and what they are made of.

A plan cuts the work into shards that know nothing of workers, retries or order; a shard is built from (spec, shard) alone. So any
worker may build any shard, twice if need be, and the bytes are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.dataset.errors import LongweaveError
from packing.dataset.statistics import Histogram
from packing.spec import CommonSpec
from packing.tokenizers import Tokenizer

FIRST_REASONS = 20
"""How many rejected rows a manifest names; the rest is counted only."""
FIRST_SAMPLES = 200
"""How many things of one name a tally keeps to be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """An immutable cut of a source, at most 64 MiB of its text, kept as one Parquet file and found by the digest of that file.

    `first_row` is the number (from 1) that the piece's first row has in its file `name`, `first_index` the one (from 0) over all pieces of
    the source; `field` is the spec's pointer of the source.
    `container` is `lines` (one binary column, a line a row, blank ones included), `columns` (the source's own columns) or `texts` (a file
    a row: `id`, `data`). A piece of a dataset is no copy: `path` is the dataset's file in the store and `group` its row group. Nor is one
    of lines that are there for one build: `file` is the source's file on this machine, `start` the byte where the piece begins, and
    `digest` the CRC-32 of its `bytes`.
    """

    digest: str
    container: str
    field: str
    name: str
    first_row: int
    first_index: int
    rows: int
    bytes: int
    path: str = ""
    group: int = 0
    file: str = ""
    start: int = 0


class Inputs(Protocol):
    """What a kind may read: pieces by digest, what surveys kept of them, and the spec's tokenizer. Nothing else enters a dataset."""

    @property
    def pieces(self) -> Sequence[Piece]: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def read(self, piece: Piece) -> pa.Table:
        """The rows of a piece, checked against its digest."""
        ...

    def kept(self, number: int, spans: NDArray[np.int64]) -> NDArray[np.uint16 | np.int32]:
        """What the survey of piece `number` kept, from start to stop of every row of `spans` int64 [n, 2], end to end, in its type."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What looking at one piece gave: a table for the plan, and numbers that builds will read again (tokens, so that a text is
    tokenised once), uint16 or int32 [n] (packing.kept)."""

    table: pa.Table
    kept: NDArray[np.uint16 | np.int32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of the dataset to come. `work` is plain JSON, for the kind alone to read, and so is `table`, for what would be long as
    JSON; `number` counts within the split."""

    index: int
    split: str
    number: int
    of: int
    work: Mapping[str, Any]
    table: pa.Table | None = None

    @property
    def path(self) -> str:
        """Where the shard's file stands in the dataset."""
        return f"data/{self.split}-{self.number:05d}-of-{self.of:05d}.parquet"

    def to_json(self) -> dict[str, Any]:
        """The shard as plain JSON, to hand to any worker; its table travels apart."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "table"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The shards of a dataset, in order; `counts` are what the plan itself has to tell the manifest."""

    shards: tuple[Shard, ...]
    counts: Mapping[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def of_work(
        cls,
        work: Sequence[Mapping[str, Any]],
        *,
        split: str = "train",
        tables: Sequence[pa.Table] | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> Plan:
        """A plan with one split, a shard for each piece of work."""
        each = tables if tables is not None else [None] * len(work)
        shards = tuple(
            Shard(index=i, split=split, number=i, of=len(work), work=w, table=t)
            for i, (w, t) in enumerate(zip(work, each, strict=True))
        )
        return cls(shards=shards, counts=counts or {})


@dataclass(slots=True)
class Tally:
    """What a shard counted while it was built: mergeable, and carried by its receipt into the manifest."""

    counts: dict[str, int] = field(default_factory=dict[str, int])
    rejected: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    histograms: dict[str, Histogram] = field(default_factory=dict[str, Histogram])
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, list[dict[str, Any]]])

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

    def sample(self, name: str, item: Mapping[str, Any]) -> None:
        """Keep one of the first few things worth showing (a picture of some rows, say)."""
        found = self.samples.setdefault(name, [])
        if len(found) < FIRST_SAMPLES:
            found.append(dict(item))

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
        for name, items in other.samples.items():
            for item in items:
                self.sample(name, item)

    def to_json(self) -> dict[str, Any]:
        """The tally as plain JSON."""
        return {
            "counts": dict(sorted(self.counts.items())),
            "rejected": self.rejected,
            "histograms": {name: h.to_json() for name, h in sorted(self.histograms.items())},
            "samples": self.samples,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tally:
        """The inverse of `to_json`."""
        return cls(
            counts=dict(value["counts"]),
            rejected=list(value["rejected"]),
            histograms={name: Histogram.from_json(h) for name, h in value["histograms"].items()},
            samples={name: list(items) for name, items in value["samples"].items()},
        )


class Kind(Protocol):
    """What every kind of dataset is: one module with these names, all of them pure.

    `survey` looks at one piece before the plan is made, and only where `needs_survey` says that the plan must know its input; what it
    counts goes into the manifest. `build` yields the rows of one shard. `check` raises DatasetError where a row breaks the kind's
    invariants: it is run on every row written, and by verify. `conclude` sees the whole dataset's tally before the commit: it returns
    warnings, or raises InputError where the dataset as a whole makes no sense. `charts` are Vega-Lite specs by name, beside those of the
    histograms.
    """

    @property
    def Spec(self) -> type[CommonSpec]: ...  # noqa: N802 (a class of the module)

    def needs_survey(self, spec: Any) -> bool: ...
    def survey(self, spec: Any, piece: Piece, inputs: Inputs, tally: Tally) -> Survey: ...
    def plan(self, spec: Any, inputs: Inputs, surveys: Sequence[pa.Table]) -> Plan: ...
    def schema(self, spec: Any) -> pa.Schema: ...
    def build(self, spec: Any, shard: Shard, inputs: Inputs, tally: Tally) -> Iterator[pa.RecordBatch]: ...
    def check(self, spec: Any, batch: pa.RecordBatch) -> None: ...
    def conclude(self, spec: Any, tally: Tally) -> list[str]: ...
    def charts(self, spec: Any, tally: Tally) -> dict[str, Any]: ...
