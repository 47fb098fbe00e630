"""`longweave serve` as users start it: a process, with a real Ray, stopped and killed in every way."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest

from packing.dataset.reader import check_file, read_manifest
from service.cli import main
from service.engine.executor import InlineExecutor
from service.engine.line import Unwatched, build_dataset
from service.engine.tokenizers import find_tokenizer
from service.kinds import spec_of
from service.serving import listen
from service.storage.intake import take_in
from service.storage.objects import Objects
from tests.service.support import conversations

pytestmark = pytest.mark.slow

LONG_JOB = {"kind": "skipalign", "strategy": "outer", "shard_rows": 10}
LONG_SOURCE = conversations(2000)


class Served:
    """A `longweave serve` of our own. Its processes carry a mark in their environment, by which they are found wherever they go."""

    def __init__(self, data_dir: Path, **environ: str) -> None:
        self.mark = f"LONGWEAVE_TEST_MARK={secrets.token_hex(8)}"
        name, value = self.mark.split("=")
        given = {f"LONGWEAVE_{key}": text for key, text in environ.items()}
        command = [sys.executable, "-m", "service.cli", "serve", "--json", "--port", "0", "--data-dir", str(data_dir)]
        self.log = (data_dir.parent / f"{data_dir.name}.log").open("w+")
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **given, name: value},
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            start_new_session=True,
        )
        self.url = json.loads(self.process.stdout.readline())["url"]
        self.http = httpx2.Client(base_url=self.url, timeout=30, trust_env=False)

    def processes(self):
        """Every process with our mark, by pid, with its command line."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                marked = self.mark.encode() in (place / "environ").read_bytes().split(b"\0")
                state = (place / "stat").read_text().rpartition(")")[2].split()[0]
                if marked and state not in "ZX":
                    found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    def runner(self):
        """The runner's pid."""
        return next(pid for pid, line in self.processes().items() if "service.cli runner" in line)

    def wait_ready(self, seconds=40):
        self.wait_for(lambda: self.http.get("/readyz").json()["status"] == "ready", seconds)

    def wait_for(self, condition, seconds):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.told()
            assert self.process.poll() is None, self.told()
            time.sleep(0.05)

    def submit(self, data=LONG_SOURCE, **fields):
        upload = self.http.post("/v1/uploads", content=data, headers={"Content-Type": "application/jsonl"}).json()
        return self.http.post("/v1/jobs", json={**LONG_JOB, "source": {"upload": upload["id"]}, **fields}).json()["id"]

    def job(self, job_id):
        return self.http.get(f"/v1/jobs/{job_id}").json()

    def wait_done(self, job_id, seconds=60):
        self.wait_for(lambda: self.job(job_id)["state"] in ("succeeded", "failed", "cancelled"), seconds)
        return self.job(job_id)

    def wait_halfway(self, job_id):
        """Wait until some shards are built and many are not."""
        self.wait_for(lambda: self.job(job_id)["progress"]["shards_done"] >= 10, 40)
        progress = self.job(job_id)["progress"]
        assert progress["shards_done"] < progress["shards_total"] - 30, progress

    def stop(self, number):
        """Send a signal; returns the seconds until the end, and what is left of it then."""
        before = self.processes()
        assert len(before) >= 3, before  # or there was nothing to be left behind
        begun = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(20)
        return time.monotonic() - begun, self.processes()

    def told(self):
        self.log.flush()
        return Path(self.log.name).read_text()[-3000:]

    def close(self):
        self.http.close()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        self.process.stdout.close()
        self.log.close()


@pytest.fixture
def serve(tmp_path):
    opened = []

    def start(name="data", **environ):
        (tmp_path / name).mkdir(exist_ok=True)
        opened.append(Served(tmp_path / name, **{"WORKERS": "2", **environ}))
        return opened[-1]

    yield start
    for served in opened:
        served.close()


def digests_inline(folder, data, **fields):
    """sha256s of the same dataset, built in this process without a service and without Ray."""
    folder = folder / secrets.token_hex(4)
    folder.mkdir()
    source = folder / "source.jsonl"
    source.write_bytes(data)
    objects = Objects.local(folder / "inline")
    spec = spec_of({**LONG_JOB, "source": {"upload": "any"}, **fields})
    manifest = build_dataset(
        spec=spec,
        sources={"/source": take_in(source, name="upload.jsonl", objects=objects, prefix="pieces")},
        tokenizer=find_tokenizer("builtin"),
        objects=objects,
        work="work",
        target="out",
        executor=InlineExecutor(),
        watch=Unwatched(),
    )
    return [(file.path, file.sha256) for file in manifest.files]


def listening_addresses(pids):
    """Addresses that these processes listen on, as /proc tells them."""
    inodes = set()
    for pid in pids:
        for place in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(place.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.append(fields[1].rpartition(":")[0])
    return found


def test_upload_job_download_and_a_killed_runner(serve, tmp_path):
    served = serve(LEASE_SECONDS="2")
    served.wait_ready()

    # every socket is loopback's: 0100007F is 127.0.0.1 in /proc's byte order
    addresses = listening_addresses(served.processes())
    assert len(addresses) > 3
    assert set(addresses) <= {"0100007F", "0000000000000000FFFF00000100007F"}

    # the command line, from a local file to a checked dataset
    small = conversations(30)
    (tmp_path / "small.jsonl").write_bytes(small)
    spec = {**LONG_JOB, "source": {"path": str(tmp_path / "small.jsonl")}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    assert main(["submit", str(tmp_path / "spec.json"), "--out", str(tmp_path / "small"), "--url", served.url]) == 0
    manifest = read_manifest(tmp_path / "small")
    for file in (*manifest.files, *manifest.documents):
        check_file(tmp_path / "small", file.path, file.bytes, file.sha256)
    assert [(f.path, f.sha256) for f in manifest.files] == digests_inline(tmp_path, small)

    # kill -9 of the runner in mid-job
    job = served.submit()
    served.wait_halfway(job)
    killed = served.runner()
    os.kill(killed, signal.SIGKILL)
    standing = {
        f"data/{place.name}": place.stat().st_mtime_ns
        for place in tmp_path.glob("data/objects/datasets/*/data/*-of-00200.parquet")
    }
    done = served.wait_done(job)
    assert (done["state"], done["attempt"]) == ("succeeded", 2), served.told()
    assert served.runner() != killed
    files = served.http.get(f"/v1/datasets/{done['dataset_id']}/manifest").json()["files"]
    assert [(f["path"], f["sha256"]) for f in files] == digests_inline(tmp_path, LONG_SOURCE)
    shards = tmp_path / "data" / "objects" / "datasets" / done["dataset_id"]
    kept = [path for path, modified in standing.items() if (shards / path).stat().st_mtime_ns == modified]
    assert len(kept) >= 10, "the second runner built everything anew"

    seconds, left = served.stop(signal.SIGTERM)
    assert (served.process.returncode, left) == (0, {}), served.told()
    assert seconds < 5
    assert "Traceback" not in served.told()


def test_ctrl_c_in_mid_job_hands_it_back_and_leaves_no_process(serve):
    served = serve()
    served.wait_ready()
    job = served.submit()
    served.wait_halfway(job)
    told = []
    stream = threading.Thread(
        target=lambda: told.append(
            served.http.get(f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}).text
        )
    )
    stream.start()
    time.sleep(0.3)
    seconds, left = served.stop(signal.SIGINT)
    stream.join()
    assert (served.process.returncode, left) == (0, {}), served.told()
    assert seconds < 5
    assert "event: bye" in told[0]
    assert "Traceback" not in served.told()

    again = serve()
    assert (again.job(job)["state"], again.job(job)["attempt"]) in [("queued", 0), ("running", 1)]
    again.wait_ready()
    done = again.wait_done(job)
    assert (done["state"], done["attempt"]) == ("succeeded", 1)
    begun = time.monotonic()
    cancelled = again.submit(seed=1)
    again.wait_halfway(cancelled)
    begun = time.monotonic()
    assert again.http.post(f"/v1/jobs/{cancelled}/cancel").json()["state"] == "cancelling"
    assert again.wait_done(cancelled)["state"] == "cancelled"
    assert time.monotonic() - begun < 8
    # The job is cancelled first and what it left is removed then, for only its state is fenced.
    folder = Path(again.log.name).parent / "data" / "objects" / "datasets"
    deadline = time.monotonic() + 8
    while len(list(folder.iterdir())) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [place.name for place in folder.iterdir()] == [done["dataset_id"]]


def test_a_raylet_that_dies_under_an_idle_runner_costs_the_next_job_no_attempt(serve):
    served = serve()
    served.wait_ready()
    runner, killed = (
        served.runner(),
        [pid for pid, line in served.processes().items() if "raylet/raylet" in line.split(" ")[0]],
    )
    assert len(killed) == 1
    os.kill(killed[0], signal.SIGKILL)
    served.wait_for(lambda: killed[0] not in served.processes(), 5)
    job = served.submit(conversations(20))
    done = served.wait_done(job)
    assert (done["state"], done["attempt"]) == ("succeeded", 1), served.told()
    assert served.runner() != runner


def test_kill_9_of_serve_leaves_nothing(serve):
    served = serve()
    served.wait_ready()
    served.stop(signal.SIGKILL)
    deadline = time.monotonic() + 8
    while served.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert served.processes() == {}


def test_stopping_while_ray_starts(serve):
    served = serve()
    deadline = time.monotonic() + 20
    while not any("raylet" in line or "gcs_server" in line for line in served.processes().values()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    seconds, left = served.stop(signal.SIGTERM)
    assert (served.process.returncode, left) == (0, {}), served.told()
    assert seconds < 5


def test_a_port_in_use_is_one_line(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--data-dir", str(tmp_path), "--port", str(port)]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: cannot listen on 127.0.0.1:{port}: Address already in use")
    assert err.count("\n") == 1


def test_answers_do_not_wait_for_the_acknowledgement_of_their_heads():
    """Head and body are two writes: with Nagle's delay the second waits 40 ms on a connection that is kept."""

    async def ask() -> list[int]:
        found: list[int] = []

        def answered(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        sock = listen("127.0.0.1", 0, keys_exist=lambda: False)
        async with await asyncio.start_server(answered, sock=sock):
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            await reader.read()
            writer.close()
        return found

    assert asyncio.run(ask()) == [1]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
def test_a_host_that_others_can_reach_is_refused(tmp_path, capsys, host):
    assert main(["serve", "--data-dir", str(tmp_path), "--port", "0", "--host", host]) == 1
    err = capsys.readouterr().err
    assert "no keys yet" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "longweave.db").exists()
