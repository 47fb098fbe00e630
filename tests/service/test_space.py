"""Full disks: seen before work begins, and wherever a write meets one; the API stays up and goes on when there is room again."""

from __future__ import annotations

import errno
import json
import resource
from collections import Counter, namedtuple
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from service import faults
from service.jobs.job import State
from service.problems import InsufficientStorageError
from service.storage import space
from service.storage.objects import Objects
from tests.service.support import assert_problem, conversations, make_runner, settings_in, spec_for, upload
from tests.service.test_runner import queue

Usage = namedtuple("Usage", "total used free")


def disk_of(monkeypatch, *free):
    """A disk with so much left, one figure after the other, the last for good."""
    left = list(free)
    monkeypatch.setattr(
        space.shutil, "disk_usage", lambda _: Usage(10**12, 0, left.pop(0) if len(left) > 1 else left[0])
    )


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path, RETRY_SECONDS="0", HEARTBEAT_SECONDS="0.05")


@pytest.fixture
def services(settings):
    from service.services import Services

    opened = Services.open(settings)
    yield opened
    opened.close()


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Plant faults in this process; returns how many were delivered."""
    record = tmp_path / "faults"
    record.mkdir()

    def planted(points):
        monkeypatch.setattr(faults, "_passes", Counter())
        monkeypatch.setenv(faults.VARIABLE, json.dumps({"record": str(record), "points": points}))

        def delivered():
            count = len(list(record.iterdir()))
            for mark in record.iterdir():
                mark.unlink()
            return count

        return delivered

    return planted


def test_room_is_asked_for_with_a_margin_and_a_reserve(tmp_path, monkeypatch):
    disk_of(monkeypatch, 1_400)
    space.require_room(tmp_path, 1_000, reserve=100)
    with pytest.raises(InsufficientStorageError, match=r"1,400 bytes free and this needs 1,401"):
        space.require_room(tmp_path, 1_000, reserve=101)
    space.require_room(None, 10**15, reserve=0)


def test_a_job_without_room_is_refused_before_anything_is_built(services, monkeypatch):
    job = queue(services)
    before = services.objects.list("")
    disk_of(monkeypatch, 1000)
    runner = make_runner(services)
    runner.run_once()
    assert services.jobs.get(job.id).state is State.QUEUED  # something may be removed meanwhile: once more
    runner.run_once()
    failed = services.jobs.get(job.id)
    assert (failed.state, failed.attempt, failed.error["code"]) == (State.FAILED, 2, "insufficient_storage")
    assert services.objects.list("") == before
    monkeypatch.undo()
    again = queue(services)
    make_runner(services).run_once()
    assert services.jobs.get(again.id).state is State.SUCCEEDED


def test_a_disk_that_fills_during_the_build_ends_it(services, monkeypatch):
    job = queue(services, shard_rows=1)  # twenty shards: looked at once more after sixteen
    disk_of(monkeypatch, 10**12, 1000)
    make_runner(services).run_once()
    waiting = services.jobs.get(job.id)
    assert (waiting.state, waiting.error["code"]) == (State.QUEUED, "insufficient_storage")
    assert waiting.progress.shards_done >= 16 or len(services.objects.list(f"work/{job.id}")) > 16


def test_no_space_at_any_write_costs_an_attempt_and_nothing_else(services, plant, monkeypatch):
    whole = queue(services)
    make_runner(services).run_once()
    right = services.library.manifest(services.catalog.dataset(whole.target)).files
    hits = 0
    for nth in range(1, 60):
        job = queue(services)
        delivered = plant({"object_write": {"do": "full", "nth": nth}})
        runner = make_runner(services)
        runner.run_once()
        monkeypatch.delenv(faults.VARIABLE)
        if not delivered():
            assert services.jobs.get(job.id).state is State.SUCCEEDED
            break
        hits += 1
        waiting = services.jobs.get(job.id)
        assert (waiting.state, waiting.error["code"]) == (State.QUEUED, "insufficient_storage"), nth
        assert services.objects.size(f"datasets/{job.target}/manifest.json") is None
        assert not [path for path in services.objects.list(f"work/{job.id}") if "/partial/" in path]
        runner.run_once()
        assert services.jobs.get(job.id).state is State.SUCCEEDED
        assert services.library.manifest(services.catalog.dataset(job.target)).files == right
    # four shards, each with a mark, a file and a receipt, the header, the documents and the manifest
    assert hits >= 4 * 3 + 1 + 3


def test_a_disk_that_stays_full_fails_the_job_in_its_second_attempt(services, plant):
    job = queue(services)
    delivered = plant({"shard_temporary": {"do": "full", "times": 9}})
    runner = make_runner(services)
    assert runner.run_once()
    assert runner.run_once()
    assert runner.run_once() is False
    failed = services.jobs.get(job.id)
    assert (failed.state, failed.attempt, failed.error["code"]) == (State.FAILED, 2, "insufficient_storage")
    assert "no space left for datasets/" in failed.error["message"]
    assert services.objects.list(f"work/{job.id}") == []
    assert delivered() == 2


def test_what_killed_writers_left_goes_before_the_second_attempt(services):
    job = queue(services)

    def build(*, objects, work, **_):
        objects.write(f"{work}/0123/partial/longweave-x", b"x")
        objects.write(f"{work}/0123/receipts/0.json", b"x")
        raise OSError(errno.ENOSPC, "full")

    make_runner(services, build=build).run_once()
    assert services.objects.list(f"work/{job.id}") == [f"work/{job.id}/0123/receipts/0.json"]


@contextmanager
def small_files():
    """The kernel refuses files of more than 64 KiB: what a full disk looks like from inside a real write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_kernels_own_error_is_told_by_name(tmp_path):
    objects = Objects.local(tmp_path)
    data = b"x" * 128 * 1024
    with small_files():
        with pytest.raises(InsufficientStorageError, match="no space left for a"):
            objects.write("a", data)
        with pytest.raises(InsufficientStorageError, match="no space left for b"):
            objects.create("b", data, staging="s")
        with (
            pytest.raises(InsufficientStorageError, match="no space left for c"),
            objects.writing("c", staging="s") as to,
        ):
            to.write(data)
    assert objects.list("") == []
    objects.write("d", b"there is room for this")


def test_an_upload_that_fills_the_disk_is_507_and_the_api_lives(api):
    data = conversations(2000)
    with small_files():
        response = api.post("/v1/uploads", content=data, headers={"Content-Type": "application/jsonl"})
        assert_problem(response, 507, "insufficient_storage")
        assert api.get("/healthz").status_code == 200
    upload(api, data)
    upload(api, conversations(3))


def test_a_full_database_is_507_until_there_is_room(services, api):
    source = upload(api, conversations(3))
    limits = []

    @event.listens_for(services.engine, "checkout")
    def limit(connection, _record, _proxy):
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages if limits else 2**30}")

    limits.append(True)
    answers = [
        api.post("/v1/jobs", json=spec_for(source["id"], metadata={f"k{n}": "x" * 500 for n in range(8)}))
        for _ in range(20)
    ]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert refused, "the database never was full: nothing was tested"
    for answer in refused:
        assert_problem(answer, 507, "insufficient_storage")
    assert api.get("/v1/jobs").status_code == 200
    limits.clear()
    assert api.post("/v1/jobs", json=spec_for(source["id"])).status_code == 202


def test_a_database_whose_file_may_not_grow_is_507_and_is_read_on(services, api):
    source = upload(api, conversations(3))
    spec = spec_for(source["id"], metadata={f"k{n}": "x" * 500 for n in range(8)})
    assert api.post("/v1/jobs", json=spec).status_code == 202
    with small_files():
        answers = [api.post("/v1/jobs", json=spec) for _ in range(40)]
        listed = api.get("/v1/jobs").status_code
    refused = [answer for answer in answers if answer.status_code != 202]
    assert refused, "the file never was too large: nothing was tested"
    for answer in refused:
        assert_problem(answer, 507, "insufficient_storage")
    assert listed == 200
    assert api.post("/v1/jobs", json=spec).status_code == 202
