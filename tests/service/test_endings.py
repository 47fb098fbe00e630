"""A database that fails at a claim or an ending, before its commit or after: the job is known all the same, and charged once."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy.exc import OperationalError

from service.jobs.job import State
from service.jobs.watch import StopAskedError
from service.services import Services
from tests.service.support import make_runner, settings_in
from tests.service.test_runner import manifest, queue


class Fails:
    """A method of the store that fails `times` times, with its work done (`after`) or not."""

    def __init__(self, monkeypatch, store, name, *, after, times=1):
        self.real, self.after, self.left = getattr(store, name), after, times
        self.failed = 0
        monkeypatch.setattr(store, name, self)

    def __call__(self, *given, **more):
        if self.left == 0:
            return self.real(*given, **more)
        self.left -= 1
        self.failed += 1
        if self.after:
            self.real(*given, **more)
        raise OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("service.jobs.endings.AGAIN_SECONDS", 0.01)


@pytest.fixture
def job(services):
    return queue(services)


@pytest.mark.parametrize("after", [False, True])
def test_a_success_is_reported_once_and_its_work_is_cleared(services, job, monkeypatch, after):
    def build(*, objects, work, target, **_):
        objects.write(f"{work}/receipt", b"x")
        objects.create(f"{target}/manifest.json", manifest().to_bytes(), staging="s")
        return manifest()

    fails = Fails(monkeypatch, services.leases, "succeed", after=after, times=1 if after else 3)
    assert make_runner(services, build=build).run_once()
    assert fails.failed == (1 if after else 3)
    done = services.jobs.get(job.id)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
    assert [entry.id for entry in services.catalog.datasets()] == [job.target]
    assert services.objects.list(f"work/{job.id}") == []


def bad(**_):
    from packing.dataset.errors import BadRowError

    raise BadRowError("s", 1, "no")


def broken(**_):
    raise OSError


def stopped(**_):
    raise StopAskedError


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("name", "build", "state", "attempt"),
    [
        ("fail", bad, State.FAILED, 1),
        ("retry", broken, State.QUEUED, 1),
        ("release", stopped, State.QUEUED, 0),
    ],
)
def test_other_endings_are_written_once_too(services, job, monkeypatch, name, build, state, attempt, after):
    fails = Fails(monkeypatch, services.leases, name, after=after)
    assert make_runner(services, build=build).run_once()
    found = services.jobs.get(job.id)
    assert (found.state, found.attempt, fails.failed) == (state, attempt, 1)
    states = [entry.data["state"] for entry in services.jobs.events(job.id) if entry.type == "state"]
    assert states == [State.QUEUED, State.RUNNING, state]


def test_a_cancel_is_written_once_too(services, job, monkeypatch):
    def build(*, objects, work, **_):
        objects.write(f"{work}/receipt", b"x")
        services.jobs.cancel(job.id)
        return manifest()

    fails = Fails(monkeypatch, services.leases, "stop", after=True)
    assert make_runner(services, build=build).run_once()
    assert (services.jobs.get(job.id).state, fails.failed) == (State.CANCELLED, 1)
    assert services.objects.list(f"work/{job.id}") == []


def test_a_database_that_stays_away_is_waited_for_no_longer_than_the_lease(tmp_path, monkeypatch):
    services = Services.open(settings_in(tmp_path, LEASE_SECONDS="0.5"))
    job = queue(services)
    fails = Fails(monkeypatch, services.leases, "fail", after=False, times=1000)
    with pytest.raises(OperationalError):
        make_runner(services, build=bad).run_once()
    assert 3 < fails.failed < 100
    assert services.jobs.get(job.id).state is State.RUNNING
    services.close()


def test_a_runner_that_stops_does_not_wait_for_the_database(services, job, monkeypatch):
    stopping = threading.Event()
    stopping.set()
    fails = Fails(monkeypatch, services.leases, "fail", after=False, times=100)
    with pytest.raises(OperationalError):
        make_runner(services, build=bad, stopping=stopping).run_once()
    assert fails.failed == 1


@pytest.mark.parametrize("after", [False, True])
def test_a_claim_whose_answer_is_lost_is_taken_up_and_not_charged_again(services, job, monkeypatch, after):
    runner = make_runner(services, build=lambda **_: manifest())
    Fails(monkeypatch, services.leases, "claim", after=after)
    with pytest.raises(OperationalError):
        runner.run_once()
    assert services.jobs.get(job.id).state is (State.RUNNING if after else State.QUEUED)
    assert runner.run_once()
    done = services.jobs.get(job.id)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
    assert runner.run_once() is False


def test_what_another_has_taken_meanwhile_is_not_taken_up(services, job, monkeypatch):
    from tests.service.test_poison import lapse

    runner = make_runner(services, build=lambda **_: manifest())
    Fails(monkeypatch, services.leases, "claim", after=True)
    with pytest.raises(OperationalError):
        runner.run_once()
    lapse(services)
    assert services.leases.claim("another") is not None
    assert runner.run_once() is False
    assert (services.jobs.get(job.id).state, services.jobs.get(job.id).attempt) == (State.RUNNING, 2)
