"""Tokenizers by name: the builtin one, those the operator registered, those that users uploaded, and at the command line any
directory with tokenizer.json."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from packing.dataset.errors import TokenizerError
from packing.tokenizers import BUILTIN, FILES, Tokenizer
from service.places import place_of
from service.storage.objects import Objects

BUILTIN_NAME = "builtin"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerRecord:
    """A tokenizer that any worker can open; `digest` is what it must be.

    Its files are in `folder` on a disk all workers see ("" for the builtin one), or, of an uploaded one, objects of the store at
    `store`: `files` has the sha256 of each by name, and they lie below `prefix` by that sha256.
    """

    name: str
    folder: str
    digest: str
    store: str = ""
    prefix: str = ""
    files: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def uploaded(self) -> bool:
        """Whether a user sent it: then it is opened where time and memory are bounded."""
        return bool(self.files)

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON."""
        return asdict(self)

    def open(self) -> Tokenizer:
        """The tokenizer; raises TokenizerError where its files are no longer what they were."""
        if self.uploaded:
            tokenizer = _load_stored(self.name, self.store, self.prefix, tuple(sorted(self.files.items())))
        else:
            tokenizer = load_tokenizer(self.name, self.folder)
        if tokenizer.digest != self.digest:
            message = f"the files of tokenizer {self.name!r} have changed since the job began"
            raise TokenizerError(message, param="/tokenizer")
        return tokenizer


def gave_up(error: BaseException) -> bool:
    """Whether an error is the tokenizer's engine giving up on a text: a panic, which its regular expressions end in when they have
    tried too long, and which is no Exception."""
    return type(error).__name__ == "PanicException"


@lru_cache(maxsize=4)
def load_tokenizer(name: str, folder: str) -> Tokenizer:
    """Load a tokenizer once a process: reading one takes a second, a shard not much more."""
    return Tokenizer.load(Path(folder) if folder else BUILTIN, name=name)


@lru_cache(maxsize=4)
def _load_stored(name: str, store: str, prefix: str, files: tuple[tuple[str, str], ...]) -> Tokenizer:
    """Load an uploaded tokenizer; raises TokenizerError where an object is gone or is not its sha256."""
    objects = Objects.open(store)
    with tempfile.TemporaryDirectory(prefix="longweave-tokenizer-") as folder:
        for file, sha256 in files:
            assert file in FILES
            try:
                data = objects.read(f"{prefix}/{sha256}")
            except FileNotFoundError as error:
                message = f"the {file} of tokenizer {name!r} is gone from the store: it was removed"
                raise TokenizerError(message, param="/tokenizer") from error
            if hashlib.sha256(data).hexdigest() != sha256:
                message = f"the {file} of tokenizer {name!r} is damaged in the store"
                raise TokenizerError(message, param="/tokenizer")
            (Path(folder) / file).write_bytes(data)
        return Tokenizer.load(Path(folder), name=name)


def find_tokenizer(name: str, *, registered: Mapping[str, Path] | None = None, paths: bool = False) -> TokenizerRecord:
    """The record of `builtin`, of a registered name, or (only where `paths` are allowed) of a directory with tokenizer.json."""
    if name == BUILTIN_NAME:
        return TokenizerRecord(name=name, folder="", digest=load_tokenizer(name, "").digest)
    if registered is not None and name in registered:
        folder = str(registered[name].resolve())
        return TokenizerRecord(name=name, folder=folder, digest=load_tokenizer(name, folder).digest)
    if paths and (place := place_of(name)).is_dir():
        folder = place.resolve()
        return TokenizerRecord(
            name=folder.name, folder=str(folder), digest=load_tokenizer(folder.name, str(folder)).digest
        )
    known = ", ".join([BUILTIN_NAME, *sorted(registered or {})])
    message = f"there is no tokenizer {name!r}; known: {known}{', or a directory with tokenizer.json' if paths else ''}"
    raise TokenizerError(message, param="/tokenizer")
