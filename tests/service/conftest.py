"""Fixtures of the service's tests."""

from __future__ import annotations

import logging

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.logs import JsonLines, TextLines
from service.services import Services
from tests.service.databases import database_url, postgresql
from tests.service.object_store import object_store, s3
from tests.service.support import BASE, conversations, make_runner, open_api, settings_in, spec_for, upload

__all__ = ["database_url", "object_store", "postgresql", "s3"]


@pytest.fixture(autouse=True)
def _logs_go_home():
    """A command that was run in this process leaves a handler on a stderr that will be closed."""
    yield
    root = logging.getLogger()
    root.handlers[:] = [one for one in root.handlers if not isinstance(one.formatter, JsonLines | TextLines)]


@pytest.fixture
def url(database_url):
    """An empty database, on SQLite and on PostgreSQL."""
    return database_url


@pytest.fixture
def services(tmp_path):
    opened = Services.open(settings_in(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def api(services):
    app = create_app(services.settings, services)
    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An API with one finished job of 120 rows in three files: (api, services, job)."""
    settings = settings_in(tmp_path_factory.mktemp("built"))
    services, api = open_api(settings)
    with api:
        source = upload(api, conversations(120))
        spec = spec_for(source["id"], name="built", shard_rows=40, license="CC0-1.0", metadata={"team": "blue"})
        job = api.post("/v1/jobs", json=spec).json()
        assert make_runner(services).run_once()
        yield api, services, api.get(f"/v1/jobs/{job['id']}").json()
