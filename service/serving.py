"""An API server in a thread and a runner as a child process: what `serve` and `api` are made of.

uvicorn runs outside the main thread, where it leaves signals alone: Ctrl-C and SIGTERM end in an orderly stop and
exit code 0.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from packing.dataset.errors import LongweaveError
from service import processes
from service.app import create_app
from service.services import Services
from service.settings import Settings

GRACE_SECONDS = 2
RUNNER_STOP_SECONDS = 4.2
FIRST_PAUSE, LONGEST_PAUSE, SOUND_SECONDS = 0.3, 30.0, 60.0

log = logging.getLogger("longweave.serve")


class ListenError(LongweaveError):
    """The address cannot be listened on."""

    code = "listen"


def listen(host: str, port: int, *, keys_exist: Callable[[], bool]) -> socket.socket:
    """A listening socket.

    Raises ListenError for a port in use, and for a host that is not loopback while there are no keys.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        loopback = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
    except (OSError, ValueError) as error:
        message = f"{host} is no address of this machine ({error})"
        raise ListenError(message, param="host") from error
    if not loopback and not keys_exist():
        message = (
            f"{host} is open to other machines and there are no keys yet: make one with `longweave keys create NAME`, "
            "or serve loopback (127.0.0.1, ::1)"
        )
        raise ListenError(message, param="host")
    # asyncio turns off Nagle's delay (40 ms an answer on a connection that is kept) only where the protocol is said.
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(256)
    except OSError as error:
        sock.close()
        message = f"cannot listen on {host}:{port}: {error.strerror}; choose another --port or stop what uses it"
        raise ListenError(message, param="port") from error
    return sock


def reaches_others(sock: socket.socket) -> bool:
    """Whether other machines may reach a listening socket."""
    return not ipaddress.ip_address(str(sock.getsockname()[0]).partition("%")[0]).is_loopback


def url_of(sock: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class ApiThread:
    """The API on a socket, served from a thread."""

    def __init__(self, settings: Settings, sock: socket.socket) -> None:
        self._services = Services.open(settings)
        config = uvicorn.Config(
            create_app(settings, self._services, keys_only=reaches_others(sock)),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([sock],), name="api", daemon=True)

    def start(self) -> bool:
        """Serve; False where the server did not come up."""
        self._thread.start()
        while self._thread.is_alive() and not self._server.started:
            time.sleep(0.01)
        return self.alive()

    def alive(self) -> bool:
        """Whether the server runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Let streams say goodbye, finish what is short, and stop."""
        self._services.stopping.set()
        self._server.should_exit = True

    def join(self) -> None:
        """Wait for the end of it."""
        self._thread.join(GRACE_SECONDS + 1)


class RunnerChild:
    """A runner as a child process, started again when it dies.

    It ends when its standard input does, so it never outlives us.
    """

    def __init__(self, settings: Settings) -> None:
        self._data_dir = str(settings.data_dir)
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start the runner and keep one running."""
        processes.adopt_orphans()
        self._thread.start()

    def stop(self) -> None:
        """Tell the runner to stop."""
        self._stopping.set()
        process = self._process
        if process is not None:
            with contextlib.suppress(OSError):
                process.terminate()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()

    def join(self) -> None:
        """Wait until the runner is gone, by force in the end, and leave nothing of it behind."""
        self._thread.join(RUNNER_STOP_SECONDS)
        processes.end_descendants(within=0.5)
        self._thread.join(0.2)

    def _keep(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            begun = time.monotonic()
            code = self._run_one()
            if self._stopping.is_set():
                return
            # Ray's processes may outlive a runner that was killed; the next one starts its own.
            processes.end_descendants(within=1.0)
            pause = FIRST_PAUSE if time.monotonic() - begun > SOUND_SECONDS else min(LONGEST_PAUSE, pause * 2)
            log.warning("runner ended code=%s, starting another in %.1f s", code, pause)
            self._stopping.wait(pause)

    def _run_one(self) -> int:
        command = [sys.executable, "-m", "service.cli", "runner", "--until-stdin-closes", "--data-dir", self._data_dir]
        # A session of its own: Ctrl-C at the terminal is for us alone, and we tell the runner.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603
        if self._stopping.is_set():
            self.stop()
        while self._process.poll() is None:
            processes.reap_adopted(but=[self._process.pid])
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)
        return self._process.returncode


def until_signalled(alive: Callable[[], bool]) -> None:
    """Wait for SIGTERM, Ctrl-C, or the end of `alive`."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    while not stop.is_set() and alive():
        stop.wait(0.5)


def serve(settings: Settings, sock: socket.socket, *, announce: Callable[[str], None], with_runner: bool) -> int:
    """Serve until told to stop; the exit code is 0 then, and 1 where the server ended by itself."""
    api = ApiThread(settings, sock)
    runner = RunnerChild(settings) if with_runner else None
    if not api.start():
        return 1
    if runner is not None:
        runner.start()
    announce(url_of(sock))
    until_signalled(api.alive)
    sound = api.alive()
    api.stop()
    if runner is not None:
        runner.stop()
    api.join()
    if runner is not None:
        runner.join()
    log.info("stopped pid=%d", os.getpid())
    return 0 if sound else 1
