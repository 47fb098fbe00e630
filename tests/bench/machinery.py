"""What the machinery costs around the work: whole jobs (claim, plan, tasks over Ray, receipts, manifest, the database) by a runner of
this process and two Ray workers, by the wall's clock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from service.engine import executor
from service.engine.executor import InlineExecutor, RayExecutor
from service.jobs.job import State
from service.jobs.runner import Parts, Runner
from service.jobs.store import Request
from service.processes import descendants
from service.services import Services
from service.settings import Settings
from service.storage.intake import take_in
from tests.bench import builds, noop
from tests.bench.measure import Result, measure

WORKERS = 2
TRIES = 8
LARGE = 8
"""Shards of 4 M tokens, the half of what a spec that says nothing has: a second worker is for jobs that take a while."""


class Floor:
    """A service in a folder, and a runner whose executor is ours to choose; `seconds` is where tasks write what they took."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.services = Services.open(Settings.from_environment({}, data_dir=folder / "service"))
        self.seconds = folder / "seconds"
        os.environ[noop.RECORD] = str(self.seconds)
        noop.register()

    def upload(self, path: Path) -> str:
        """A file taken in, as an upload's id."""
        upload = self.services.catalog.new_upload_id()
        record = take_in(path, name=path.name, objects=self.services.objects, prefix=f"uploads/{upload}")
        self.services.catalog.add_upload(upload, record.to_json())
        return upload

    def job(self, runner_executor: Any, **spec: Any) -> tuple[float, list[tuple[int, float]]]:
        """Run a job; the seconds from the submission to its end, and (process, seconds) of each of its tasks."""
        self.seconds.unlink(missing_ok=True)
        services = self.services
        parts = Parts(
            settings=replace(services.settings, workers=WORKERS),
            store=services.leases,
            catalog=services.catalog,
            objects=services.objects,
            executor=runner_executor,
        )
        begun = time.perf_counter()
        job, _ = services.jobs.submit(Request(kind=spec["kind"], name="bench", spec=spec, metadata={}))
        runner = Runner(parts, stopping=services.stopping)
        runner.run_once()
        took = time.perf_counter() - begun
        ended = services.jobs.get(job.id)
        if ended.state is not State.SUCCEEDED:
            raise RuntimeError(f"the job {ended.state}: {ended.error}")
        lines = self.seconds.read_text().splitlines() if self.seconds.exists() else []
        tasks = [(int(process), float(seconds)) for process, seconds in map(str.split, lines)]
        return took, tasks

    def close(self) -> None:
        """Close the database."""
        self.services.close()


@contextmanager
def ray() -> Iterator[RayExecutor]:
    """Two workers of a local Ray, whose tasks say what they took."""
    product, executor.run_task = executor.run_task, noop.timed_task
    try:
        with RayExecutor(workers=WORKERS) as running:
            yield running
    finally:
        executor.run_task = product


@contextmanager
def one_worker(running: RayExecutor) -> Iterator[RayExecutor]:
    """The same Ray with one of its two CPUs taken by nobody."""
    import ray as library

    class Idler:
        def here(self) -> bool:
            return True

    idler = library.remote(num_cpus=1)(Idler).remote()
    library.get(idler.here.remote())
    running._workers = 1
    try:
        yield running
    finally:
        running._workers = WORKERS
        library.kill(idler)


def results(folder: Path, *, short: bool, rounds: int) -> Iterator[Result]:
    """Cost of a shard, share of the machinery, and what a second worker brings."""
    many, shards, tokens = (40, 6, 10_000) if short else (10_000, 100, 400_000)
    real = {"kind": "synl", "samples": shards * tokens // 10_000, "length": [10_000], "shard_tokens": tokens}
    few = real | {"samples": max(2, shards // 5) * tokens // 10_000}
    large = few if short else real | {"samples": LARGE * 400, "shard_tokens": 4_000_000}
    floor = Floor(folder)
    try:
        with ray() as running:
            floor.job(running, **(few | {"seed": 99}))  # both workers are up and warm
            yield from _noop(floor, running, many, rounds)
            yield _overhead(floor, running, real, rounds)
            yield from _second(floor, running, large, rounds)
    finally:
        floor.close()


def _noop(floor: Floor, running: RayExecutor, shards: int, rounds: int) -> Iterator[Result]:
    """Milliseconds a shard that holds nothing: over Ray, and in the runner itself, where what is left is the store and the plan.

    The large one is run once: it is ten thousand measurements."""
    over_ray: list[float] = []
    inline: list[float] = []
    few = max(20, shards // 20)
    for seed in range(rounds):
        over_ray.append(1000 * floor.job(running, kind="noop", shards=few, seed=seed)[0] / few)
        inline.append(1000 * floor.job(InlineExecutor(), kind="noop", shards=few, seed=seed)[0] / few)
    whole = 1000 * floor.job(running, kind="noop", shards=shards)[0] / shards
    what = "a job that does nothing"
    yield measure(what, f"{few:,} shards over Ray, two workers", over_ray, "ms a shard", clock="wall")
    yield measure("", f"{shards:,} shards over Ray, two workers, one run", [whole], "ms a shard", clock="wall")
    yield measure("", f"{few:,} shards in the runner itself", inline, "ms a shard", clock="wall")


def _overhead(floor: Floor, running: RayExecutor, spec: dict[str, Any], rounds: int) -> Result:
    """Which share of two workers' time passes outside their tasks."""
    shares: list[float] = []
    seconds: list[float] = []
    for seed in range(rounds):
        took, tasks = floor.job(running, **spec, seed=seed)
        busy = sum(seconds for _, seconds in tasks)
        shares.append(100 * (1 - busy / (WORKERS * took)))
        seconds.append(busy / len(tasks))
    note = f"{len(tasks)} `synl` shards of {sorted(seconds)[len(seconds) // 2]:.2f} s; shards are made for 2 to 10 s"
    return measure("the machinery's share of a job", "Longweave", shares, "%", most=5, clock="wall", note=note)


def _second(floor: Floor, running: RayExecutor, spec: dict[str, Any], rounds: int) -> Iterator[Result]:
    """How many times as fast two workers are as one, turn by turn; and two processes that share nothing, which is what the machine has
    to give."""
    ratios: list[float] = []
    apart: list[float] = []
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as processes:
        for seed in range(rounds):
            with one_worker(running):
                alone = _warm(floor, running, spec, processes=1, seed=seed)
            ratios.append(alone / _warm(floor, running, spec, processes=WORKERS, seed=seed))
            list(processes.map(_build_apart, [spec] * WORKERS))
            begun = time.perf_counter()
            list(processes.map(_build_apart, [spec]))
            middle = time.perf_counter()
            list(processes.map(_build_apart, [spec] * WORKERS))
            apart.append(WORKERS * (middle - begun) / (time.perf_counter() - middle))
    line = measure("a second worker", "Longweave", ratios, "times as fast", clock="wall")
    yield replace(line, aim="at least 1.8", met=(line.figure or 0.0) >= 1.8)
    note = "each builds the same dataset by itself: what the machine has to give"
    yield measure("", "two processes that share nothing", apart, "times as fast", clock="wall", note=note)


def _warm(floor: Floor, running: RayExecutor, spec: dict[str, Any], *, processes: int, seed: int) -> float:
    """Seconds of a job whose workers have had one before: Ray starts a process when it is wanted, which takes as long as many tasks."""
    before: set[int] = set()
    for _ in range(TRIES):
        took, tasks = floor.job(running, **spec, seed=seed)
        used = {process for process, _ in tasks}
        if used == before and len(used) == processes:
            return took
        before = used
    message = f"no two jobs, one after the other, were run by the same {processes} workers"
    raise RuntimeError(message)


def _build_apart(spec: dict[str, Any]) -> int:
    return builds.tokens_of_build(**spec)


def memory(folder: Path, *, short: bool) -> Iterator[Result]:
    """The largest resident set of a worker, kind by kind: the kernel's high-water mark, put back before each job."""
    floor = Floor(folder)
    try:
        with ray() as running:
            made = {}
            for kind, spec in _specs(folder, floor, short=short).items():
                yield _peak(floor, running, kind, spec)
                made[kind] = _newest(floor)
            sources = [
                {"name": kind, "weight": 0.5, "source": {"dataset": made[kind]}} for kind in ("skipalign", "cip")
            ]
            tokens = 20_000 if short else 20_000_000
            mixture = {"kind": "mixture", "parts": sources, "unit": "tokens", "total": tokens, "max_length": 32_768}
            yield _peak(floor, running, "mixture", mixture | {"max_epochs": 100})
    finally:
        floor.close()


def sustained(folder: Path, *, short: bool, rounds: int) -> Iterator[Result]:
    """`cip` over 2 GB of text with two workers, from the claim to the commit: the corpus was taken in before."""
    size, copies = (400_000, 2) if short else (64_000_000, 32)
    floor = Floor(folder)
    try:
        once, many = folder / "once.jsonl", folder / "many.jsonl"
        builds.documents(once, size)
        lines = once.read_text(encoding="utf-8").splitlines()
        with many.open("w", encoding="utf-8") as sink:
            for copy in range(copies):
                # Another beginning for every copy of a document: no two texts are equal.
                sink.writelines(f"{_marked(line, copy)}\n" for line in lines)
        begun = time.perf_counter()
        spec = {"kind": "cip", "source": {"upload": floor.upload(many)}, "sequence_length": 32_768}
        taken_in = many.stat().st_size / 1e6 / (time.perf_counter() - begun)
        with ray() as running:
            floor.job(running, kind="noop", shards=8)
            rates: list[float] = []
            for seed in range(rounds):
                took, _ = floor.job(running, **spec, seed=seed)
                dataset = floor.services.catalog.dataset(_newest(floor))
                rates.append(dataset.tokens / took / 1e6)
        note = f"{many.stat().st_size / 1e9:.2f} GB of text, taken in at {taken_in:.0f} MB/s before"
        line = measure("`cip`, a large corpus, two workers", "Longweave", rates, "M tokens/s", clock="wall", note=note)
        yield replace(line, aim="at least 30", met=(line.figure or 0.0) >= 30)
    finally:
        floor.close()


def _marked(line: str, copy: int) -> str:
    """A document as a line of JSONL, with the number of its copy in its id and before its text."""
    return line.replace('"id": "d', f'"id": "{copy}-d', 1).replace('"text": "', f'"text": "{copy}. ', 1)


def _specs(folder: Path, floor: Floor, *, short: bool) -> dict[str, dict[str, Any]]:
    texts, talks = folder / "texts.jsonl", folder / "talks.jsonl"
    builds.documents(texts, 600_000 if short else 64_000_000)
    builds.conversations(talks, 600_000 if short else 64_000_000)
    whole, size = folder / "whole.jsonl", 300_000 if short else 99_000_000
    whole.write_text(json.dumps({"text": "\n\n".join(builds.prose(size))[:size]}) + "\n", encoding="utf-8")
    probes = {"kind": "needle", "license": "CC0-1.0"}
    return {
        "cip": {"kind": "cip", "source": {"upload": floor.upload(texts)}, "sequence_length": 32_768},
        f"cip, one document of {size / 1e6:.3g} MB": {
            "kind": "cip",
            "source": {"upload": floor.upload(whole)},
            "sequence_length": 32_768,
        },
        "skipalign": {
            "kind": "skipalign",
            "source": {"upload": floor.upload(talks)},
            "strategy": "inner",
            "packing": "best_fit",
            "max_length": 4096,
        },
        "synl": {"kind": "synl", "samples": 4 if short else 400, "length": [4096] if short else [65_536]},
        "needle": probes
        | {
            "lengths": [4096] if short else [131_072],
            "depths": 2 if short else 5,
            "repeats": 1 if short else 4,
        },
        "needle, probes of 2,097,152 tokens": probes
        | {"tasks": ["niah_single"], "lengths": [8192] if short else [2_097_152], "depths": 2, "repeats": 2},
    }


def _newest(floor: Floor) -> str:
    return floor.services.catalog.datasets(limit=1)[0].id


def _peak(floor: Floor, running: RayExecutor, kind: str, spec: dict[str, Any]) -> Result:
    floor.job(running, kind="noop", shards=8, seed=1)
    for process in _workers():
        (Path("/proc") / process / "clear_refs").write_text("5")
    took, tasks = floor.job(running, **spec)
    used = {str(process) for process, _ in tasks}
    peaks = [_high_water(process) for process in used if (Path("/proc") / process).exists()]
    what = "largest resident set of a worker" if kind == "cip" else ""
    note = f"{len(tasks)} tasks, {took:.0f} s"
    return measure(what, kind, [max(peaks)], "MiB", most=1024, note=note)


def _workers() -> list[str]:
    """The worker processes of our Ray, by id."""
    names = {str(process): Path("/proc") / str(process) / "cmdline" for process in descendants(os.getpid())}
    return [process for process, place in names.items() if place.exists() and place.read_bytes().startswith(b"ray::")]


def _high_water(process: str) -> float:
    status = (Path("/proc") / process / "status").read_text()
    return int(status.split("VmHWM:", 1)[1].split()[0]) / 1024
