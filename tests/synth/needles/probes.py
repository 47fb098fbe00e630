"""What the tests of needles share: specs, inputs without a store, and rows made in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from packing.plan import Piece, Tally
from packing.tokenizers import Tokenizer
from service.kinds import spec_of
from synth import needle

ALL_TASKS = [
    "passkey",
    "number",
    "kv",
    "niah_single",
    "niah_multikey",
    "niah_multivalue",
    "niah_multiquery",
    "variable_tracking",
    "common_words",
    "frequent_words",
    "dictionary",
    "graph_walks",
    "coreference",
    "hidden_fact",
]


@dataclass(frozen=True)
class InMemory:
    """Inputs that hold their sources' lines in memory."""

    tokenizer: Tokenizer
    lines: dict[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def pieces(self) -> list[Piece]:
        return [
            Piece(
                digest=f"{hash(repr(rows)):x}",
                container="lines",
                field=pointer,
                name=f"{pointer[1:]}.jsonl",
                first_row=1,
                first_index=0,
                rows=len(rows),
                bytes=1,
            )
            for pointer, rows in self.lines.items()
        ]

    def read(self, piece: Piece) -> pa.Table:
        rows = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in self.lines[piece.field]]
        return pa.table({"line": pa.array(rows, pa.binary())})

    def kept(self, number: int, spans: np.ndarray) -> np.ndarray:
        raise AssertionError(number)


def spec(**fields: Any) -> needle.Spec:
    made = spec_of({"kind": "needle", **fields})
    assert isinstance(made, needle.Spec)
    return made


def rows_of(made: needle.Spec, inputs: InMemory, tally: Tally | None = None) -> list[dict[str, Any]]:
    """All rows of a spec, planned, built and checked."""
    found: list[dict[str, Any]] = []
    for shard in needle.plan(made, inputs, []).shards:
        for batch in needle.build(made, shard, inputs, tally or Tally()):
            assert batch.schema.equals(needle.schema(made))
            needle.check(made, batch)
            found += batch.to_pylist()
    return found
