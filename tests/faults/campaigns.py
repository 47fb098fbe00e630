"""Campaigns of faults against a runner, SQLite and a local store: short in the tests, long by `make faults`. Each returns what it did."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
from sqlalchemy import update

from packing.dataset.errors import DatasetError, LongweaveError
from packing.dataset.manifest import Manifest
from packing.dataset.reader import read_manifest
from service.commands.verify import verify
from service.jobs.database import jobs, now
from service.jobs.job import Job, State
from service.jobs.store import Request
from service.library import folder_of
from service.services import Services
from service.storage.intake import take_in
from tests.faults import child
from tests.service.support import conversations, make_runner
from training.source import LocalSource

SPEC = {"kind": "skipalign", "strategy": "outer", "shard_tokens": 400}
"""One survey, five shards, nine documents: it passes every crash point."""
PASSES = {
    "task_begun": 6,
    "shard_temporary": 5,
    "shard_put": 5,
    "receipt_put": 5,
    "chart_put": 7,
    "object_write": 28,
}
"""How often a job passes a point; once where nothing is said."""
PATIENCE_SECONDS = 60.0


@dataclass
class Figures:
    """What a campaign did and found."""

    delivered: int = 0  # faults
    jobs: int = 0
    lost: int = 0  # jobs that did not succeed
    wrong: int = 0  # datasets with other bytes, or a manifest that does not verify
    recovery: list[float] = field(default_factory=list)  # seconds from the kill to the success

    def add(self, other: Figures) -> Figures:
        """Both together."""
        return Figures(
            self.delivered + other.delivered,
            self.jobs + other.jobs,
            self.lost + other.lost,
            self.wrong + other.wrong,
            self.recovery + other.recovery,
        )

    def p99(self) -> float:
        """The 99th percentile of recovery."""
        return sorted(self.recovery)[math.ceil(0.99 * len(self.recovery)) - 1] if self.recovery else math.nan


class World:
    """A data directory with one source, and the digests that every job on it must come to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.services = Services.open(child.settings_of(folder))
        local = folder / "source.jsonl"
        local.write_bytes(conversations(20))
        upload = self.services.catalog.new_upload_id()
        record = take_in(local, name="source.jsonl", objects=self.services.objects, prefix=f"uploads/{upload}")
        self.services.catalog.add_upload(upload, record.to_json())
        self._spec = {**SPEC, "source": {"upload": upload}}
        first = self.submit()
        make_runner(self.services).run_once()
        assert self.state(first) is State.SUCCEEDED
        self.right = self.digests(first)
        assert len(self.right) == 5 + 9 + 1
        self.first = first

    def submit(self) -> Job:
        """A job like all others."""
        return self.services.jobs.submit(Request(kind="skipalign", name="n", spec=self._spec, metadata={}))[0]

    def state(self, job: Job) -> State:
        """Where a job is."""
        return self.services.jobs.get(job.id).state

    def dataset(self, job: Job) -> Path:
        """The directory of a job's dataset."""
        return self.folder / "objects" / folder_of(job.target)

    def digests(self, job: Job) -> dict[str, str]:
        """The sha256 of every file in the directory of a job's dataset."""
        place = self.dataset(job)
        files = sorted(path for path in place.rglob("*") if path.is_file())
        return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def torn(self, job: Job) -> bool:
        """Whether a manifest is visible whose dataset does not verify."""
        if not (self.dataset(job) / "manifest.json").exists():
            return False
        try:
            verify(self.dataset(job))
        except LongweaveError:
            return True
        return False

    def lapse(self) -> None:
        """Let every lease run out now, so that nobody needs to wait for it."""
        with self.services.engine.begin() as connection:
            connection.execute(update(jobs).where(jobs.c.state == State.RUNNING).values(lease_expires_at=now() - 1))

    def recover(self, job: Job, figures: Figures, *, wait: bool = False) -> None:
        """Let another runner finish (`wait`: after the lease, which is measured), and count what came of it."""
        since = time.monotonic()
        if not wait:
            self.lapse()
        process = child.start(self.folder)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.state(job).ended and time.monotonic() < deadline:
            time.sleep(0.02)
        if wait:
            figures.recovery.append(time.monotonic() - since)
        process.join(PATIENCE_SECONDS)
        figures.jobs += 1
        figures.lost += self.state(job) is not State.SUCCEEDED
        figures.wrong += self.digests(job) != self.right
        left = self.services.objects.list(f"work/{job.id}")
        # A runner that dies after the success leaves its work to garbage collection; nobody else leaves any.
        assert not left or self.services.jobs.get(job.id).attempt == 1, left
        self.tidy(job)

    def tidy(self, job: Job) -> None:
        """Forget a finished job's files, so that a long campaign needs no more room than a short one."""
        shutil.rmtree(self.dataset(job), ignore_errors=True)
        shutil.rmtree(self.folder / "objects/work" / job.id, ignore_errors=True)
        shutil.rmtree(self.folder / "faults", ignore_errors=True)

    def close(self) -> None:
        """Close the database."""
        self.services.close()


def kill_at(world: World, point: str, nth: int, *, wait: bool = False) -> Figures:
    """SIGKILL a runner at a point's `nth` pass; another finishes the job, after the lease where we `wait` for it."""
    figures, job = Figures(), world.submit()
    process = child.start(world.folder, {point: {"do": "kill", "nth": nth}})
    process.join(PATIENCE_SECONDS)
    figures.delivered += process.exitcode == -signal.SIGKILL and child.delivered(world.folder) == 1
    figures.wrong += world.torn(job)
    world.recover(job, figures, wait=wait)
    return figures


def kills_at(world: World, point: str, rounds: int) -> Figures:
    """`rounds` kills at a crash point, spread over its passes."""
    passes = PASSES.get(point, 1)
    return reduce(
        Figures.add, (kill_at(world, point, 1 + number * passes // rounds % passes) for number in range(rounds))
    )


def kills_at_random(world: World, count: int, seed: int) -> Figures:
    """SIGKILL runners at random moments of a job, one or two for each job, until `count` have died at work."""
    draws, figures = np.random.default_rng(seed), Figures()
    longest = 0.3
    while figures.delivered < count:
        job = world.submit()
        for _ in range(int(draws.integers(1, 3))):
            before = world.services.jobs.get(job.id).attempt
            process = child.start(world.folder)
            while world.services.jobs.get(job.id).attempt == before and process.is_alive():
                time.sleep(0.002)
            time.sleep(draws.uniform(0, longest))
            if process.is_alive() and not world.state(job).ended:
                os.kill(process.pid, signal.SIGKILL)
                process.join(PATIENCE_SECONDS)
                figures.delivered += process.exitcode == -signal.SIGKILL
                figures.wrong += world.torn(job)
                world.lapse()
            else:
                process.join(PATIENCE_SECONDS)
        world.recover(job, figures)
    return figures


def waits(folder: Path, points: Sequence[str]) -> Figures:
    """Kills in worlds of their own at the same time, to measure recovery with the default lease."""
    worlds = [World(folder / str(number)) for number in range(len(points))]
    with ThreadPoolExecutor(len(points)) as threads:
        pairs = zip(worlds, points, strict=True)
        found = list(threads.map(lambda pair: kill_at(*pair, 1, wait=True), pairs))
    for world in worlds:
        world.close()
    return reduce(Figures.add, found)


def zombies(world: World, points: Sequence[str]) -> Figures:
    """SIGSTOP a runner at each point for longer than its lease; another finishes; the first wakes and changes nothing."""
    figures = Figures()
    for point in points:
        job = world.submit()
        sleeper = child.start(world.folder, {point: {"do": "stop"}})
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not child.delivered(world.folder) and time.monotonic() < deadline:
            time.sleep(0.02)
        world.lapse()
        child.start(world.folder).join(PATIENCE_SECONDS)
        before = (world.services.jobs.get(job.id), world.digests(job))
        os.kill(sleeper.pid, signal.SIGCONT)
        sleeper.join(PATIENCE_SECONDS)
        figures.delivered += sleeper.exitcode == 0 and child.delivered(world.folder) == 1
        figures.jobs += 1
        figures.lost += before[0].state is not State.SUCCEEDED
        figures.wrong += before[1] != world.right or before != (world.services.jobs.get(job.id), world.digests(job))
        world.tidy(job)
    return figures


@dataclass
class Damage:
    """What a campaign of damage did to files of each kind, and how much of it was found."""

    done: dict[str, int] = field(default_factory=dict)
    by_verify: dict[str, int] = field(default_factory=dict)
    by_training: int = 0  # of the damage to data files, by the bundled worker's reader
    by_digest: int = 0  # words of the manifest that verify cannot know; the catalog has its sha256


def damage(folder: Path, count: int, seed: int) -> Damage:
    """Flip a bit in, or cut short, `count` files of a dataset, every kind in turn; it is whole again afterwards."""
    draws, found = np.random.default_rng(seed), Damage()
    whole = read_manifest(folder)
    verify(folder)
    kinds = {
        "data": [file.path for file in whole.files],
        "documents": [document.path for document in whole.documents],
        "manifest": ["manifest.json"],
    }
    for number in range(count):
        kind = list(kinds)[number % 3]
        path = folder / kinds[kind][int(draws.integers(len(kinds[kind])))]
        data = path.read_bytes()
        path.write_bytes(damaged(data, draws))
        found.done[kind] = found.done.get(kind, 0) + 1
        seen = _refused(lambda: verify(folder))
        found.by_verify[kind] = found.by_verify.get(kind, 0) + seen
        if kind == "data":
            found.by_training += _refused(lambda: _read_all(folder))
        elif kind == "manifest" and not seen:
            changed = hashlib.sha256(path.read_bytes()).digest() != hashlib.sha256(data).digest()
            found.by_digest += changed and Manifest.from_bytes(path.read_bytes(), where="m").files == whole.files
        path.write_bytes(data)
    verify(folder)
    return found


def damaged(data: bytes, draws: np.random.Generator) -> bytes:
    """A bit of `data` flipped, or `data` cut short."""
    if draws.integers(3) == 0:
        return data[: int(draws.integers(len(data)))]
    changed = bytearray(data)
    changed[int(draws.integers(len(data)))] ^= 1 << int(draws.integers(8))
    return bytes(changed)


def _refused(look) -> bool:
    try:
        look()
    except DatasetError:
        return True
    return False


def _read_all(folder: Path) -> None:
    source = LocalSource(folder)
    for file in source.manifest.files:
        with source.open(file) as parquet:
            parquet.read()
