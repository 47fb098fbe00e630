"""What a kind may read, out of the object store: pieces by digest, the tokenizer by its record."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from packing.dataset.errors import SourceError, TokenizerError
from packing.plan import Piece
from packing.tokenizers import BUILTIN, Tokenizer
from service.storage.intake import SourceRecord, piece_path
from service.storage.objects import Objects

BUILTIN_NAME = "builtin"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerRecord:
    """A tokenizer that any worker can open: `folder` on a disk all workers see, "" for the builtin one; `digest` is what it must be."""

    name: str
    folder: str
    digest: str

    def to_json(self) -> dict[str, str]:
        """The record as plain JSON."""
        return asdict(self)

    def open(self) -> Tokenizer:
        """The tokenizer; raises TokenizerError where its files are no longer what they were."""
        tokenizer = load_tokenizer(self.name, self.folder)
        if tokenizer.digest != self.digest:
            message = f"the files of tokenizer {self.name!r} have changed since the job began"
            raise TokenizerError(message, param="/tokenizer")
        return tokenizer


@lru_cache(maxsize=4)
def load_tokenizer(name: str, folder: str) -> Tokenizer:
    """Load a tokenizer once a process: reading one takes a second, a shard not much more."""
    return Tokenizer.load(Path(folder) if folder else BUILTIN, name=name)


def find_tokenizer(name: str, *, registered: Mapping[str, Path] | None = None, paths: bool = False) -> TokenizerRecord:
    """The record of `builtin`, of a registered name, or (only where `paths` are allowed) of a directory with tokenizer.json."""
    if name == BUILTIN_NAME:
        return TokenizerRecord(name=name, folder="", digest=load_tokenizer(name, "").digest)
    if registered is not None and name in registered:
        folder = str(registered[name].resolve())
        return TokenizerRecord(name=name, folder=folder, digest=load_tokenizer(name, folder).digest)
    if paths and Path(name).is_dir():
        folder = Path(name).resolve()
        return TokenizerRecord(name=folder.name, folder=str(folder), digest=load_tokenizer(folder.name, str(folder)).digest)
    known = ", ".join([BUILTIN_NAME, *sorted(registered or {})])
    message = f"there is no tokenizer {name!r}; known: {known}{', or a directory with tokenizer.json' if paths else ''}"
    raise TokenizerError(message, param="/tokenizer")


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
