"""A small dataset of every kind by the line alone: no database, no runner, one directory as its store."""

from __future__ import annotations

import hashlib
from pathlib import Path

from service.commands.specs import take_in_sources
from service.engine.executor import Executor, InlineExecutor
from service.engine.line import Unwatched, Watch, build_dataset
from service.engine.tokenizers import find_tokenizer
from service.kinds import KINDS, spec_of
from service.storage.objects import Objects
from tests.service.every_kind import documents
from tests.service.support import conversations

TARGET, WORK, PIECES = "datasets/d", "work/j", "uploads"
TALKS, TEXTS = "talks.jsonl", "texts.jsonl"
TOKENIZER = find_tokenizer("builtin")


def make_sources(folder: Path) -> None:
    """The two files that the specs name."""
    (folder / TALKS).write_bytes(conversations(20))
    (folder / TEXTS).write_bytes(documents())


def specs(folder: Path) -> dict[str, dict]:
    """A spec of every kind, by kind; a mixture of a file, and of a cip that is built with it."""
    talks, texts = ({"path": str(folder / name)} for name in (TALKS, TEXTS))
    cip = {"kind": "cip", "source": texts, "sequence_length": 512, "chunks": 2, "shard_tokens": 1024}
    parts = [{"name": "talks", "source": talks, "weight": 0.5}, {"name": "texts", "spec": cip, "weight": 0.5}]
    found = {
        "cip": cip,
        "mixture": {
            "kind": "mixture",
            "parts": parts,
            "total": 4000,
            "max_epochs": 50,
            "max_length": 1024,
            "shard_tokens": 2000,
        },
        "needle": {"kind": "needle", "lengths": [2048], "depths": 1, "repeats": 1, "tasks": ["passkey", "kv"]},
        "skipalign": {
            "kind": "skipalign",
            "source": talks,
            "strategy": "outer",
            "packing": "best_fit",
            "max_length": 512,
            "shard_tokens": 600,
        },
        "synl": {"kind": "synl", "samples": 2, "length": [2048], "shard_rows": 1},
    }
    assert set(found) == set(KINDS)
    return found


def take_in(spec: dict, store: Path) -> None:
    """Take a spec's sources into a store, as uploads are before their job is."""
    take_in_sources(spec_of(spec), Objects.local(store), PIECES)


def build(spec: dict, store: Path, executor: Executor | None = None, watch: Watch | None = None) -> dict[str, str]:
    """Build a spec's dataset in a store, going on from what is there; returns its digests."""
    objects = Objects.local(store)
    build_dataset(
        spec=spec_of(spec),
        sources=take_in_sources(spec_of(spec), objects, PIECES),
        tokenizer=TOKENIZER,
        objects=objects,
        work=WORK,
        target=TARGET,
        executor=executor or InlineExecutor(),
        watch=watch or Unwatched(),
    )
    return digests(store)


def digests(store: Path) -> dict[str, str]:
    """The sha256 of every file of the dataset in a store."""
    place = store / TARGET
    files = sorted(path for path in place.rglob("*") if path.is_file())
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
