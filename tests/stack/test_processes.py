"""The compose file's own commands as processes, on a real PostgreSQL and an S3 server: a job of every kind goes through."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from service import processes
from service.processes import descendants
from tests.service.every_kind import build_every_kind, digests
from tests.service.support import make_runner, open_api, settings_in
from tests.stack.compose import ROOT, services

pytestmark = pytest.mark.slow


class Stack:
    """Containers' stand-ins: the same command lines and settings, with this machine's places for the containers'."""

    def __init__(self, folder, secrets, endpoint):
        self._folder = folder
        self._places = {
            "http://objects:8333": endpoint,
            "s3://longweave": f"s3://bucket/{folder.name}",
            "runner:6380": f"127.0.0.1:{free_port()}",
        }
        for name, value in secrets.items():
            (folder / name).write_text(f"{value}\n")
            self._places[f"/run/secrets/{name}"] = str(folder / name)
        self.started = []
        self.own = {}
        self.secrets = secrets

    def environ(self, name):
        given = services()[name]["environment"]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("LONGWEAVE_", "AWS_"))}
        data = self._folder / f"{name}-data"
        own = {"LONGWEAVE_DATA_DIR": str(data), "LONGWEAVE_WORKERS": "1", **self.own.get(name, {})}
        return inherited | {key: self._places.get(value, value) for key, value in given.items()} | own

    def run(self, name, *words):
        """`docker compose run --rm NAME WORDS`."""
        command = [sys.executable, "-m", "service.cli", *words]
        return subprocess.run(
            command, env=self.environ(name), check=True, capture_output=True, text=True, cwd=ROOT
        ).stdout

    def up(self, name):
        """`docker compose up NAME`: one more container of it."""
        words = ["0" if word == "8000" else word for word in services()[name]["command"]]
        log = (self._folder / f"{name}.log").open("a")
        command = [sys.executable, "-m", "service.cli", *words]
        process = subprocess.Popen(
            command, env=self.environ(name), stdout=log, stderr=log, start_new_session=True, cwd=ROOT
        )
        self.started.append((process, log))
        return process

    def told(self, name):
        return (self._folder / f"{name}.log").read_text()

    def down(self):
        for process, _ in reversed(self.started):
            process.send_signal(signal.SIGTERM)
        for process, log in self.started:
            process.wait(20)
            log.close()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def ray_workers(node):
    """The Ray workers below a process, by pid, and the libraries they have opened; a node has one when it has joined."""
    found = {}
    for pid in descendants(node.pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
                found[pid] = Path(f"/proc/{pid}/maps").read_text()
    return found


def have_built(node):
    """Whether a Ray worker below a process has opened a Parquet writer: it has built shards."""
    return any("libparquet" in maps for maps in ray_workers(node).values())


def wait_for(condition, told, seconds=120):
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
        "ray_token": "0123456789abcdef" * 3,
    }
    started = Stack(tmp_path, secrets, s3.url)
    yield started
    started.down()


@contextlib.contextmanager
def opened(stack, told):
    """A client of the stack's API, with a key, once a runner is there."""
    key = json.loads(stack.run("api", "keys", "create", "stack", "--json"))["key"]
    stack.up("api")
    port = wait_for(lambda: re.search(r"http://0\.0\.0\.0:(\d+)", stack.told("api")), told)[1]
    assert httpx2.get(f"http://127.0.0.1:{port}/v1/jobs", trust_env=False).status_code == 401
    headers = {"Authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False, headers=headers) as http:
        wait_for(lambda: http.get("/readyz").json()["status"] == "ready", told)
        yield http
    assert key not in told()


def test_a_job_of_every_kind_goes_through_the_compose_files_own_commands(stack, s3, tmp_path):
    def told():
        return "".join(stack.told(name)[-2000:] for name in ("api", "runner", "worker"))

    runner, worker = stack.up("runner"), stack.up("worker")
    with opened(stack, told) as http:
        wait_for(lambda: ray_workers(worker), told)

        def ended(job):
            wait_for(lambda: http.get(f"/v1/jobs/{job}").json()["state"] in ("succeeded", "failed"), told)

        made = digests(http, build_every_kind(http, ended))
        many = {"kind": "needle", "lengths": [2048], "repeats": 3, "shard_rows": 2, "license": "CC0-1.0"}
        ended(http.post("/v1/jobs", json=many).json()["id"])
        assert [have_built(node) for node in (runner, worker)] == [True, True]
    stack.down()
    assert [process.returncode for process, _ in stack.started] == [0, 0, 0], told()
    stack.started.clear()
    assert stack.secrets["ray_token"] not in told()
    assert "Traceback" not in told()
    assert len([asked for asked in s3.asked if asked.method == "PUT"]) > 40

    local, alone = open_api(settings_in(tmp_path / "alone"))
    runner = make_runner(local)
    with alone:
        assert digests(alone, build_every_kind(alone, lambda _job: runner.run_once())) == made


def test_a_node_that_dies_in_the_middle_of_a_job_costs_nothing_but_time(stack, tmp_path):
    def told():
        return "".join(stack.told(name)[-2000:] for name in ("api", "runner", "worker"))

    stack.own["runner"] = {"LONGWEAVE_WORKERS": "0"}  # the head builds nothing itself
    stack.up("runner")
    nodes = []
    for _ in range(2):  # one after the other: at the same moment two nodes of one machine may choose the same ports
        nodes.append(stack.up("worker"))
        wait_for(lambda: ray_workers(nodes[-1]), told)
    with opened(stack, told) as http:
        spec = {"kind": "needle", "lengths": [16384], "repeats": 8, "shard_rows": 4, "license": "CC0-1.0"}
        job = http.post("/v1/jobs", json=spec).json()["id"]

        def state():
            return http.get(f"/v1/jobs/{job}").json()

        wait_for(lambda: state()["progress"]["shards_done"] > 2 and all(map(have_built, nodes)), told)
        processes.kill([nodes[0].pid, *descendants(nodes[0].pid)])
        at = state()
        assert at["state"] == "running", at
        assert at["progress"]["shards_done"] < at["progress"]["shards_total"]
        wait_for(lambda: state()["state"] != "running", told)
        ended = state()
        assert (ended["state"], ended["attempt"]) == ("succeeded", 1), ended
        made = digests(http, {"needle": ended["dataset_id"]})
    dead = next(entry for entry in stack.started if entry[0] is nodes[0])
    stack.started.remove(dead)
    dead[0].wait()
    dead[1].close()

    local, alone = open_api(settings_in(tmp_path / "alone"))
    runner = make_runner(local)
    with alone:
        alone.post("/v1/jobs", json=spec)
        runner.run_once()
        ident = alone.get("/v1/jobs").json()["data"][0]["dataset_id"]
        assert digests(alone, {"needle": ident}) == made
