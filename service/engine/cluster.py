"""Ray nodes of ours on several machines: a head beside the runner, workers that join it, and no cluster that is open to everybody.

An open Ray runs whatever anybody sends to it. Nodes of ours start with token authentication and without a dashboard, and before
a cluster is joined we ask it for its nodes with a wrong token: one that answers is not joined.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress

from packing.dataset.errors import LongweaveError

TOKEN = "LONGWEAVE_RAY_TOKEN"  # noqa: S105 (the variable's name)
LEAST_TOKEN = 32
"""Characters: 128 bits in hexadecimal digits."""
OBJECT_STORE_BYTES = 100 * 1024 * 1024
"""Tasks hand over some JSON, never data: Ray's object store stays near its least size."""
REACH_SECONDS = 60.0
STOP_SECONDS = 10.0
SOCKET_NAME = 107
"""Bytes of a Unix socket's name at most; Ray's are made of its folder and some 70 more."""
SESSION = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
REFUSED, OPEN = "Unauthenticated", "let in"

NODE_ENVIRONMENT = {
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # it prints a stack trace at every SIGTERM
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",  # one task, one core: Ray counts them
    "RAYON_NUM_THREADS": "1",
}

_ASK = f"""
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)
print({OPEN!r}, flush=True)
"""


class ClusterError(LongweaveError):
    """A Ray cluster that cannot be reached, is open to everybody, or cannot be started."""

    code = "ray_cluster"


def authenticate(environ: MutableMapping[str, str]) -> None:
    """Have Ray in this process, and in those it starts, use the token in LONGWEAVE_RAY_TOKEN; raises ClusterError without a sound one."""
    token = environ.get(TOKEN, "")
    if len(token) < LEAST_TOKEN:
        message = (
            f"a Ray cluster needs {TOKEN}, at least {LEAST_TOKEN} characters and the same on every node: without it "
            "anybody who reaches a node could run programs on it"
        )
        raise ClusterError(message, param=TOKEN)
    environ["RAY_AUTH_MODE"] = "token"
    environ["RAY_AUTH_TOKEN"] = token


def check_folder(environ: Mapping[str, str]) -> None:
    """Raise ClusterError where Ray's folder has a name too long for the sockets that it makes there: Ray says that in words of the kernel,
    or as a node not at all."""
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in environ else "TMPDIR"
    folder = environ.get(name, "/tmp")  # noqa: S108 (what Ray takes)
    if len(os.fsencode(folder + SESSION)) > SOCKET_NAME:
        most = SOCKET_NAME - len(SESSION)
        message = f"Ray's sockets have no room below {name}={folder}: set RAY_TMPDIR to a folder of at most {most} bytes, such as /tmp"
        raise ClusterError(message, param=name)


def parse_address(address: str) -> tuple[str, int]:
    """(host, port) of LONGWEAVE_RAY_ADDRESS; raises ClusterError for anything but HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
        message = f"LONGWEAVE_RAY_ADDRESS must be HOST:PORT of the head's Ray, not {address!r}"
        raise ClusterError(message, param="LONGWEAVE_RAY_ADDRESS")
    return host, int(port)


def head_words(address: str, *, cpus: int) -> list[str]:
    """What `ray start` is told for a head at `address`, which is a name of this machine."""
    host, port = parse_address(address)
    return [*_words(cpus), "--head", "--include-dashboard=false", f"--node-ip-address={_ip(host)}", f"--port={port}"]


def worker_words(address: str, *, cpus: int) -> list[str]:
    """What `ray start` is told for a node that joins the head at `address`."""
    host, port = parse_address(address)
    return [*_words(cpus), f"--address={_ip(host)}:{port}"]


def _words(cpus: int) -> list[str]:
    sizes = [f"--num-cpus={cpus}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    return ["start", "--block", "--disable-usage-stats", "--include-log-monitor=false", *sizes]


def _ip(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        message = f"LONGWEAVE_RAY_ADDRESS: there is no machine by the name {host} ({error.strerror or error})"
        raise ClusterError(message, param="LONGWEAVE_RAY_ADDRESS") from error


class Node:
    """A Ray node as a child process in a session of its own."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str]) -> None:
        # Not `python -m ray`: which module that is changes from version to version, its entry point does not.
        command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *words]
        unset = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # it keeps a node's sockets on loopback, where no other node is
        environment = {k: v for k, v in environ.items() if k != unset} | NODE_ENVIRONMENT
        check_folder(environment)
        self._process = subprocess.Popen(  # noqa: S603
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # at its end it repeats whole logs, which stand in its folder below /tmp/ray
            start_new_session=True,
        )

    def alive(self) -> bool:
        """Whether the node runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the node: politely, then by force."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def wait_for_head(address: str, *, stopping: Callable[[], bool], seconds: float = REACH_SECONDS) -> None:
    """Return when the head's port answers, or `stopping`; raises ClusterError after `seconds`."""
    host, port = parse_address(address)
    deadline = time.monotonic() + seconds
    while not stopping():
        try:
            with socket.create_connection((host, port), timeout=2):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                message = f"no Ray answers at LONGWEAVE_RAY_ADDRESS ({address}): {error.strerror or error}"
                raise ClusterError(message, param="LONGWEAVE_RAY_ADDRESS") from error
            time.sleep(0.2)


def check_tokens(address: str, environ: Mapping[str, str]) -> None:
    """Raise ClusterError unless the cluster at `address` takes our token, and turns away who comes with another."""
    if _answer(address, environ, "0" * LEAST_TOKEN) == OPEN:
        message = f"the Ray cluster at {address} lets anybody in: start its nodes with RAY_AUTH_MODE=token and the token in {TOKEN}"
        raise ClusterError(message, param="LONGWEAVE_RAY_ADDRESS")
    if _answer(address, environ, environ["RAY_AUTH_TOKEN"]) == REFUSED:
        message = f"the Ray cluster at {address} does not take our {TOKEN}: it must be the same on every node"
        raise ClusterError(message, param=TOKEN)


def _answer(address: str, environ: Mapping[str, str], token: str) -> str:
    """OPEN or REFUSED: how the cluster meets a token. A process of its own asks, since Ray reads its token once a process."""
    host, port = parse_address(address)
    asking = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _ASK, f"{_ip(host)}:{port}"],
        env=dict(environ) | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert asking.stdout is not None
    said = ""
    try:
        for line in asking.stdout:  # Ray would go on trying for a while: the first answer is enough
            said += line
            if answer := next((word for word in (REFUSED, OPEN) if word in line), ""):
                return answer
    finally:
        asking.kill()
        asking.communicate()
    message = (
        f"the Ray cluster at {address} does not say whether it takes a token: {said.strip()[-200:] or 'no answer'}"
    )
    raise ClusterError(message, param="LONGWEAVE_RAY_ADDRESS")
