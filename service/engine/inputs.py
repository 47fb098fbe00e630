"""What a kind may read, out of the object store: pieces by digest."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from packing.dataset.errors import SourceError
from packing.dataset.reader import open_parquet
from packing.kept import Kept
from packing.plan import Piece
from packing.sources import lines_table
from packing.tokenizers import Tokenizer
from service.engine.tokenizers import TokenizerRecord
from service.storage.object_file import ObjectFile
from service.storage.objects import Objects
from service.storage.source_record import SourceRecord, piece_path

NARROW, WIDE = np.dtype("<u2"), np.dtype("<i4")
"""How kept numbers lie in the store, piece by piece (packing.kept)."""


class StoreInputs:
    """Inputs out of an object store (see packing.plan.Inputs); what surveys kept lies below `work`."""

    def __init__(
        self, objects: Objects, sources: Mapping[str, SourceRecord], tokenizer: TokenizerRecord, *, work: str = ""
    ) -> None:
        self._objects = objects
        self._work = work
        self._prefixes = {pointer: record.prefix for pointer, record in sources.items()}
        self._pieces = tuple(
            replace(piece, field=pointer) for pointer, record in sorted(sources.items()) for piece in record.pieces
        )
        self._tokenizer = tokenizer
        self._kept = dict[int, tuple[str, np.dtype[Any]]]()

    @property
    def pieces(self) -> Sequence[Piece]:
        """The pieces of all sources, those of one source behind each other."""
        return self._pieces

    @property
    def tokenizer(self) -> Tokenizer:
        """The spec's tokenizer."""
        return self._tokenizer.open()

    def read(self, piece: Piece) -> pa.Table:
        """The rows of a piece; raises SourceError where its bytes are not its digest's."""
        if piece.file:
            return _lines_there(piece.file, piece.start, piece.bytes, piece.digest)
        if piece.path:
            return _row_group(self._objects.url, piece.path, piece.digest, piece.group)
        return _piece_table(self._objects.url, piece_path(self._prefixes[piece.field], piece.digest), piece.digest)

    def kept(self, number: int, spans: NDArray[np.int64]) -> Kept:
        """What a survey kept, from start to stop of every span, in its type; neighbours are fetched in one go."""
        if not len(spans):
            return np.zeros(0, np.int32)
        opens = np.append(True, spans[1:, 0] != spans[:-1, 1])
        starts, ends = spans[opens, 0], spans[np.append(opens[1:], True), 1]
        path, kind = self._kept_as(number)
        width = kind.itemsize
        try:
            parts = self._objects.read_ranges(path, (starts * width).tolist(), (ends * width).tolist())
        except EOFError as error:
            message = f"what was kept of the source while it was surveyed is cut short in the store ({path})"
            raise SourceError(message) from error
        return np.frombuffer(b"".join(parts), kind)

    def _kept_as(self, number: int) -> tuple[str, np.dtype[Any]]:
        """Where the numbers kept of a piece are, and their type; each is looked for once."""
        if number not in self._kept:
            narrow = kept_path(self._work, number, NARROW)
            found = self._objects.size(narrow) is not None
            self._kept[number] = (narrow, NARROW) if found else (kept_path(self._work, number, WIDE), WIDE)
        return self._kept[number]


def kept_path(work: str, number: int, kind: np.dtype[Any]) -> str:
    """Where the numbers kept of a piece are, if they are of this type."""
    return f"{work}/kept/{number:08d}.{kind.str[1:]}.bin"


def write_kept(objects: Objects, work: str, number: int, values: Kept) -> None:
    """Keep the numbers of a piece [n] in the type they have."""
    kind = NARROW if values.dtype == np.uint16 else WIDE
    objects.write(kept_path(work, number, kind), values.astype(kind, copy=False).view(np.uint8).data)


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
    # A file in memory is read where it lies; read_table, and io.BytesIO, take a fifth longer.
    with pq.ParquetFile(pa.BufferReader(data)) as parquet:
        return parquet.read(use_threads=False)


@lru_cache(maxsize=2)
def _lines_there(file: str, start: int, size: int, digest: str) -> pa.Table:
    """Lines of a source that was left where it is."""
    try:
        with Path(file).open("rb", buffering=0) as stream:
            stream.seek(start)
            data = stream.read(size)
    except OSError as error:
        message = f"{file} cannot be read any more ({error.strerror}): a source stays as it is while a dataset is built from it"
        raise SourceError(message, param=file) from error
    if len(data) != size or f"{zlib.crc32(data):08x}" != digest:
        message = f"{file} has changed since the build began: a source stays as it is while a dataset is built from it"
        raise SourceError(message, param=file)
    return lines_table(data)


@lru_cache(maxsize=2)
def _row_group(url: str, path: str, sha256: str, group: int) -> pa.Table:
    """A row group of a dataset's file, its page checksums verified; `sha256` is the file's, part of what is asked for."""
    objects = Objects.open(url)
    size = objects.size(path)
    if size is None:
        message = f"a file of the dataset is gone from the store ({path}, sha256 {sha256[:16]}…)"
        raise SourceError(message)
    with ObjectFile(objects, path, size) as stream, open_parquet(stream, name=path) as parquet:
        try:
            return parquet.read_row_group(group, use_threads=False).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            message = f"a file of the dataset is damaged in the store ({path}, row group {group}: {error})"
            raise SourceError(message) from error


def sources_json(sources: Mapping[str, SourceRecord]) -> dict[str, Any]:
    """Source records by pointer as plain JSON."""
    return {pointer: record.to_json() for pointer, record in sources.items()}
