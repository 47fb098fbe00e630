"""A service of our own for rows that ask one: a process, a client, uploads and jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2


@contextmanager
def served(folder: Path, command: str, **environ: str) -> Iterator[httpx2.Client]:
    """`longweave COMMAND` (api or serve) with its data below `folder`, which is made; ended afterwards."""
    folder.mkdir()
    line = [
        sys.executable,
        "-m",
        "service.cli",
        command,
        "--json",
        "--port",
        "0",
        "--data-dir",
        str(folder / "service"),
    ]
    with (folder / "log").open("w") as told:
        server = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=told, text=True, env=os.environ | environ)
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            with httpx2.Client(base_url=url, timeout=60, trust_env=False) as http:
                yield http
        finally:
            server.terminate()
            server.wait()


def upload(http: httpx2.Client, path: Path) -> str:
    """A file sent, as an upload's id."""
    answer = http.post("/v1/uploads", content=path.read_bytes(), headers={"Content-Type": "application/jsonl"})
    return answer.raise_for_status().json()["id"]


def tokens_of_job(http: httpx2.Client, spec: dict[str, Any]) -> int:
    """A job from its submission to its end, asked for every 20 ms; the tokens of its dataset."""
    job = http.post("/v1/jobs", json=spec).raise_for_status().json()
    while job["state"] not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.02)
        job = http.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
    if job["state"] != "succeeded":
        raise RuntimeError(str(job))
    return int(job["progress"]["tokens"])


def wait_ready(http: httpx2.Client) -> None:
    """Until a runner is there and takes jobs."""
    while http.get("/readyz").json()["status"] != "ready":
        time.sleep(0.1)
