"""NOTIFY as a hint: heard at once, and never needed."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import text

from service.jobs.database import open_database
from service.jobs.hints import CHANNEL, Hints, give_hint
from tests.service.support import make_runner, open_api, settings_in

LONG = 30.0
"""A pause far longer than any test takes: what ends it sooner is a hint."""


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def engine(database_url):
    opened = open_database(database_url)
    yield opened
    opened.dispose()


def resting(hints, stopping):
    """A thread that waits for a hint, and the event that says it has had one."""
    woken = threading.Event()

    def rest():
        hints.wait(stopping)
        woken.set()

    thread = threading.Thread(target=rest)
    thread.start()
    return thread, woken


def test_a_hint_wakes_at_the_commit_and_not_before(postgresql):
    engine = open_database(postgresql.new_database())
    stopping = threading.Event()
    with Hints(engine, idle_seconds=LONG, listening_seconds=LONG) as hints:
        wait_until(lambda: hints.listening)
        hints.wait(stopping)  # what came before we listened is asked for once
        thread, woken = resting(hints, stopping)
        with engine.begin() as connection:
            give_hint(connection)
            assert not woken.wait(0.3)
        assert woken.wait(20)
        thread.join()
    engine.dispose()


def cut_off(engine):
    """Have the server end the one connection that listens."""
    cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND datname = :name")
    with engine.begin() as connection:
        assert connection.execute(cut, {"name": engine.url.database}).scalars().all() == [True]


def test_a_listener_that_is_cut_off_listens_again(postgresql):
    engine = open_database(postgresql.new_database())
    with Hints(engine, idle_seconds=LONG, listening_seconds=LONG) as hints:
        wait_until(lambda: hints.listening)
        cut_off(engine)
        wait_until(lambda: not hints.listening)
        wait_until(lambda: hints.listening)
    engine.dispose()


def test_while_nothing_is_heard_it_asks_often(postgresql, monkeypatch):
    monkeypatch.setattr("service.jobs.hints.AGAIN_SECONDS", LONG)
    engine = open_database(postgresql.new_database())
    stopping = threading.Event()
    with Hints(engine, idle_seconds=0.05, listening_seconds=LONG) as hints:
        wait_until(lambda: hints.listening)
        hints.wait(stopping)  # what came before we listened
        cut_off(engine)
        wait_until(lambda: not hints.listening)
        thread, woken = resting(hints, stopping)
        assert woken.wait(20)
        assert not hints.listening
        thread.join()
    engine.dispose()


def test_stopping_ends_the_wait(engine):
    stopping = threading.Event()
    with Hints(engine, idle_seconds=LONG, listening_seconds=LONG) as hints:
        if engine.dialect.name == "postgresql":
            wait_until(lambda: hints.listening)
            hints.wait(stopping)
        thread, woken = resting(hints, stopping)
        assert not woken.wait(0.3)
        stopping.set()
        assert woken.wait(20)
        thread.join()


def test_without_postgresql_nothing_listens_and_a_hint_is_nothing(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path}/jobs.db")
    with Hints(engine, idle_seconds=0.01, listening_seconds=LONG) as hints, engine.begin() as connection:
        give_hint(connection)
        assert not hints.listening
        hints.wait(threading.Event())
    engine.dispose()
    assert CHANNEL.isidentifier()


def test_a_runner_that_rests_for_long_claims_a_job_when_it_is_submitted(postgresql, tmp_path):
    services, api = open_api(settings_in(tmp_path, DATABASE_URL=postgresql.new_database()))
    stopping, asked = threading.Event(), []
    engine = services.engine
    with api, Hints(engine, idle_seconds=LONG, listening_seconds=LONG) as hints:
        runner = make_runner(services, stopping=stopping, hints=hints)
        once = runner.run_once
        runner.run_once = lambda: asked.append(1) or once()
        wait_until(lambda: hints.listening)
        thread = threading.Thread(target=runner.run)
        thread.start()
        wait_until(lambda: len(asked) >= 2)  # the first question, and the one for what came before we listened
        spec = {"kind": "synl", "samples": 1, "length": [2048]}
        job = api.post("/v1/jobs", json=spec).json()["id"]
        wait_until(lambda: api.get(f"/v1/jobs/{job}").json()["state"] == "succeeded")
        assert len(asked) <= 5, "it asked by itself"
        stopping.set()
        thread.join()
