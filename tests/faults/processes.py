"""SIGKILL of whatever runs: the runner, Ray's workers, its raylet and GCS, the API, all of `longweave serve`, while jobs go on.

A `longweave serve` with a local Ray of its own lives through the campaign, and an API beside it on the same database takes the jobs.
What the service does not start again by itself (an API, all of `serve`) is started again here, as Docker or systemd would.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from packing.dataset.errors import LongweaveError
from service.client import Client, RefusedError, UnreachableError, new_key
from service.commands.verify import verify
from service.library import folder_of
from service.processes import descendants, kill
from tests.faults.campaigns import Figures
from tests.service.support import conversations
from tests.service.test_serve import Served

SHARDS = 20
"""Of a job: enough that something is in flight whenever something dies."""
SPEC = {"kind": "skipalign", "strategy": "outer", "shard_rows": 10}
PATIENCE_SECONDS = 150.0
PAUSE_SECONDS = 0.05
WORDS = {
    "worker": ("ray::run_task", "ray::IDLE"),
    "agent": ("ray::DashboardAgent", "ray::RuntimeEnvAgent"),  # the raylet ends with either
    "raylet": ("raylet/raylet",),
    "gcs": ("gcs_server",),
    "runner": ("service.cli runner",),
    "serve": ("service.cli serve",),
}
"""By what a victim's command line is known."""
WEIGHTS = {"worker": 50, "api": 30, "runner": 6, "raylet": 5, "agent": 4, "gcs": 3, "serve": 2}
"""How often each is drawn, in the hundred; all but the first two cost a start of Ray."""


@dataclass
class Deaths:
    """What was killed and what came of it."""

    figures: Figures = field(default_factory=Figures)
    delivered: Counter[str] = field(default_factory=Counter[str])
    recovery: dict[str, list[float]] = field(
        default_factory=dict
    )  # from a job's last kill to its success, by what was killed
    again: int = 0  # requests for a job that were sent more than once, for their API died
    doubled: int = 0  # jobs more than were asked for
    left: int = 0  # processes that outlived what started them
    answers: Counter[int] = field(default_factory=Counter[int])  # to readers, by status; 0 where nobody answered

    def told(self) -> str:
        """Counts by victim with the longest recovery of each, and whatever else was counted."""
        times = (
            f"{name} {count} (recovery {max(self.recovery.get(name, [0.0])):.1f} s at most)"
            for name, count in self.delivered.most_common()
        )
        rest = f"{self.again} requests sent again, {self.doubled} jobs doubled, {self.left} processes left"
        return f"{', '.join(times)}; {rest}; answers to readers {dict(self.answers)}"

    def sound(self) -> bool:
        """Whether nothing was lost, wrong, doubled or left, and no reader met an unexpected error."""
        bad = [status for status in self.answers if status not in (0, 200, 503)]
        return not (self.figures.lost or self.figures.wrong or self.doubled or self.left or bad)


class Stack:
    """`longweave serve` and one API more, on one data directory. All jobs have one spec, and `right` the digests they must come to."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self._folder, self._environ = folder, {"WORKERS": "2", "FREE_BYTES": "0", **environ}
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        self._log = (folder / "api.log").open("a")
        self._port, self.left, self.asked = 0, 0, 0
        self._api: subprocess.Popen[str] | None = None
        self._known: dict[int, str] = {}
        self.served = Served(self.data, **self._environ)
        try:
            self.start_api()
            self.served.wait_ready(90)
            (folder / "source.jsonl").write_bytes(conversations(SHARDS * 10))
            with Client(self.url) as client:
                self._source = client.upload(folder / "source.jsonl")["id"]
            self.first = self.wait(self.submit()["id"])
            self.right = self.digests(self.first)
            assert len(self.right) > SHARDS, self.first
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The API that takes the jobs."""
        return f"http://127.0.0.1:{self._port}"

    def start_api(self) -> None:
        """Start the API beside `serve`, each time on the same port."""
        own = {f"LONGWEAVE_{key}": text for key, text in self._environ.items()}
        words = ["api", "--json", "--port", str(self._port), "--data-dir", str(self.data)]
        self._api = subprocess.Popen(
            [sys.executable, "-m", "service.cli", *words],
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._api.stdout is not None
        self._port = int(json.loads(self._api.stdout.readline())["url"].rpartition(":")[2])

    def stop_api(self, number: int) -> None:
        """Send the API a signal and wait for its end."""
        if self._api is not None:
            self._api.send_signal(number)
            self._api.wait(20)
            self._api.stdout.close()

    def submit(self) -> dict[str, Any]:
        """A job like all others, asked for under one Idempotency-Key until it is there; `tries` says how often that took."""
        key, tries = new_key(), 0
        spec = {**SPEC, "source": {"upload": self._source}}
        self.asked += 1

        def ask(client: Client) -> dict[str, Any]:
            nonlocal tries
            tries += 1
            return client.submit(spec, key=key)

        return self._ask(ask) | {"tries": tries}

    def job(self, job_id: str) -> dict[str, Any]:
        """A job as the API has it."""
        return self._ask(lambda client: client.job(job_id))

    def jobs(self) -> int:
        """How many jobs there are."""
        return len(self._ask(lambda client: client.jobs(state=None, kind=None, limit=100_000)))

    def _ask(self, call: Callable[[Client], Any]) -> Any:
        """What the API answers, as soon as there is one."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with Client(self.url, pause=0.02) as client:
                    return call(client)
            except (UnreachableError, RefusedError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_SECONDS)

    def wait(self, job_id: str, until: Callable[[dict[str, Any]], bool] = lambda _job: False) -> dict[str, Any]:
        """The job when it has ended or is as we want it, or when patience is at its end."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (job := self.job(job_id))["state"] in ("queued", "running") and not until(job):
            if time.monotonic() > deadline:
                break
            time.sleep(PAUSE_SECONDS)
        return job

    def kill(self, victim: str, draws: np.random.Generator) -> bool:
        """SIGKILL a process; False where there is none of the kind now. What nobody else starts again is started again here."""
        if victim == "api":
            self.stop_api(signal.SIGKILL)
            self.start_api()
            return True
        lines = {pid: line for pid, line in self.running().items() if any(word in line for word in WORDS[victim])}
        pids = sorted(pid for pid, line in lines.items() if "IDLE" not in line) or sorted(lines)
        if not pids:
            return False
        os.kill(pids[int(draws.integers(len(pids)))], signal.SIGKILL)
        if victim == "serve":
            self._serve_again()
        return True

    def running(self) -> dict[int, str]:
        """All that runs of `serve`, by pid, with its command line. Ray's agents are known by their parents alone: their titles overwrite
        the mark in their environment."""
        pid = self.served.process.pid
        self._known = {found: _line(found) for found in [pid, *descendants(pid)]}
        return self._known

    def _serve_again(self) -> None:
        """All of it again, once the old one's processes have ended themselves; those that have not are counted."""
        old, known = self.served, self._known
        old.process.wait(20)
        self.left += _left(lambda: old.processes() | _still(known))
        old.close()
        self.served = Served(self.data, **self._environ)

    def dataset(self, job: dict[str, Any]) -> Path:
        """The directory of a job's dataset."""
        return self.data / "objects" / folder_of(job["dataset_id"])

    def digests(self, job: dict[str, Any]) -> dict[str, str]:
        """The sha256 of every file of a job's dataset, which verifies; of none where there is no dataset."""
        if job["dataset_id"] is None:
            return {}
        place = self.dataset(job)
        with contextlib.suppress(LongweaveError):
            verify(place)
            files = sorted(path for path in place.rglob("*") if path.is_file())
            return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        return {}

    def tidy(self, job: dict[str, Any]) -> None:
        """Forget a finished job's files, so that a long campaign needs no more room than a short one."""
        if job["dataset_id"] is not None:
            shutil.rmtree(self.dataset(job), ignore_errors=True)

    def close(self) -> None:
        """Stop everything; what is left then is counted and ended."""
        self.stop_api(signal.SIGTERM)
        known = self.running()
        _, left = self.served.stop(signal.SIGTERM)
        left |= _still(known)
        self.left += len(left)
        kill(left)
        self.served.close()
        self._log.close()


def _line(pid: int) -> str:
    """A process's command line; "" where it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def _still(known: dict[int, str]) -> dict[int, str]:
    """Those of the processes that still run, as what they were."""
    return {pid: line for pid, line in known.items() if line and _line(pid) == line}


def _left(processes: Callable[[], dict[int, str]], seconds: float = 15.0) -> int:
    """How many processes there still are after a while."""
    deadline = time.monotonic() + seconds
    while (left := len(processes())) and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
    return left


class Readers:
    """Somebody who reads from both APIs all the while, and counts the answers by status."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self.answers, self._ending = stack, Counter[int](), threading.Event()
        self._thread = threading.Thread(target=self._read, name="reader")

    def __enter__(self) -> Readers:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.set()
        self._thread.join()

    def _read(self) -> None:
        with httpx2.Client(timeout=30, trust_env=False) as http:
            while not self._ending.wait(0.3):
                for base in (self._stack.url, self._stack.served.url):
                    for path in ("/readyz", "/v1/jobs?limit=3", "/v1/datasets?limit=3"):
                        try:
                            self.answers[http.get(base + path).status_code] += 1
                        except httpx2.HTTPError:
                            self.answers[0] += 1


def kills(stack: Stack, victims: Sequence[str], draws: np.random.Generator) -> Deaths:
    """Kill one of each of `victims` at a drawn moment of a job, one or (where draws say so) two in the same job."""
    found, waiting = Deaths(), list(reversed(victims))
    with Readers(stack) as readers:
        while waiting:
            _one_job(stack, waiting, draws, found)
    found.answers = readers.answers
    found.figures.recovery = [seconds for times in found.recovery.values() for seconds in times]
    found.doubled = stack.jobs() - stack.asked
    return found


def _one_job(stack: Stack, waiting: list[str], draws: np.random.Generator, found: Deaths) -> None:
    """A job, and whoever dies in the middle of it."""
    submitted = _submit(stack, waiting, draws, found)
    found.again += submitted["tries"] > 1
    last, killed_at = "", 0.0
    for _ in range(1 + int(draws.integers(4) == 0)):
        if not waiting:
            break
        first, victim = int(draws.integers(1, SHARDS // 2)), waiting[-1]
        done = stack.job(submitted["id"])["progress"]["shards_done"] if last else 0

        def reached(job: dict[str, Any], least: int = done + first) -> bool:
            return job["state"] == "running" and job["progress"]["shards_done"] >= least

        at = stack.wait(submitted["id"], reached)
        if at["state"] != "running" or not stack.kill(victim, draws):
            break
        killed_at, last = time.monotonic(), waiting.pop()
        found.delivered[last] += 1
        found.figures.delivered += 1
    job = stack.wait(submitted["id"])
    if last:
        found.recovery.setdefault(last, []).append(time.monotonic() - killed_at)
    found.figures.jobs += 1
    found.figures.lost += job["state"] != "succeeded"
    found.figures.wrong += stack.digests(job) != stack.right
    stack.tidy(job)


def _submit(stack: Stack, waiting: list[str], draws: np.random.Generator, found: Deaths) -> dict[str, Any]:
    """Ask for a job; where it is the API's turn to die it may be now, with the request under way."""
    if waiting[-1] != "api" or draws.integers(2):
        return stack.submit()
    made: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: made.append(stack.submit()))
    asking.start()
    time.sleep(draws.uniform(0, 0.05))
    stack.kill(waiting.pop(), draws)
    asking.join(PATIENCE_SECONDS)
    found.delivered["api"] += 1
    found.figures.delivered += 1
    return made[0]


def drawn(count: int, draws: np.random.Generator) -> list[str]:
    """`count` victims by their weights."""
    weights = np.array(list(WEIGHTS.values()), dtype=float)
    return [str(name) for name in draws.choice(list(WEIGHTS), size=count, p=weights / weights.sum())]
