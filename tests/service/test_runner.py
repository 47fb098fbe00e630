"""The runner against the real store, with builds that do what a test wants; and once with the real line."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from packing.dataset.errors import BadRowError
from packing.dataset.manifest import Manifest
from service.jobs.database import jobs, now
from service.jobs.failures import pause
from service.jobs.job import State
from service.jobs.leases import LeaseLostError
from service.jobs.runner import EngineBrokenError
from service.jobs.store import Request
from service.jobs.watch import CancelAskedError, Hold, JobWatch, StopAskedError
from service.services import Services
from service.storage.objects import StoreAwayError
from tests.service.support import conversations, make_runner, settings_in


@dataclass
class Counted:
    rows: int = 10
    tokens: int = 100
    bytes: int = 1000
    seconds: float = 2.0


@pytest.fixture
def services(tmp_path, database_url):
    settings = settings_in(tmp_path, DATABASE_URL=database_url, RETRY_SECONDS="0", HEARTBEAT_SECONDS="0.05")
    opened = Services.open(settings)
    yield opened
    opened.close()


@pytest.fixture
def job(services):
    """A queued job on an upload of twenty conversations."""
    return queue(services)


def queue(services, **fields):
    from service.storage.intake import take_in

    local = services.settings.data_dir / "source.jsonl"
    local.write_bytes(conversations(20))
    upload_id = services.catalog.new_upload_id()
    record = take_in(local, name="source.jsonl", objects=services.objects, prefix=f"uploads/{upload_id}")
    services.catalog.add_upload(upload_id, record.to_json())
    spec = {"kind": "skipalign", "strategy": "outer", "shard_rows": 5, "source": {"upload": upload_id}, **fields}
    request = Request(kind="skipalign", name="n", spec=spec, metadata={})
    return services.jobs.submit(request)[0]


def manifest():
    return Manifest(
        kind="skipalign",
        name="n",
        spec={},
        fingerprint="f" * 64,
        versions={},
        tokenizer={},
        inputs=(),
        files=(),
        documents=(),
        counts={},
        skipped_inputs={},
    )


def leave_traces(objects, work, target):
    objects.write(f"{work}/receipt", b"x")
    objects.write(f"{target}/data/x", b"x")


def traces(services, job):
    return services.objects.list(f"work/{job.id}"), services.objects.list(f"datasets/{job.target}")


def test_a_job_is_built_and_its_dataset_appears(services, job):
    assert make_runner(services).run_once() is True
    done = services.jobs.get(job.id)
    assert (done.state, done.attempt, done.dataset_id) == (State.SUCCEEDED, 1, job.target)
    assert (done.progress.shards_done, done.progress.shards_total, done.progress.rows) == (4, 4, 20)
    entry = services.catalog.dataset(job.target)
    stored = services.objects.read(f"datasets/{job.target}/manifest.json")
    assert entry.manifest_sha256 == hashlib.sha256(stored).hexdigest()
    assert (entry.rows, entry.files, entry.job_id) == (20, 4, job.id)
    assert services.objects.list(f"work/{job.id}") == []
    assert make_runner(services).run_once() is False


def test_two_jobs_of_one_spec_have_the_same_bytes(services, job):
    other = queue(services)
    runner = make_runner(services)
    assert runner.run_once()
    assert runner.run_once()
    first, second = (services.catalog.dataset(j.target) for j in (job, other))
    assert services.library.manifest(first).files == services.library.manifest(second).files
    assert first.fingerprint == second.fingerprint


def test_a_bad_row_fails_the_job_at_once_and_leaves_nothing(services, job):
    def build(*, objects, work, target, **_):
        leave_traces(objects, work, target)
        raise BadRowError("source.jsonl", 7, "not JSON")

    make_runner(services, build=build).run_once()
    failed = services.jobs.get(job.id)
    assert (failed.state, failed.attempt, failed.dataset_id) == (State.FAILED, 1, None)
    assert failed.error["code"] == "bad_row"
    assert "row 7: not JSON" in failed.error["message"]
    assert failed.error["param"] == "source.jsonl:7"
    assert traces(services, job) == ([], [])


def test_a_source_that_is_gone_is_named(services, job):
    services.catalog.delete_upload(job.spec["source"]["upload"])
    make_runner(services).run_once()
    error = services.jobs.get(job.id).error
    assert (error["code"], error["param"]) == ("invalid_spec", "/source/upload")


def test_an_unexpected_error_is_tried_three_times(services, job):
    tried = []

    def build(**_):
        tried.append(1)
        raise OSError("the disk\nwent away")

    runner = make_runner(services, build=build)
    assert runner.run_once()
    waiting = services.jobs.get(job.id)
    assert (waiting.state, waiting.attempt, waiting.error["code"]) == (State.QUEUED, 1, "internal_error")
    assert runner.run_once()
    assert runner.run_once()
    assert runner.run_once() is False
    failed = services.jobs.get(job.id)
    assert (failed.state, failed.attempt, len(tried)) == (State.FAILED, 3, 3)
    assert failed.error["message"] == "an unexpected error, OSError: the disk (tried 3 times)"


def test_receipts_stay_for_the_next_attempt(services, job):
    def build(*, objects, work, target, **_):
        leave_traces(objects, work, target)
        raise OSError

    make_runner(services, build=build).run_once()
    assert all(traces(services, job))


def test_pauses_between_attempts_double(tmp_path):
    services = Services.open(settings_in(tmp_path, RETRY_SECONDS="8"))
    job = queue(services)

    def build(**_):
        raise OSError

    def wait_left():
        with services.engine.begin() as connection:
            left = connection.execute(jobs.select().with_only_columns(jobs.c.not_before - now())).scalar_one()
            connection.execute(update(jobs).values(not_before=0))
        return left

    runner = make_runner(services, build=build)
    runner.run_once()
    assert runner.run_once() is False
    first = pause(job.id, attempt=1, first=8)
    assert first - 2 < wait_left() <= first <= 8
    runner.run_once()
    second = pause(job.id, attempt=2, first=8)
    assert second - 2 < wait_left() <= second
    assert 12.8 <= second <= 16
    assert services.jobs.get(job.id).attempt == 2
    services.close()


def test_a_broken_engine_ends_the_runner_and_not_the_job(services, job):
    class RayError(Exception):
        pass

    RayError.__module__ = "ray.exceptions"

    def build(**_):
        raise RayError("the raylet is gone")

    with pytest.raises(EngineBrokenError):
        make_runner(services, build=build).run()
    assert services.jobs.get(job.id).state is State.QUEUED
    assert services.leases.alive() == 0


def test_an_error_inside_a_task_is_told_by_its_cause(services, job):
    class RayTaskError(Exception):
        cause = OSError("no space left")

    RayTaskError.__module__ = "ray.exceptions"

    def build(**_):
        raise RayTaskError("ray::run_task() (pid=1)\nTraceback …")

    assert make_runner(services, build=build).run_once()  # and no EngineBrokenError
    assert services.jobs.get(job.id).error["message"] == "an unexpected error, OSError: no space left"


def wait_until(watch, seconds=5.0):
    """What an executor does while it waits."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        watch.check()
        pause.wait(0.02)
    raise AssertionError("nobody stopped the build")


def test_a_cancel_stops_the_build_and_nothing_is_left(services, job):
    def build(*, watch, objects, work, target, **_):
        leave_traces(objects, work, target)
        services.jobs.cancel(job.id)
        wait_until(watch)

    make_runner(services, build=build).run_once()
    assert services.jobs.get(job.id).state is State.CANCELLED
    assert traces(services, job) == ([], [])


def test_what_a_cancelled_job_left_is_removed_behind_its_last_writer(services, job, monkeypatch):
    from service.engine.executor import InlineExecutor

    settled = []

    def settle(_):
        settled.append((services.jobs.get(job.id).state, traces(services, job) != ([], [])))
        services.objects.write(f"work/{job.id}/late", b"x")

    def build(*, watch, objects, work, target, **_):
        leave_traces(objects, work, target)
        services.jobs.cancel(job.id)
        wait_until(watch)

    monkeypatch.setattr(InlineExecutor, "settle", settle)
    make_runner(services, build=build).run_once()
    assert settled == [(State.CANCELLED, True)]
    assert traces(services, job) == ([], [])


def test_a_cancel_between_commit_and_success_still_wins(services, job):
    def build(*, objects, target, **_):
        objects.create(f"{target}/manifest.json", manifest().to_bytes(), staging="s")
        services.jobs.cancel(job.id)
        return manifest()

    make_runner(services, build=build).run_once()
    assert services.jobs.get(job.id).state is State.CANCELLED
    assert traces(services, job) == ([], [])
    assert services.catalog.datasets() == []


def test_a_runner_told_to_stop_hands_the_job_back(services, job):
    stopping = threading.Event()

    def build(*, watch, objects, work, target, **_):
        leave_traces(objects, work, target)
        stopping.set()
        wait_until(watch)

    make_runner(services, stopping=stopping, build=build).run()
    waiting = services.jobs.get(job.id)
    assert (waiting.state, waiting.attempt, waiting.error) == (State.QUEUED, 0, None)
    assert all(traces(services, job))
    make_runner(services).run_once()
    assert services.jobs.get(job.id).state is State.SUCCEEDED


def test_a_runner_that_lost_its_lease_touches_nothing(services, job):
    def build(*, watch, objects, work, target, **_):
        leave_traces(objects, work, target)
        with services.engine.begin() as connection:
            connection.execute(update(jobs).values(lease_expires_at=now() - 1))
        assert services.leases.claim("another").job.id == job.id
        wait_until(watch)

    make_runner(services, build=build).run_once()
    held = services.jobs.get(job.id)
    assert (held.state, held.attempt) == (State.RUNNING, 2)
    assert all(traces(services, job))


def test_a_success_reported_without_the_lease_is_no_success(services, job):
    def build(*, objects, target, **_):
        objects.create(f"{target}/manifest.json", manifest().to_bytes(), staging="s")
        with services.engine.begin() as connection:
            connection.execute(update(jobs).values(lease_expires_at=now() - 1))
        services.leases.claim("another")
        return manifest()

    make_runner(services, build=build).run_once()
    assert services.jobs.get(job.id).state is State.RUNNING
    assert services.objects.size(f"datasets/{job.target}/manifest.json") is not None


def test_the_next_runner_finds_what_is_built(services, job):
    """A build that dies after two shards, and one that goes on: only the missing shards are built, with the same bytes."""
    from service.engine.executor import InlineExecutor
    from service.engine.line import build_dataset

    class Dies:
        def run(self, payloads, check):
            for number, result in enumerate(InlineExecutor().run(payloads, check)):
                if number == 2:
                    raise OSError("power cut")
                yield result

    class Counts:
        ran = 0

        def run(self, payloads, check):
            for result in InlineExecutor().run(payloads, check):
                Counts.ran += 1
                yield result

    def with_executor(executor):
        return lambda **given: build_dataset(**{**given, "executor": executor})

    make_runner(services, build=with_executor(Dies())).run_once()
    assert services.jobs.get(job.id).state is State.QUEUED
    make_runner(services, build=with_executor(Counts())).run_once()
    done = services.jobs.get(job.id)
    assert (done.state, done.attempt, Counts.ran) == (State.SUCCEEDED, 2, 1)
    assert (done.progress.shards_done, done.progress.rows) == (4, 20)


def test_swept_jobs_are_cleared(services, job):
    services.leases.claim("dead")
    leave_traces(services.objects, f"work/{job.id}", f"datasets/{job.target}")
    services.jobs.cancel(job.id)
    with services.engine.begin() as connection:
        connection.execute(update(jobs).values(lease_expires_at=now() - 1))
    runner = make_runner(services)
    runner.tend()
    assert services.jobs.get(job.id).state is State.CANCELLED
    assert traces(services, job) == ([], [])
    assert services.leases.alive() == 1
    assert runner.run_once() is False


@pytest.mark.parametrize(
    "error", [OperationalError("UPDATE", {}, Exception("away")), StoreAwayError("Generic S3 error: away")]
)
def test_a_database_or_store_that_is_away_does_not_end_the_runner(services, job, monkeypatch, error):
    stopping = threading.Event()
    calls = []
    seen = services.leases.seen

    def flaky(runner_id):
        calls.append(1)
        if len(calls) == 1:
            raise error
        stopping.set()
        seen(runner_id)

    monkeypatch.setattr(services.leases, "seen", flaky)
    monkeypatch.setattr("service.jobs.runner.AWAY_SECONDS", 0.01)
    make_runner(services, stopping=stopping, build=lambda **_: manifest()).run()
    assert len(calls) == 2


def make_watch(services, hold=None):
    claim = services.leases.claim("a")
    hold = hold or Hold(services.leases, claim.lease, runner_id="r", every=0.02, lease_seconds=20)
    return claim, hold, JobWatch(services.leases, claim.lease, hold, threading.Event())


def test_progress_is_counted_from_receipts(services, job):
    _, _, watch = make_watch(services)
    watch.planned(3)
    assert services.jobs.get(job.id).progress.shards_total == 3
    for found in (True, False, False):
        watch.built(Counted(), found=found)
    progress = services.jobs.get(job.id).progress
    assert (progress.shards_done, progress.rows, progress.tokens, progress.bytes) == (3, 30, 300, 3000)
    assert progress.eta_seconds == 0
    written = [entry for entry in services.jobs.events(job.id) if entry.type == "progress"]
    assert len(written) == 2  # the plan and the last shard: those between came too fast to be told
    times = services.leases.shard_times()["skipalign"]
    assert (sum(times.shards), times.seconds, times.tokens) == (2, 4.0, 200)  # what was found took no time of ours


def test_a_shard_is_counted_once_however_often_progress_is_written(services, job, monkeypatch):
    monkeypatch.setattr("service.jobs.watch.PROGRESS_SECONDS", -1.0)
    _, _, watch = make_watch(services)
    watch.planned(3)
    for _ in range(3):
        watch.built(Counted(), found=False)
    assert sum(services.leases.shard_times()["skipalign"].shards) == 3


def test_progress_that_cannot_be_written_does_not_stop_a_build(services, job, monkeypatch):
    _, _, watch = make_watch(services)
    real = services.leases.progress

    def away(*_):
        raise OperationalError("UPDATE", {}, Exception("away"))

    monkeypatch.setattr(services.leases, "progress", away)
    watch.planned(2)
    watch.built(Counted(), found=False)
    monkeypatch.setattr(services.leases, "progress", real)
    watch.built(Counted(), found=False)
    assert services.jobs.get(job.id).progress.rows == 20
    assert (
        sum(services.leases.shard_times()["skipalign"].shards) == 2
    )  # the one that was not told is told with the next


def test_a_hold_renews_notices_cancels_and_notices_loss(services, job):
    claim, hold, watch = make_watch(services)
    pause = threading.Event()
    with hold:
        pause.wait(0.1)
        watch.check()
        services.jobs.cancel(job.id)
        for _ in range(100):
            if hold.cancel_asked:
                break
            pause.wait(0.02)
        with pytest.raises(CancelAskedError):
            watch.check()
        services.leases.stop(claim.lease)
        for _ in range(100):
            if hold.lost:
                break
            pause.wait(0.02)
        with pytest.raises(LeaseLostError):
            watch.check()


def test_a_cancel_is_seen_between_heartbeats(services, job):
    claim = services.leases.claim("a")
    hold = Hold(services.leases, claim.lease, runner_id="r", every=30, lease_seconds=120)
    pause = threading.Event()
    with hold:
        services.jobs.cancel(job.id)
        for _ in range(100):
            if hold.cancel_asked:
                break
            pause.wait(0.02)
    assert hold.cancel_asked is True


def test_a_hold_gives_up_when_it_cannot_renew_for_a_whole_lease(services, job, monkeypatch):
    claim = services.leases.claim("a")

    def away(_lease):
        raise OperationalError("UPDATE", {}, Exception("away"))

    monkeypatch.setattr(services.leases, "heartbeat", away)
    monkeypatch.setattr(services.leases, "cancel_asked", away)
    hold = Hold(services.leases, claim.lease, runner_id="r", every=0.02, lease_seconds=0.2)
    pause = threading.Event()
    with hold:
        pause.wait(0.1)
        assert hold.lost is False
        for _ in range(100):
            if hold.lost:
                break
            pause.wait(0.02)
    assert hold.lost is True


def test_a_cancel_that_meets_a_stop_is_a_cancel(services, job):
    def build(*, objects, work, target, **_):
        leave_traces(objects, work, target)
        services.jobs.cancel(job.id)
        raise StopAskedError

    make_runner(services, build=build).run_once()
    assert services.jobs.get(job.id).state is State.CANCELLED
    assert traces(services, job) == ([], [])


def test_shards_that_were_found_say_nothing_about_the_time_left(services, job):
    _, _, watch = make_watch(services)
    watch.planned(1)
    watch.built(Counted(), found=True)
    assert services.jobs.get(job.id).progress.eta_seconds is None


def reach(services, job, state):
    """Wait, without looking at the watch, until the job is in a state: a build in a long plan, or inside C code."""
    pause = threading.Event()
    for _ in range(500):
        if services.jobs.get(job.id).state is state:
            return
        pause.wait(0.02)
    raise AssertionError(f"the job never was {state}")


def test_a_build_that_does_not_look_is_let_go_of_on_a_cancel(services, job, monkeypatch):
    monkeypatch.setattr("service.jobs.watch.PATIENCE_SECONDS", 0.1)

    def build(*, objects, work, target, **_):
        leave_traces(objects, work, target)
        services.jobs.cancel(job.id)
        reach(services, job, State.CANCELLED)
        objects.create(f"{target}/manifest.json", manifest().to_bytes(), staging="s")
        return manifest()

    assert make_runner(services, build=build).run_once()
    assert services.jobs.get(job.id).state is State.CANCELLED
    assert traces(services, job) == ([], [])
    assert services.catalog.datasets() == []


def test_a_build_that_does_not_look_is_handed_back_on_a_stop(services, job, monkeypatch):
    monkeypatch.setattr("service.jobs.watch.PATIENCE_SECONDS", 0.1)
    stopping = threading.Event()

    def build(*, objects, work, target, **_):
        leave_traces(objects, work, target)
        stopping.set()
        reach(services, job, State.QUEUED)
        return manifest()

    make_runner(services, stopping=stopping, build=build).run()
    waiting = services.jobs.get(job.id)
    assert (waiting.state, waiting.attempt) == (State.QUEUED, 0)
    assert all(traces(services, job))
    make_runner(services).run_once()
    assert services.jobs.get(job.id).state is State.SUCCEEDED


def test_a_build_that_looks_while_it_is_let_go_of_is_cleared_too(services, job, monkeypatch):
    """The job is cancelled already and the heartbeat's thread has not yet said so."""
    monkeypatch.setattr("service.jobs.watch.PATIENCE_SECONDS", 0.1)
    real, late = services.leases.stop, []

    def slow(lease):
        ended = real(lease)
        if threading.current_thread().name == "heartbeat":
            late.append(ended)
            threading.Event().wait(0.3)
        return ended

    def build(*, watch, objects, work, target, **_):
        leave_traces(objects, work, target)
        services.jobs.cancel(job.id)
        reach(services, job, State.CANCELLED)
        wait_until(watch)

    monkeypatch.setattr(services.leases, "stop", slow)
    assert make_runner(services, build=build).run_once()
    assert len(late) == 1
    assert services.jobs.get(job.id).state is State.CANCELLED
    assert traces(services, job) == ([], [])
