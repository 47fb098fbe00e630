"""`make soak`: an API and a runner with Ray, as processes, under jobs without end and SIGKILLs, until the time is up.

In the first half any of API, runner and Ray's workers is killed at random; in the second only Ray's workers, so that API and runner
live long enough for their growth to be seen. Every job's dataset is downloaded whole, checked and deleted, and so is the job. Ends
with 1 for a lost job, a wrong byte, too few kills, or growth.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sqlalchemy import create_engine, func, select

from service.jobs.database import events, jobs, metadata
from service.services import Services
from service.storage.collect import Scope, collect
from tests.faults.lines import documents
from tests.service.support import conversations, settings_in

LEASE_SECONDS = 8
PAUSE_SECONDS = (4.0, 16.0)
"""Between two kills."""
JOB_SECONDS = 900.0
"""A job that has not come to its end by then is lost: on a busy machine a Ray may take minutes to start, after every kill."""
RSS_GROWTH, RSS_SLACK = 1.15, 16 * 1024 * 1024
FD_SLACK = 8
WAITING = 2
"""Jobs that are under way at a time."""


@dataclass
class Sample:
    """What the processes hold at a moment of the second half."""

    rss: dict[str, int]
    fds: dict[str, int]


@dataclass
class SoakFigures:
    """What the soak did and found."""

    kills: Counter[str] = field(default_factory=Counter)
    succeeded: Counter[str] = field(default_factory=Counter)
    again: int = 0  # attempts after the first
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    grown: list[str] = field(default_factory=list)


class Stack:
    """The two processes on one data directory, each started again when it is gone."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.workers = workers
        self._logs = folder / "logs"
        self._logs.mkdir(parents=True)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.url = ""
        self.mind()

    def mind(self) -> None:
        """Start what does not run."""
        for name in ("api", "runner"):
            process = self._processes.get(name)
            if process is None or process.poll() is not None:
                self._start(name)

    def _start(self, name: str) -> None:
        environ = os.environ | {
            "LONGWEAVE_LEASE_SECONDS": str(LEASE_SECONDS),
            "LONGWEAVE_RETRY_SECONDS": "1",
            "LONGWEAVE_FREE_BYTES": "0",
            "LONGWEAVE_WORKERS": str(self.workers),
        }
        log = self._logs / f"{name}.{time.monotonic_ns()}"
        command = [sys.executable, "-m", "service.cli", name, "--data-dir", str(self.folder / "data")]
        command += ["--port", "0"] if name == "api" else []
        with log.open("wb") as sink:
            self._processes[name] = subprocess.Popen(command, env=environ, stdout=sink, stderr=subprocess.STDOUT)
        if name == "api":
            self.url = self._address(log)

    def _address(self, log: Path) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for word in log.read_text().split():
                if word.startswith("http://127.0.0.1:"):
                    return word.rstrip("/.,")
            time.sleep(0.1)
        message = f"the API said no address within a minute: {log.read_text()[-500:]}"
        raise AssertionError(message)

    def kill(self, victim: str) -> bool:
        """SIGKILL a process; whether there was one."""
        if victim != "ray worker":
            self._processes[victim].kill()
            self._processes[victim].wait()
            return True
        for child in self.process("runner").children(recursive=True):
            try:
                if "ray::" in child.name() or any("ray::" in part for part in child.cmdline()[:1]):
                    child.kill()
                    return True
            except psutil.Error:
                continue
        return False

    def process(self, name: str) -> psutil.Process:
        """A process of ours."""
        return psutil.Process(self._processes[name].pid)

    def sample(self) -> Sample:
        """What both hold now."""
        both = {name: self.process(name) for name in self._processes}
        return Sample(
            rss={name: process.memory_info().rss for name, process in both.items()},
            fds={name: process.num_fds() for name, process in both.items()},
        )

    def stop(self) -> None:
        """End both in good order."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            process.wait(60)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        """A request, made again while the API is away; raises HTTPError for what it refuses."""
        deadline = time.monotonic() + 90
        while True:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            request = urllib.request.Request(f"{self.url}{path}", body, sent, method=method)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return answer.read()
            except urllib.error.HTTPError as error:
                if error.code < 500 or time.monotonic() > deadline:
                    raise
            except (OSError, ValueError):
                if time.monotonic() > deadline:
                    raise
            self.mind()
            time.sleep(0.2)


class Soak:
    """Jobs of every kind, submitted, watched, checked and deleted, one step at a time."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self._stack = stack
        self._draws = np.random.default_rng(seed)
        self.figures = SoakFigures()
        self._right: dict[str, list[tuple[str, str]]] = {}
        self._waiting: dict[str, tuple[str, float]] = {}
        self._submitted = 0
        talks, texts = (self._upload(data) for data in (conversations(40), documents()))
        self._specs = {
            "skipalign": {"kind": "skipalign", "strategy": "outer", "source": {"upload": talks}, "shard_rows": 5},
            "cip": {"kind": "cip", "source": {"upload": texts}, "sequence_length": 512, "shard_tokens": 1024},
            "needle": {"kind": "needle", "lengths": [2048], "depths": 1, "repeats": 1, "tasks": ["passkey", "kv"]},
            "synl": {"kind": "synl", "samples": 2, "length": [2048], "shard_rows": 1},
            "mixture": {
                "kind": "mixture",
                "parts": [{"name": "talks", "weight": 1.0, "source": {"upload": talks}}],
                "total": 3000,
                "max_epochs": 50,
                "shard_tokens": 1000,
            },
        }

    def _upload(self, data: bytes) -> str:
        return json.loads(self._stack.ask("POST", "/v1/uploads", data, Content_Type="application/jsonl"))["id"]

    def step(self) -> None:
        """Keep jobs under way, and see to those that have ended."""
        while len(self._waiting) < WAITING:
            kind = list(self._specs)[self._submitted % len(self._specs)]
            self._submitted += 1
            body = json.dumps(self._specs[kind]).encode()
            job = json.loads(
                self._stack.ask(
                    "POST",
                    "/v1/jobs",
                    body,
                    Content_Type="application/json",
                    Idempotency_Key=f"{os.getpid()}-{self._submitted}",
                )
            )
            self._waiting[job["id"]] = (kind, time.monotonic())
        self.look()

    def look(self) -> None:
        """See to the jobs that have ended."""
        for ident, (kind, since) in list(self._waiting.items()):
            job = json.loads(self._stack.ask("GET", f"/v1/jobs/{ident}"))
            if job["state"] in ("succeeded", "failed", "cancelled"):
                del self._waiting[ident]
                self._ended(kind, job)
            elif time.monotonic() - since > JOB_SECONDS:
                del self._waiting[ident]
                self.figures.lost.append(f"{kind} {ident} is {job['state']} after {JOB_SECONDS:.0f} s")

    def drain(self) -> None:
        """See every job to its end."""
        while self._waiting:
            self._stack.mind()
            self.look()
            time.sleep(0.2)

    def _ended(self, kind: str, job: dict[str, Any]) -> None:
        figures = self.figures
        figures.again += job["attempt"] - 1
        if job["state"] != "succeeded":
            figures.lost.append(f"{kind} {job['id']}: {job['state']} {job['error']}")
            return
        where = f"/v1/datasets/{job['dataset_id']}"
        files = json.loads(self._stack.ask("GET", f"{where}/manifest"))["files"]
        for file in files:
            whole = self._stack.ask("GET", f"{where}/files/{file['path']}")
            if hashlib.sha256(whole).hexdigest() != file["sha256"]:
                figures.wrong.append(f"{kind} {job['id']} {file['path']}: other bytes than its manifest says")
        digests = [(file["path"], file["sha256"]) for file in files]
        if digests != self._right.setdefault(kind, digests):
            figures.wrong.append(f"{kind} {job['id']}: other bytes than the first of its spec")
        figures.succeeded[kind] += 1
        self._delete(where)
        self._delete(f"/v1/jobs/{job['id']}")

    def _delete(self, path: str) -> None:
        try:
            self._stack.ask("DELETE", path)
        except urllib.error.HTTPError as error:
            if error.code != 404:  # done by a try whose answer was lost
                raise


def run(stack: Stack, minutes: float, seed: int) -> SoakFigures:
    """The soak, up to the moment when the last job has ended."""
    draws, soak = np.random.default_rng(seed + 1), Soak(stack, seed)
    begun = time.monotonic()
    half, end = begun + 30 * minutes, begun + 60 * minutes
    kill_at = begun + draws.uniform(*PAUSE_SECONDS)
    sample_at = half
    while (now := time.monotonic()) < end:
        stack.mind()
        soak.step()
        if now >= kill_at:
            inside = ["ray worker"] if stack.workers else []
            victims = ["api", "runner", *inside] if now < half else inside
            if victims:
                victim = str(draws.choice(victims))
                soak.figures.kills[victim] += stack.kill(victim)
            kill_at = time.monotonic() + draws.uniform(*PAUSE_SECONDS)
        if now >= sample_at:
            soak.figures.samples.append(stack.sample())
            sample_at = now + 5
        time.sleep(0.1)
    print(f"  {minutes} minutes are over: {soak.figures.succeeded.total()} jobs", flush=True)
    soak.drain()
    return soak.figures


def growth(samples: list[Sample]) -> list[str]:
    """What has grown between the first and the last third of the samples, by their medians."""
    found: list[str] = []
    third = len(samples) // 3
    for name in samples[0].rss if third else ():
        for what in ("rss", "fds"):
            first, last = (
                statistics.median(getattr(sample, what)[name] for sample in part)
                for part in (samples[:third], samples[-third:])
            )
            most = first + FD_SLACK if what == "fds" else first * RSS_GROWTH + RSS_SLACK
            print(f"  {name} {what}: {first:,.0f} -> {last:,.0f}", flush=True)
            if last > most:
                found.append(f"{what} of {name}: {first:,.0f} -> {last:,.0f}")
    return found


def left_over(folder: Path, kills: int) -> list[str]:
    """What stands too much when everything has stopped: rows, files, temporaries; what killed runners left is collected first."""
    settings = settings_in(folder / "data")
    services = Services.open(settings)
    objects = services.objects
    works = {path.split("/")[1] for path in objects.list("work")}
    print(
        f"  work of {len(works)} jobs, {len(objects.list('datasets'))} files of datasets before collection", flush=True
    )
    found = [f"work of {len(works)} jobs after {kills} kills"] if len(works) > kills else []
    collect(services.leases, objects, settings.incoming, scope=Scope.JOBS, delete=True, age=0)
    found += [f"{path} after collection" for room in ("work", "datasets", "probe") for path in objects.list(room)]
    found += [f"{path} in incoming" for path in settings.incoming.iterdir()]
    services.close()
    engine = create_engine(settings.database_url)
    with engine.connect() as connection:
        rows = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
        }
    engine.dispose()
    print(f"  rows: {rows}", flush=True)
    return found + [f"{rows[table.name]} rows in {table.name}" for table in (jobs, events) if rows[table.name]]


def main() -> int:
    """Run the soak and print its figures."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="Ray's workers (1); 0: the runner builds itself")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    stack = Stack(folder, options.workers)
    try:
        figures = run(stack, options.minutes, options.seed)
    finally:
        stack.stop()
    print(f"kills {dict(figures.kills)}, jobs {dict(figures.succeeded)}, {figures.again} attempts again", flush=True)
    figures.grown += growth(figures.samples) + left_over(folder, figures.kills["runner"])
    print(f"lost {figures.lost}, wrong {figures.wrong}, grown {figures.grown}", flush=True)
    victims = ("api", "runner", "ray worker") if options.workers else ("api", "runner")
    quiet = [victim for victim in victims if not figures.kills[victim]]
    if quiet:
        print(f"never killed: {quiet}: too short a soak", flush=True)
    sound = not (figures.lost or figures.wrong or figures.grown or quiet) and len(figures.samples) >= 3
    if sound:
        shutil.rmtree(folder)
    else:
        print(f"what is left is in {folder}", flush=True)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
