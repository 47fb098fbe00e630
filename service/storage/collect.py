"""Garbage collection: what jobs and uploads left behind, and nothing that is or may become a dataset.

| place | goes when all of it is older than a day and |
|---|---|
| `work/<job>/` | the job has ended, or is unknown |
| `datasets/<id>/` without a manifest | the job that was to build it has ended, or is unknown, and the catalog has no such dataset |
| `probe/…` | it is what a start-up test that was killed left |
| `uploads/<id>/` without an upload | only by command: a store used with another database would lose sources that cannot be made again |
| `arriving/<id>/` | nothing has come of the upload for a day, or it is unknown |
| files in `incoming/`, ours in the temporary directory | only by command as well |

A place with a manifest is never touched, whatever the database says of it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from packing.dataset import manifest as manifests
from service.storage.objects import TEMPORARY, Entry, Objects
from service.storage.parts import ROOM

DAY = 24 * 3600.0
PLACES = ("work", "datasets", "uploads", ROOM, "probe")


class Scope(StrEnum):
    """How far a collection goes."""

    JOBS = "jobs"  # what a runner removes by itself
    ALL = "all"  # uploads and files on their way in too


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the database knows: live jobs, the datasets they will make, datasets, uploads, those on their way."""

    live_jobs: Collection[str] = frozenset()
    live_targets: Collection[str] = frozenset()
    datasets: Collection[str] = frozenset()
    uploads: Collection[str] = frozenset()
    arriving: Collection[str] = frozenset()


class Records(Protocol):
    """Who is asked what is known."""

    def known(self) -> Known: ...

    def forget_silent(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something that may go: a prefix of the store, or (`file`) a file of this machine; `why` is for people."""

    path: str
    why: str
    bytes: int
    objects: int
    file: bool = False


@dataclass(slots=True)
class _Place:
    bytes: int = 0
    objects: int = 0
    newest: float = 0.0
    manifest: bool = False
    paths: list[str] = field(default_factory=list[str])


def places(entries: Iterable[Entry]) -> Mapping[str, _Place]:
    """The entries by the two first steps of their paths, which is what belongs together; others are nobody's to remove."""
    found: dict[str, _Place] = {}
    for entry in entries:
        steps = entry.path.split("/")
        if len(steps) < 2 or steps[0] not in PLACES:
            continue
        place = found.setdefault("/".join(steps[:2]), _Place())
        place.bytes += entry.bytes
        place.objects += 1
        place.newest = max(place.newest, entry.modified)
        # A manifest below a job's work is that of a part, and goes with it.
        place.manifest |= steps[0] == "datasets" and steps[2:] == [manifests.NAME]
        place.paths.append(entry.path)
    return found


def leftovers(
    found: Mapping[str, _Place], known: Known, *, now: float, age: float = DAY, scope: Scope
) -> list[Leftover]:
    """Which places may go. Pure."""
    chosen: list[Leftover] = []
    for path, place in sorted(found.items()):
        why = _why(path, place, known, scope)
        if why and place.newest < now - age:
            chosen.append(Leftover(path=path, why=why, bytes=place.bytes, objects=place.objects))
    return chosen


def _why(path: str, place: _Place, known: Known, scope: Scope) -> str:
    """Why a place may go, as far as its age does not forbid it; empty where it may not."""
    room, _, name = path.partition("/")
    match room:
        case "work" if name not in known.live_jobs:
            return "the job has ended or is unknown"
        case "datasets" if not place.manifest and name not in known.live_targets and name not in known.datasets:
            return "the dataset was never finished and no job works on it"
        case "uploads" if scope is Scope.ALL and name not in known.uploads and name not in known.arriving:
            return "the upload was never finished or is deleted"
        case "arriving" if name not in known.arriving:
            return "nothing has come of the upload for a day, or it is unknown"
        case "probe":
            return "the start-up test of the store is over"
        case _:
            return ""


def collect(
    records: Records, objects: Objects, incoming: Path, *, scope: Scope, delete: bool, age: float = DAY
) -> list[Leftover]:
    """Find what is left over, and with `delete` remove it; returns what was found.

    The store is listed before the database is asked: what was begun in between is young, and so it stays.
    """
    found = places(entry for room in PLACES for entry in objects.entries(room))
    if delete:
        records.forget_silent()
    chosen = leftovers(found, records.known(), now=time.time(), age=age, scope=scope)
    if delete:
        for item in chosen:
            _remove(objects, item.path, found[item.path])
    return chosen + (_old_files(incoming, age=age, delete=delete) if scope is Scope.ALL else [])


def _remove(objects: Objects, path: str, place: _Place) -> None:
    if path.startswith("datasets/") and objects.size(f"{path}/{manifests.NAME}") is not None:
        return  # committed since it was listed
    objects.delete(place.paths)
    objects.prune(path)


def _old_files(incoming: Path, *, age: float, delete: bool) -> list[Leftover]:
    """Files that uploads and writers to a remote store left when they were killed."""
    chosen: list[Leftover] = []
    oldest = time.time() - age
    for place in (*incoming.glob("*"), *Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*")):
        about = place.lstat()
        if place.is_symlink() or not place.is_file() or about.st_mtime >= oldest:
            continue
        why = "what wrote it has been silent for too long"
        chosen.append(Leftover(path=str(place), why=why, bytes=about.st_size, objects=1, file=True))
        if delete:
            place.unlink(missing_ok=True)
    return chosen
