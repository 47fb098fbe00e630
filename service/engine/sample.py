"""A dataset in small, in this process: the first rows of every source, and of every part, through the same kind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.kept import Kept
from packing.plan import Inputs, Piece, Tally
from packing.spec import CommonSpec
from packing.tokenizers import Tokenizer
from service.engine.inputs import StoreInputs
from service.engine.tokenizers import TokenizerRecord
from service.kinds import KINDS, parts_of
from service.storage.objects import Objects
from service.storage.source_record import SourceRecord

PART_ROWS = 64
"""Rows of a part that are built for a sample."""


class SampleInputs:
    """Inputs cut down to the first rows of the first piece of every source, about `most` bytes of each; `parts` are rows in memory.

    What surveys keep stays in memory too."""

    def __init__(self, inputs: StoreInputs, parts: Mapping[str, pa.Table], *, most: int) -> None:
        self._inputs = inputs
        self._parts = parts
        self._kept: dict[int, Kept] = {}
        self._firsts = {piece.field: piece for piece in reversed(inputs.pieces)}
        self._pieces = tuple(_shortened(piece, most) for _, piece in sorted(self._firsts.items())) + tuple(
            _whole(field, table) for field, table in parts.items()
        )

    @property
    def pieces(self) -> Sequence[Piece]:
        """The shortened pieces, one a source, then one a part."""
        return self._pieces

    @property
    def tokenizer(self) -> Tokenizer:
        """The spec's tokenizer."""
        return self._inputs.tokenizer

    def read(self, piece: Piece) -> pa.Table:
        """The piece's first rows."""
        if piece.field in self._parts:
            return self._parts[piece.field]
        return self._inputs.read(self._firsts[piece.field]).slice(0, piece.rows)

    def keep(self, number: int, kept: Kept | None) -> None:
        """Hold what the survey of a piece kept."""
        if kept is not None:
            self._kept[number] = kept

    def kept(self, number: int, spans: NDArray[np.int64]) -> Kept:
        """What the survey of a piece kept, from start to stop of every span, end to end."""
        kept = self._kept[number]
        return np.concatenate([kept[start:stop] for start, stop in spans.tolist()] or [kept[:0]])


def _shortened(piece: Piece, most: int) -> Piece:
    rows = max(1, min(piece.rows, most * piece.rows // max(piece.bytes, 1)))
    return replace(piece, rows=rows, bytes=piece.bytes * rows // piece.rows)


def _whole(field: str, table: pa.Table) -> Piece:
    return Piece(
        digest="",
        container="columns",
        field=field,
        name=field,
        first_row=1,
        first_index=0,
        rows=table.num_rows,
        bytes=table.nbytes,
    )


class Sample:
    """A sample of the dataset that a spec asks for: its plan over the first rows, to be built shard by shard."""

    def __init__(
        self,
        spec: CommonSpec,
        sources: Mapping[str, SourceRecord],
        tokenizer: TokenizerRecord,
        objects: Objects,
        *,
        most: int,
    ) -> None:
        self._whole = spec
        self.spec = spec = spec.for_sample()
        self.kind = KINDS[spec.kind]
        self._tokenizer = tokenizer
        self._objects = objects
        self.tally = Tally()
        own = {pointer: sources[pointer] for pointer in spec.sources()}
        parts: dict[str, pa.Table] = {}
        for pointer, part in parts_of(spec).items():
            inner = {
                name.removeprefix(pointer): record for name, record in sources.items() if name.startswith(f"{pointer}/")
            }
            parts[pointer] = Sample(part, inner, tokenizer, objects, most=most).rows(PART_ROWS)
        self._inputs = SampleInputs(StoreInputs(objects, own, tokenizer), parts, most=most)
        surveys: list[pa.Table] = []
        if self.kind.needs_survey(spec):
            for number, piece in enumerate(self._inputs.pieces):
                survey = self.kind.survey(spec, piece, self._inputs, self.tally)
                self._inputs.keep(number, survey.kept)
                surveys.append(survey.table)
        self.plan = self.kind.plan(spec, self._inputs, surveys)
        for name, by in self.plan.counts.items():
            self.tally.count(name, by)

    def shards(self, sources: Mapping[str, SourceRecord]) -> int:
        """How many shards the whole dataset has, for a kind whose plan needs no survey; about, where the sample has few of its rows."""
        planned, wanted = self.spec.wanted(), self._whole.wanted()
        if planned and wanted and planned[1] < wanted[1]:
            return math.ceil(len(self.plan.shards) * wanted[1] / planned[1])
        inputs = StoreInputs(self._objects, {p: sources[p] for p in self._whole.sources()}, self._tokenizer)
        return len(self.kind.plan(self._whole, inputs, []).shards)

    @property
    def inputs(self) -> Inputs:
        """What the sample is built from."""
        return self._inputs

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows of the sample, checked, as they are built."""
        for shard in self.plan.shards:
            for batch in self.kind.build(self.spec, shard, self._inputs, self.tally):
                self.kind.check(self.spec, batch)
                yield batch

    def rows(self, most: int | None) -> pa.Table:
        """The first `most` rows of the sample, or all of them; no more is built than that takes."""
        found: list[pa.RecordBatch] = []
        count = 0
        for batch in self.batches():
            found.append(batch)
            count += batch.num_rows
            if most is not None and count >= most:
                break
        table = pa.Table.from_batches(found, self.kind.schema(self.spec))
        return table if most is None else table.slice(0, most)
