"""The manifest: a dataset exists when its manifest does, and is what its manifest says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from packing.dataset.errors import DatasetError

FORMAT_VERSION = 1
NAME = "manifest.json"
LARGEST = 64 * 1024 * 1024
"""Bytes a manifest may have: a reader refuses more before parsing."""


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spare space: equal values give equal bytes. NaN and infinities are refused."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One Parquet file of the dataset; `path` is relative to the manifest."""

    path: str
    split: str
    bytes: int
    rows: int
    tokens: int
    sha256: str
    content_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file that is no data (the card, the statistics), known by its digest."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a dataset is: written once, last, and only if absent. It holds no time and no place, so equal datasets have equal manifests."""

    kind: str
    name: str
    spec: Mapping[str, Any]
    fingerprint: str
    versions: Mapping[str, str]
    tokenizer: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    files: tuple[DataFile, ...]
    documents: tuple[Document, ...]
    counts: Mapping[str, int]
    skipped_inputs: Mapping[str, Any]
    warnings: Sequence[str] = field(default=())
    format_version: int = FORMAT_VERSION

    def to_bytes(self) -> bytes:
        """The manifest as it stands on disk: indented JSON with sorted keys, UTF-8."""
        text = json.dumps(asdict(self), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = NAME) -> Manifest:
        """Read a manifest; raises DatasetError, naming `where`, if it is damaged or of a later format."""
        try:
            value: Any = json.loads(data)
            if not isinstance(value, dict):
                raise TypeError("not an object")
            version = value.get("format_version")
            if version != FORMAT_VERSION:
                message = f"{where} has format version {version!r}; this version of Longweave reads {FORMAT_VERSION}"
                raise DatasetError(message, param=where)
            files = tuple(DataFile(**f) for f in value.pop("files"))
            documents = tuple(Document(**d) for d in value.pop("documents"))
            manifest = cls(files=files, documents=documents, **value)
            _check_types(manifest)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            message = f"{where} is damaged or no manifest of Longweave ({error})"
            raise DatasetError(message, param=where) from error
        return manifest


def _check_types(manifest: Manifest) -> None:
    """Raise TypeError for a field of another type than it was written with: what it is used for later would say less."""
    texts: list[Any] = [manifest.kind, manifest.name, manifest.fingerprint]
    numbers: list[Any] = []
    for file in (*manifest.files, *manifest.documents):
        texts += [file.path, file.sha256]
        numbers.append(file.bytes)
    for file in manifest.files:
        texts += [file.split, file.content_sha256]
        numbers += [file.rows, file.tokens]
    mappings: list[Any] = [manifest.spec, manifest.versions, manifest.tokenizer, manifest.counts, *manifest.inputs]
    for wanted, values in ((str, texts), (int, numbers), (dict, mappings)):
        if wrong := [value for value in values if not isinstance(value, wanted)]:
            raise TypeError(f"{wrong[0]!r} stands where a {wanted.__name__} belongs")
    if any("\0" in text for text in texts):
        raise ValueError("NUL in a text")
