"""Campaigns against an S3 store that answers badly: see store_proxy.py for what it does.

Every job of them succeeds with the right bytes, or ends as a transient error after three attempts that each met a fault; no manifest
stands before its files.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np

from packing.dataset.manifest import Manifest
from service.jobs.failures import FailureClass, class_of
from service.jobs.job import Job, State
from service.jobs.store import Request
from service.library import folder_of
from service.services import Services
from service.storage import objects
from service.storage.intake import take_in
from tests.faults.store_proxy import CONDITIONAL, FAULTS, OPERATIONS, Order, StoreProxy
from tests.service.every_kind import documents
from tests.service.object_store import ObjectStore
from tests.service.support import make_runner, settings_in

SPEC = {"kind": "cip", "sequence_length": 512, "chunks": 2, "shard_tokens": 1024}
"""One survey that keeps tokens, three shards with tables of their own: it makes every operation there is."""
ATTEMPTS = 3
CLIENT_SECONDS, STALL_SECONDS = 2.0, 2.5
"""How long the client waits for an answer, and how long one is kept back: thirty seconds is what a client waits in earnest."""
TRIES = 3
"""How often the client tries one request in these campaigns; six times in earnest."""


@dataclass
class StoreFigures:
    """What a campaign did and found."""

    delivered: Counter[tuple[str, str]] = field(default_factory=Counter)  # by operation and fault
    jobs: int = 0
    again: int = 0  # attempts that ended with an error
    failed: Counter[str] = field(default_factory=Counter)  # jobs that ended so, by code
    lost: int = 0  # jobs that ended otherwise than they may
    wrong: int = 0  # datasets with other bytes
    manifests: int = 0  # put, and looked at when they were
    early: int = 0  # manifests that stood before one of their files


@contextmanager
def proxied(store: ObjectStore) -> Generator[StoreProxy]:
    """A proxy before `store`, and this process's environment and patience made for it."""
    proxy = StoreProxy(store.url, stall_seconds=STALL_SECONDS)
    proxy.start()
    ours = store.environ | {"AWS_ENDPOINT_URL": proxy.url, "AWS_TIMEOUT": f"{CLIENT_SECONDS * 1000:.0f}ms"}
    before = {name: os.environ.get(name) for name in ours}
    patience = objects.RETRIES
    os.environ.update(ours)
    objects.RETRIES = {
        "max_retries": TRIES - 1,
        "retry_timeout": timedelta(seconds=20),
        "backoff": {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5), "base": 2},
    }
    try:
        yield proxy
    finally:
        objects.RETRIES = patience
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        proxy.stop()


class StoreWorld:
    """A service on the store behind a proxy, with one source and the digests that every job comes to."""

    def __init__(self, folder: Path, proxy: StoreProxy) -> None:
        folder.mkdir(parents=True)
        self.proxy = proxy
        url = f"s3://bucket/{folder.name}"
        self.services = Services.open(settings_in(folder, RETRY_SECONDS="0", FREE_BYTES="0", OBJECTS_URL=url))
        self._runner = make_runner(self.services)
        local = folder / "source.jsonl"
        local.write_bytes(documents())
        upload = self.services.catalog.new_upload_id()
        record = take_in(local, name="source.jsonl", objects=self.services.objects, prefix=f"uploads/{upload}")
        self.services.catalog.add_upload(upload, record.to_json())
        self._spec = {**SPEC, "source": {"upload": upload}}
        proxy.asked.clear()
        first = self.submit()
        assert self._runner.run_once()
        assert self.services.jobs.get(first.id).state is State.SUCCEEDED
        self.passes = Counter(proxy.asked)
        assert set(self.passes) == set(OPERATIONS), "a job no longer makes every operation"
        self.right = self.digests(first)

    def submit(self) -> Job:
        """A job like all others."""
        return self.services.jobs.submit(Request(kind="cip", name="n", spec=self._spec, metadata={}))[0]

    def digests(self, job: Job) -> dict[str, str]:
        """The sha256 of the manifest and of every file it names, as they stand in the store."""
        store, folder = self.services.objects, folder_of(job.target)
        whole = Manifest.from_bytes(store.read(f"{folder}/manifest.json"), where=folder)
        paths = ["manifest.json", *(file.path for file in (*whole.files, *whole.documents))]
        return {path: hashlib.sha256(store.read(f"{folder}/{path}")).hexdigest() for path in paths}

    def meet(self, order: Order, figures: StoreFigures) -> None:
        """Have a job meet an order's faults, and judge how it ended."""
        before = sum(self.proxy.delivered.values())
        job = self.submit()
        self.proxy.order = order
        codes: list[str] = []
        while not (now := self.services.jobs.get(job.id)).state.ended and len(codes) < ATTEMPTS:
            assert self._runner.run_once()
            now = self.services.jobs.get(job.id)
            if now.error is not None and now.state is not State.SUCCEEDED:
                codes.append(now.error["code"])
        self.proxy.order = None
        met = sum(self.proxy.delivered.values()) - before
        figures.jobs += 1
        figures.again += len(codes)
        transient = all(class_of(code) is FailureClass.TRANSIENT for code in codes)
        if now.state is State.SUCCEEDED:
            figures.wrong += self.digests(job) != self.right
            figures.lost += not transient or len(codes) > met
        else:
            figures.failed[codes[-1] if codes else str(now.state)] += 1
            figures.lost += now.state is not State.FAILED or not transient or met < ATTEMPTS or len(codes) < ATTEMPTS
        for prefix in (f"work/{job.id}", folder_of(job.target)):
            self.services.objects.delete_prefix(prefix)

    def close(self) -> None:
        """Close the database."""
        self.services.close()


def pairs() -> Iterator[tuple[str, str]]:
    """Every operation with every fault it can meet: only what creates is answered with 412."""
    for operation in OPERATIONS:
        for fault in FAULTS:
            if fault not in CONDITIONAL or operation == "create manifest":
                yield operation, fault


def drawn(seed: int) -> list[tuple[str, str]]:
    """A few of the pairs, drawn so that every operation and every fault is among them; few of those that take time."""
    draws = np.random.default_rng(seed)
    every = list(pairs())
    order = sorted((every[number] for number in draws.permutation(len(every))), key=lambda pair: "stall" in pair[1])
    chosen: list[tuple[str, str]] = []
    for pair in order:
        if any(pair[side] not in {other[side] for other in chosen} for side in (0, 1)):
            chosen.append(pair)
    return chosen


def bad_answers(world: StoreWorld, chosen: Sequence[tuple[str, str]], seed: int) -> StoreFigures:
    """A job for every pair of operation and fault, which meets it at a drawn pass: once, or (no stalls) until an attempt has failed."""
    draws, figures = np.random.default_rng(seed), StoreFigures()
    world.proxy.delivered.clear()
    world.proxy.manifests = 0
    world.proxy.early.clear()
    for operation, fault in chosen:
        nth = int(draws.integers(1, world.passes[operation] + 1))
        times = 1 if fault.startswith("stall") else int(draws.choice([1, TRIES + 1]))
        world.meet(Order(operation, fault, nth=nth, times=times), figures)
    figures.delivered = Counter(world.proxy.delivered)
    figures.manifests, figures.early = world.proxy.manifests, len(world.proxy.early)
    return figures
