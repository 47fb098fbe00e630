"""What a kind may read, out of the object store: pieces by digest."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from packing.dataset.errors import SourceError
from packing.plan import Piece
from packing.tokenizers import Tokenizer
from service.engine.tokenizers import TokenizerRecord
from service.storage.intake import SourceRecord, piece_path
from service.storage.objects import Objects


class StoreInputs:
    """Inputs out of an object store (see packing.plan.Inputs)."""

    def __init__(self, objects: Objects, sources: Mapping[str, SourceRecord], tokenizer: TokenizerRecord) -> None:
        self._objects = objects
        self._prefixes = {pointer: record.prefix for pointer, record in sources.items()}
        self._pieces = tuple(
            replace(piece, field=pointer) for pointer, record in sorted(sources.items()) for piece in record.pieces
        )
        self._tokenizer = tokenizer

    @property
    def pieces(self) -> Sequence[Piece]:
        """The pieces of all sources."""
        return self._pieces

    @property
    def tokenizer(self) -> Tokenizer:
        """The spec's tokenizer."""
        return self._tokenizer.open()

    def read(self, piece: Piece) -> pa.Table:
        """The rows of a piece; raises SourceError where its bytes are not its digest's."""
        return _piece_table(self._objects.url, piece_path(self._prefixes[piece.field], piece.digest), piece.digest)


class FirstRows:
    """Inputs cut down to the first rows of the first piece, about `most` bytes of them: what a preview is made from."""

    def __init__(self, inputs: StoreInputs, *, most: int) -> None:
        self._inputs = inputs
        first = inputs.pieces[0]
        rows = max(1, min(first.rows, most * first.rows // max(first.bytes, 1)))
        self._piece = replace(first, rows=rows, bytes=first.bytes * rows // first.rows)

    @property
    def pieces(self) -> Sequence[Piece]:
        """The one shortened piece."""
        return (self._piece,)

    @property
    def tokenizer(self) -> Tokenizer:
        """The spec's tokenizer."""
        return self._inputs.tokenizer

    def read(self, piece: Piece) -> pa.Table:
        """The piece's first rows."""
        return self._inputs.read(piece).slice(0, piece.rows)


@lru_cache(maxsize=2)
def _piece_table(url: str, path: str, digest: str) -> pa.Table:
    """A piece, kept while the shards that need it follow each other."""
    try:
        data = Objects.open(url).read(path)
    except FileNotFoundError as error:
        message = f"a piece of the source is gone from the store ({path})"
        raise SourceError(message) from error
    if hashlib.sha256(data).hexdigest() != digest:
        message = f"a piece of the source is damaged in the store ({path})"
        raise SourceError(message)
    return pq.read_table(io.BytesIO(data), use_threads=False)


def sources_json(sources: Mapping[str, SourceRecord]) -> dict[str, Any]:
    """Source records by pointer as plain JSON."""
    return {pointer: record.to_json() for pointer, record in sources.items()}
