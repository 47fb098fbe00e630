"""A disk that is full in earnest: a small file system of its own, filled up to a few pages, under the database, the store and uploads."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastapi.testclient import TestClient
from sqlalchemy.exc import SQLAlchemyError

from service.app import create_app
from service.jobs.job import State
from service.storage.space import out_of_space
from tests.faults.campaigns import World
from tests.service.support import BASE, conversations, make_runner

DISK_BYTES = 8 * 1024 * 1024
PAGE = 4096
LEFT_BYTES = 32 * PAGE


class NoDiskError(Exception):
    """This machine lets us make no file system."""


@contextmanager
def small_disk(folder: Path) -> Generator[Path]:
    """A file system in memory of 8 MiB at `folder`; raises NoDiskError where we may not mount one."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "longweave-test", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NoDiskError(str(error)) from error
    if done.returncode:
        raise NoDiskError(done.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full_but_for(folder: Path, free: int) -> Generator[None]:
    """Fill the file system of `folder` until `free` bytes are left, and make room again afterwards."""
    ballast = folder / "ballast"
    about = os.statvfs(folder)
    handle = os.open(ballast, os.O_CREAT | os.O_WRONLY)
    try:
        os.posix_fallocate(handle, 0, about.f_bavail * about.f_frsize - free)
        yield
    finally:
        os.close(handle)
        ballast.unlink()


@dataclass
class DiskFigures:
    """What a campaign on a full disk did and found."""

    jobs: int = 0
    ended: Counter[str] = field(default_factory=Counter)  # first attempts, by how they ended
    lost: int = 0  # jobs that did not succeed when there was room
    wrong: int = 0
    answers: Counter[str] = field(default_factory=Counter)  # of the API on the full disk
    odd: list[str] = field(default_factory=list)  # answers and errors that nothing documents


class FullDisk:
    """A world on a small disk, with its API and a runner in this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.world = World(folder / "world")
        services = self.world.services
        # Endings are tried for a lease, here for a moment: nobody makes room meanwhile.
        impatient = replace(services.settings, lease_seconds=0.5)
        self._runner = make_runner(replace(services, settings=impatient))
        self._api = TestClient(create_app(services.settings, services), base_url=BASE, raise_server_exceptions=False)

    def meet(self, free: int, figures: DiskFigures) -> None:
        """A job whose first attempt has `free` bytes, and requests at the same time; then room, and the job's end. Every other job has
        what a killed writer left of it, which is removed to make room for the note of the failure at least."""
        world = self.world
        job = world.submit()
        if figures.jobs % 2:
            left = world.folder / "objects/work" / job.id / "partial/longweave-left"
            left.parent.mkdir(parents=True)
            left.write_bytes(bytes(LEFT_BYTES))
        with full_but_for(self._folder, free):
            figures.ended[self._attempt(job.id, figures)] += 1
            self._ask(figures)
        figures.jobs += 1
        figures.wrong += world.torn(job)
        for _ in range(2):
            if not world.state(job).ended:
                world.lapse()
                self._runner.run_once()
        figures.lost += world.state(job) is not State.SUCCEEDED
        figures.wrong += world.digests(job) != world.right
        world.tidy(job)

    def _attempt(self, job_id: str, figures: DiskFigures) -> str:
        """How an attempt ended: a state, with the error's code; `silent` where not even the database could be told."""
        try:
            self._runner.run_once()
        except SQLAlchemyError as error:
            if not out_of_space(error):
                figures.odd.append(f"runner: {error}")
            return "silent"
        after = self.world.services.jobs.get(job_id)
        code = after.error["code"] if after.error else ""
        if code not in ("", "insufficient_storage"):
            figures.odd.append(f"job: {after.error}")
        return f"{after.state} {code}".strip()

    def _ask(self, figures: DiskFigures) -> None:
        """Reads are served; an upload and a job are taken or refused with 507."""
        with_body = {"content": conversations(200), "headers": {"Content-Type": "application/jsonl"}}
        asked = {
            "GET /healthz": self._api.get("/healthz"),
            "GET /v1/jobs": self._api.get("/v1/jobs"),
            "POST /v1/uploads": self._api.post("/v1/uploads", **with_body),
        }
        for what, answer in asked.items():
            figures.answers[f"{what} {answer.status_code}"] += 1
            code = answer.json()["code"] if answer.status_code >= 400 else ""
            if (answer.status_code, code) not in ((200, ""), (201, ""), (507, "insufficient_storage")):
                figures.odd.append(f"{what}: {answer.status_code} {code}")
            if what.startswith("GET") and answer.status_code != 200:
                figures.odd.append(f"{what}: {answer.status_code}")

    def close(self) -> None:
        """Close the database."""
        self.world.close()


def full_disks(disk: FullDisk, pages: Sequence[int]) -> DiskFigures:
    """A job for every number of free pages."""
    figures = DiskFigures()
    for free in pages:
        disk.meet(free * PAGE, figures)
    return figures
