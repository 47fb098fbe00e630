"""A runner in a process of its own, to be killed: it works until nothing waits, builds inline, and dies where it is told to."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from service import faults
from service.jobs.job import Job
from service.services import Services
from tests.service.support import make_runner, settings_in

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.faults.warm"])


def settings_of(folder: Path):
    """The settings of these tests' runners: the lease is the default, tests that need not wait for its end make it lapse."""
    return settings_in(folder, RETRY_SECONDS="0", FREE_BYTES="0")


def start(folder: Path, points: dict[str, Any] | None = None) -> BaseProcess:
    """Start a runner on a data directory, with faults at some points; it ends when the directory's jobs have ended."""
    plan = ""
    if points:
        record = folder / "faults"
        record.mkdir(exist_ok=True)
        plan = json.dumps({"record": str(record), "points": points})
    process = _context.Process(target=_work, args=(str(folder), plan), daemon=True)
    process.start()
    return process


def _work(folder: str, plan: str) -> None:
    os.environ.pop(faults.VARIABLE, None)
    if plan:
        os.environ[faults.VARIABLE] = plan
    services = Services.open(settings_of(Path(folder)))
    runner = make_runner(services)
    while unfinished(services):
        runner.tend()
        if not runner.run_once():
            time.sleep(0.05)
    services.close()


def unfinished(services: Services) -> list[Job]:
    """The jobs that have not come to their end, of the last three."""
    return [job for job in services.jobs.list(limit=3) if not job.state.ended]


def delivered(folder: Path) -> int:
    """How many faults a directory's runners met."""
    record = folder / "faults"
    return len(list(record.iterdir())) if record.exists() else 0
