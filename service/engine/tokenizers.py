"""Tokenizers by name: the builtin one, those the operator registered, and at the command line any directory with tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from packing.dataset.errors import TokenizerError
from packing.tokenizers import BUILTIN, Tokenizer

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
        return TokenizerRecord(
            name=folder.name, folder=str(folder), digest=load_tokenizer(folder.name, str(folder)).digest
        )
    known = ", ".join([BUILTIN_NAME, *sorted(registered or {})])
    message = f"there is no tokenizer {name!r}; known: {known}{', or a directory with tokenizer.json' if paths else ''}"
    raise TokenizerError(message, param="/tokenizer")
