"""The compose file's own commands as processes, on a real PostgreSQL and an S3 server: a job of every kind goes through."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx2
import pytest

from tests.service.every_kind import build_every_kind, digests
from tests.service.support import make_runner, open_api, settings_in
from tests.stack.compose import ROOT, services

pytestmark = pytest.mark.slow


class Stack:
    """Containers' stand-ins: the same command lines and settings, with this machine's places for the containers'."""

    def __init__(self, folder, secrets, endpoint):
        self._folder = folder
        self._places = {"http://objects:8333": endpoint, "s3://longweave": "s3://bucket/stack"}
        for name, value in secrets.items():
            (folder / name).write_text(f"{value}\n")
            self._places[f"/run/secrets/{name}"] = str(folder / name)
        self.started = []

    def environ(self, name):
        given = services()[name]["environment"]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("LONGWEAVE_", "AWS_"))}
        data = self._folder / f"{name}-data"
        # Two cores are all that a small machine has for Ray beside the rest.
        own = {"LONGWEAVE_DATA_DIR": str(data), "LONGWEAVE_WORKERS": "2"}
        return inherited | {key: self._places.get(value, value) for key, value in given.items()} | own

    def run(self, name, *words):
        """`docker compose run --rm NAME WORDS`."""
        command = [sys.executable, "-m", "service.cli", *words]
        return subprocess.run(
            command, env=self.environ(name), check=True, capture_output=True, text=True, cwd=ROOT
        ).stdout

    def up(self, name):
        """`docker compose up NAME`."""
        words = ["0" if word == "8000" else word for word in services()[name]["command"]]
        log = (self._folder / f"{name}.log").open("w")
        command = [sys.executable, "-m", "service.cli", *words]
        process = subprocess.Popen(
            command, env=self.environ(name), stdout=log, stderr=log, start_new_session=True, cwd=ROOT
        )
        self.started.append((process, log))
        return process

    def told(self, name):
        return (self._folder / f"{name}.log").read_text()

    def down(self):
        for process, _ in self.started:
            process.send_signal(signal.SIGTERM)
        for process, log in self.started:
            process.wait(20)
            log.close()


def wait_for(condition, told, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)
    return found


@pytest.fixture
def stack(postgresql, s3, tmp_path):
    secrets = {
        "database_url": postgresql.new_database(),
        "s3_access_key": s3.environ["AWS_ACCESS_KEY_ID"],
        "s3_secret_key": s3.environ["AWS_SECRET_ACCESS_KEY"],
    }
    started = Stack(tmp_path, secrets, s3.url)
    yield started
    started.down()


def test_a_job_of_every_kind_goes_through_the_compose_files_own_commands(stack, s3, tmp_path):
    key = json.loads(stack.run("api", "keys", "create", "stack", "--json"))["key"]
    api, runner = stack.up("api"), stack.up("runner")

    def told():
        return stack.told("api")[-2000:] + stack.told("runner")[-2000:]

    port = wait_for(lambda: re.search(r"http://0\.0\.0\.0:(\d+)", stack.told("api")), told)[1]
    http = httpx2.Client(
        base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False, headers={"Authorization": f"Bearer {key}"}
    )
    with http:
        assert httpx2.get(f"http://127.0.0.1:{port}/v1/jobs", trust_env=False).status_code == 401
        wait_for(lambda: http.get("/readyz").json()["status"] == "ready", told)

        def ended(job):
            wait_for(lambda: http.get(f"/v1/jobs/{job}").json()["state"] in ("succeeded", "failed"), told)

        made = digests(http, build_every_kind(http, ended))
    stack.down()
    assert (api.returncode, runner.returncode) == (0, 0), told()
    stack.started.clear()
    assert key not in told()
    assert "Traceback" not in told()
    assert len([asked for asked in s3.asked if asked.method == "PUT"]) > 40

    local, alone = open_api(settings_in(tmp_path / "alone"))
    runner = make_runner(local)
    with alone:
        assert digests(alone, build_every_kind(alone, lambda _job: runner.run_once())) == made
