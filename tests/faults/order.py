"""The order of writes: every store operation of a build is recorded, and every beginning of the record is a disk to go on from.

What stands after a power cut is such a beginning. The last write may be torn where it is not flushed before it gets its name:
shards and manifests are.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from packing.dataset.errors import LongweaveError
from service.commands.verify import verify
from service.engine import inputs
from service.storage.objects import Objects
from tests.faults import lines


@dataclass(frozen=True)
class Step:
    """One operation: `data` is what stands at `path` from now on, None where it is removed; `atomic` where it cannot be torn."""

    path: str
    data: bytes | None
    atomic: bool = True


@dataclass
class OrderFigures:
    """What a campaign of replays did and found."""

    prefixes: int = 0
    torn: int = 0
    committed: int = 0  # prefixes with a manifest
    wrong: int = 0  # manifests that do not verify, or other bytes at the end

    def add(self, other: OrderFigures) -> OrderFigures:
        """Both together."""
        return OrderFigures(
            self.prefixes + other.prefixes,
            self.torn + other.torn,
            self.committed + other.committed,
            self.wrong + other.wrong,
        )


@contextmanager
def recorded() -> Generator[list[Step]]:
    """What every store of this process writes and removes meanwhile, in order."""
    steps: list[Step] = []
    originals = {name: getattr(Objects, name) for name in ("write", "_put_in_place", "_put_if_absent", "delete_prefix")}

    def write(self: Objects, path: str, data: bytes, **options: Any) -> None:
        originals["write"](self, path, data, **options)
        steps.append(Step(path, data, atomic=False))

    def put_in_place(self: Objects, partial: Path, path: str) -> None:
        steps.append(Step(path, partial.read_bytes()))
        originals["_put_in_place"](self, partial, path)

    def put_if_absent(self: Objects, path: str, data: bytes, staging: str) -> None:
        originals["_put_if_absent"](self, path, data, staging)
        steps.append(Step(path, data))

    def delete_prefix(self: Objects, prefix: str) -> None:
        steps.extend(Step(path, None) for path in self.list(prefix))
        originals["delete_prefix"](self, prefix)

    replaced = {
        "write": write,
        "_put_in_place": put_in_place,
        "_put_if_absent": put_if_absent,
        "delete_prefix": delete_prefix,
    }
    with mock.patch.multiple(Objects, **replaced):
        yield steps


class Replay:
    """The record of one kind's build, and the bytes it came to."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder / kind
        self.folder.mkdir(parents=True)
        lines.make_sources(self.folder)
        self.spec = lines.specs(self.folder)[kind]
        self.base = self.folder / "base"
        lines.take_in(self.spec, self.base)
        whole = self.folder / "whole"
        shutil.copytree(self.base, whole)
        with recorded() as steps:
            self.right = lines.build(self.spec, whole)
            Objects.local(whole).delete_prefix(lines.WORK)
        self.steps = steps
        standing = {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()}
        known = {path.relative_to(self.base).as_posix() for path in self.base.rglob("*") if path.is_file()}
        assert standing - known == set(state(steps)), "a write went past the record"

    def disks(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Every disk that a power cut may leave, with a name: all beginnings of the record, whole and with their last write torn."""
        for number in range(len(self.steps) + 1):
            before = self.steps[:number]
            yield f"{number}", state(before)
            if before and before[-1].data is not None and not before[-1].atomic:
                last = before[-1]
                yield f"{number} torn", state(before) | {last.path: last.data[: len(last.data) // 2]}
                yield f"{number} empty", state(before) | {last.path: b""}

    def go_on_from(self, files: dict[str, bytes], figures: OrderFigures) -> None:
        """Make a disk and finish the dataset on it."""
        store = self.folder / "disk"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(self.base, store)
        for path, data in files.items():
            place = store / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        for remembered in (inputs._piece_table, inputs._row_group):
            remembered.cache_clear()  # what another disk held at the same places
        dataset = store / lines.TARGET
        if (dataset / "manifest.json").exists():
            figures.committed += 1
            figures.wrong += not _sound(dataset)
        figures.wrong += lines.build(self.spec, store) != self.right


def state(steps: Sequence[Step]) -> dict[str, bytes]:
    """What stands after some steps, by path."""
    files: dict[str, bytes] = {}
    for step in steps:
        if step.data is None:
            files.pop(step.path, None)
        else:
            files[step.path] = step.data
    return files


def replays(replay: Replay, *, every: int = 1, first: int = 0) -> OrderFigures:
    """Go on from every disk of a record, or from every so-manyth."""
    figures = OrderFigures()
    for number, (name, files) in enumerate(replay.disks()):
        if number % every != first % every:
            continue
        figures.prefixes += 1
        figures.torn += not name.isdigit()
        replay.go_on_from(files, figures)
    return figures


def _sound(dataset: Path) -> bool:
    try:
        verify(dataset)
    except LongweaveError:
        return False
    return True
