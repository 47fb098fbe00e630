"""Restarts of PostgreSQL amid jobs, requests and commits: `stop -m immediate`, SIGKILL of the postmaster, short and past a lease.

The API and the runner are threads of this process, so that a campaign costs no start of either; what dies is the server, a real one.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from sqlalchemy import create_engine, func, select

from packing.dataset.errors import LongweaveError
from service.client import Client, RefusedError, UnreachableError, new_key
from service.commands.verify import verify
from service.engine.line import build_dataset
from service.jobs.database import datasets, events, jobs
from service.jobs.hints import Hints
from service.library import folder_of
from service.services import Services
from service.serving import ApiThread, listen, url_of
from tests.faults.campaigns import PATIENCE_SECONDS, SPEC, Figures
from tests.service.databases import PostgreSQL
from tests.service.support import conversations, make_runner, settings_in

PAUSE_SECONDS = 0.02
ENDED = ("succeeded", "failed", "cancelled")
PROBLEM = "application/problem+json"


@dataclass
class Found:
    """What a campaign on a database did and what came of it."""

    figures: Figures = field(default_factory=Figures)
    delivered: Counter[str] = field(default_factory=Counter[str])
    doubled: int = 0  # jobs more than were asked for, datasets more than jobs that succeeded, successes told twice
    charged: int = 0  # attempts more than a job needed
    odd: int = 0  # answers that were neither right nor a problem of 503
    away: int = 0  # answers of 503
    followed: int = 0  # jobs whose event streams told everything once, to the end
    noticed: Counter[str] = field(default_factory=Counter[str])  # what the runner met, by the first words of its log

    def told(self) -> str:
        """Whatever was counted besides."""
        rest = (
            f"{self.doubled} doubled, {self.charged} attempts more, {self.away} answers of 503, {self.odd} odd ones, "
            f"{self.followed} streams followed"
        )
        return f"{dict(self.delivered)}; {rest}; the runner met {dict(self.noticed)}"

    def sound(self) -> bool:
        """Whether nothing was lost, wrong, doubled or odd."""
        return not (self.figures.lost or self.figures.wrong or self.doubled or self.odd)


class Noticed(logging.Handler):
    """Counts what the runner warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts = Counter[str]()

    def emit(self, record: logging.LogRecord) -> None:
        """Count a line by its words, less what is filled in."""
        self.counts[" ".join(word for word in record.msg.split() if "%" not in word)] += 1

    def __enter__(self) -> Noticed:
        for name in ("longweave.runner", "longweave.hints"):
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(self, *_error: object) -> None:
        for name in ("longweave.runner", "longweave.hints"):
            logging.getLogger(name).removeHandler(self)


class House:
    """API and runner as threads on a PostgreSQL database that they reach by `url`; the campaign looks at it by `direct`.

    All jobs are of one source and spec but for their names; `right` are the digests that every one of them must come to.
    """

    def __init__(self, folder: Path, *, url: str, direct: str, build: Callable[..., Any] = build_dataset) -> None:
        folder.mkdir(parents=True)
        environ = {"DATABASE_URL": url, "LEASE_SECONDS": "3", "HEARTBEAT_SECONDS": "0.1", "RETRY_SECONDS": "0"}
        self.settings = settings_in(folder, FREE_BYTES="0", WORKERS="0", **environ)
        self._engine = create_engine(direct, pool_pre_ping=True)
        sock = listen("127.0.0.1", 0, keys_exist=lambda: False)
        self.url = url_of(sock)
        self._api = ApiThread(self.settings, sock)
        assert self._api.start()
        self._services, self._stopping, self._build = Services.open(self.settings), threading.Event(), build
        self.broken: list[BaseException] = []
        self._runner = threading.Thread(target=self._run, name="runner")
        self._runner.start()
        source = folder / "source.jsonl"
        source.write_bytes(conversations(20))
        with Client(self.url) as client:
            self._source = client.upload(source)["id"]
            first = self.wait(client.submit(self.spec("n"), key=new_key())["id"])
        self.right = self.digests(first)
        assert len(self.right) > 10, first

    def _run(self) -> None:
        """A runner that hands its job back starts again, as another."""
        while not self._stopping.is_set():
            try:
                with Hints(self._services.engine, idle_seconds=0.05, listening_seconds=0.5) as hints:
                    make_runner(self._services, stopping=self._stopping, build=self._build, hints=hints).run()
            except BaseException as error:  # it is the campaign's to report
                self.broken.append(error)
                return

    def spec(self, name: str) -> dict[str, Any]:
        """What is asked for. The name stands in the manifest and in nothing else."""
        return {**SPEC, "source": {"upload": self._source}, "name": name}

    def wait(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended, or when patience has."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with self._engine.connect() as connection:
                row = connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one()
            if row["state"] in ENDED or time.monotonic() > deadline or self.broken:
                return dict(row)
            time.sleep(PAUSE_SECONDS)

    def digests(self, job: dict[str, Any]) -> dict[str, str]:
        """The sha256 of every data file and picture of a job's dataset; of none where it does not verify."""
        place = Path(self.settings.data_dir) / "objects" / folder_of(job["target"])
        try:
            verify(place)
        except LongweaveError:
            return {}
        files = [path for path in place.rglob("*") if path.is_file() and path.suffix in (".parquet", ".json")]
        found = {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}
        return {path: digest for path, digest in found.items() if path != "manifest.json"}

    def counts(self) -> tuple[int, int, int]:
        """How many jobs there are, how many datasets, and how many times a success was told."""
        told = select(func.count()).select_from(events).where(events.c.type == "state", events.c.message == "succeeded")
        with self._engine.connect() as connection:
            rows = [
                connection.execute(select(func.count()).select_from(table)).scalar_one() for table in (jobs, datasets)
            ]
            return rows[0], rows[1], connection.execute(told).scalar_one()

    def close(self) -> None:
        """Stop the runner, then the API."""
        self._stopping.set()
        self._runner.join()
        self._services.close()
        self._api.stop()
        self._api.join()
        self._engine.dispose()


def check(house: House, asked: list[dict[str, Any]], found: Found) -> None:
    """Look at what became of the jobs that were asked for."""
    ended = [house.wait(job["id"]) for job in asked]
    good = [job for job in ended if job["state"] == "succeeded"]
    found.figures.jobs += len(ended)
    found.figures.lost += len(ended) - len(good)
    found.figures.wrong += sum(house.digests(job) != house.right for job in good)
    found.charged += sum(job["attempt"] - 1 for job in good)
    known, made, told = house.counts()
    succeeded = 1 + len(good)  # the first job is the house's own
    found.doubled += abs(known - 1 - len(asked)) + abs(made - succeeded) + abs(told - succeeded)
    assert not house.broken, house.broken


class Caller:
    """Submits jobs, reads, and follows events until told to end; every answer but 503 must be the right one."""

    def __init__(self, house: House, found: Found) -> None:
        self._house, self._found, self._ending = house, found, threading.Event()
        self.asked: list[dict[str, Any]] = []
        self._threads = [
            threading.Thread(target=work, name="caller") for work in (self._submit, self._read, self._follow)
        ]

    def __enter__(self) -> Caller:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _submit(self) -> None:
        with Client(self._house.url, pause=0.02) as client:
            while not self._ending.wait(0.2):
                key = new_key()
                while True:
                    try:
                        self.asked.append(client.submit(self._house.spec("n"), key=key))
                        break
                    except RefusedError as error:
                        self._found.away += error.status == 503
                        self._found.odd += error.status != 503
                    except UnreachableError:
                        self._found.odd += 1
                    time.sleep(PAUSE_SECONDS)

    def _follow(self) -> None:
        """Follow one job after the other: every event once, in order, up to the success."""
        with Client(self._house.url, pause=0.2) as client:
            while not self._ending.wait(PAUSE_SECONDS):
                if not self.asked:
                    continue
                told = list(client.events(self.asked[-1]["id"]))
                numbers = [event["id"] for event in told]
                states = [event["data"]["state"] for event in told if event["type"] == "state"]
                whole = numbers == sorted(set(numbers)) and states[0] == "queued" and states[-1] == "succeeded"
                self._found.odd += not whole
                self._found.followed += whole

    def _read(self) -> None:
        paths = ("/v1/jobs?limit=5", "/v1/datasets?limit=5", "/readyz")
        with httpx2.Client(base_url=self._house.url, timeout=30, trust_env=False) as http:
            while not self._ending.wait(0.03):
                for path in paths:
                    answer = http.get(path)
                    self._found.away += answer.status_code == 503
                    problem = answer.headers["content-type"] == PROBLEM or path == "/readyz"
                    self._found.odd += answer.status_code != 200 and not (answer.status_code == 503 and problem)


def restarts(house: House, server: PostgreSQL, count: int, draws: np.random.Generator) -> Found:
    """Crash and start the server `count` times under load; every tenth time it stays away for longer than a lease."""
    found = Found()
    with Noticed() as noticed, Caller(house, found) as caller:
        for number in range(count):
            time.sleep(draws.uniform(0.1, 1.2))
            way = ("SIGQUIT", "SIGKILL")[number % 2]
            down = house.settings.lease_seconds + 1 if number % 10 == 1 else float(draws.uniform(0, 0.3))
            server.crash(signal.Signals[way], down)
            found.delivered[way] += 1
            found.figures.delivered += 1
    check(house, caller.asked, found)
    found.noticed = noticed.counts
    return found
