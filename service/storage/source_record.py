"""What is known of a source that was taken in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from packing.plan import Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """A source that was taken in. `digest` is sha256 of its raw bytes; `problems` counts rows that are neither conversation nor
    document by the usual column names, with the first reasons: a report, not a judgement, since a spec may name other columns.
    `tokens_by` is the sha256 of the tokenizer.json that made its rows, where it is a dataset of tokens."""

    digest: str
    name: str
    bytes: int
    rows: int
    prefix: str
    pieces: tuple[Piece, ...]
    problems: Mapping[str, Any] = field(default_factory=lambda: {"count": 0, "first": []})
    tokens_by: str = ""

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SourceRecord:
        """The inverse of `to_json`."""
        fields: dict[str, Any] = dict(value)
        fields["pieces"] = tuple(Piece(**piece) for piece in value["pieces"])
        return cls(**fields)


def piece_path(prefix: str, digest: str) -> str:
    """Where a piece is kept below the prefix of its source."""
    return f"{prefix}/{digest}.parquet" if prefix else f"{digest}.parquet"
