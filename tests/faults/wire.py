"""Connections that are cut between an answer and who waits for it: after PostgreSQL's COMMIT, and after the API has taken a job.

A proxy reads what passes. Before it, the transaction stands and the job is queued; behind it, nobody knows.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from sqlalchemy import make_url

from packing.dataset.errors import BadRowError
from service.client import Client, RefusedError, UnreachableError, new_key
from service.engine.line import build_dataset
from service.jobs.watch import StopAskedError
from tests.faults.postgres import Found, House, Noticed
from tests.service.databases import PostgreSQL

KINDS: dict[str, tuple[str, ...]] = {
    "submit": ("INSERT INTO jobs",),
    "succeed": ("INSERT INTO datasets",),
    "claim": ("SKIP LOCKED", "INSERT INTO events"),
    "progress": ("UPDATE jobs SET shards_done",),
    "retry": ("UPDATE jobs SET state", "not_before="),
    "release": ("UPDATE jobs SET state", "attempt=(jobs.attempt -"),
    "fail": ("UPDATE jobs SET state", "error=", "lease_expires_at="),
    "cancel": ("UPDATE jobs SET state", "finished_at=", "INSERT INTO events"),
    "heartbeat": ("UPDATE jobs SET lease_expires_at", "jobs.attempt ="),
    "seen": ("runners",),
}
"""Transactions by what stands in their statements; the first that fits."""
ATTEMPTS = {"plain": 1, "broken": 2, "stopped": 1, "bad": 1, "cancelled": 1}
"""What jobs go through, and the attempts that costs at most where every answer arrives."""


class Drops:
    """Which answers are still to be lost, and which were."""

    def __init__(self, share: float, *, seed: int) -> None:
        self._lock, self._share, self._draws = threading.Lock(), share, np.random.default_rng(seed)
        self._wanted, self.done = Counter[str](), Counter[str]()

    def want(self, wanted: Mapping[str, int]) -> None:
        """Lose so many answers of each kind from now on."""
        with self._lock:
            self._wanted.update(wanted)

    def take(self, kind: str) -> bool:
        """Whether this one is to be lost: of those that are wanted, a drawn share."""
        with self._lock:
            if self._wanted[kind] <= 0 or self._draws.random() >= self._share:
                return False
            self._wanted[kind] -= 1
            return True

    def lost(self, kind: str) -> None:
        """An answer was lost for certain: it had come, and went no further."""
        with self._lock:
            self.done[kind] += 1

    def left(self) -> int:
        """How many are still wanted."""
        with self._lock:
            return sum(count for count in self._wanted.values() if count > 0)


class Line(Protocol):
    """One connection, watched."""

    def sent(self, data: bytes) -> None:
        """The client has sent this; it is passed on afterwards."""

    def answered(self, data: bytes) -> bytes | None:
        """What of the server's answer goes to the client; None cuts the connection."""


class Proxy:
    """Listens on loopback and passes connections on, each watched by a line of its own."""

    def __init__(self, connect: Callable[[], socket.socket], watch: Callable[[], Line]) -> None:
        self._connect, self._watch = connect, watch
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.getsockname()[1]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            line, pair = self._watch(), (client, server)
            self._open.update(pair)
            for source, sink, pass_on in ((client, server, _forward(line)), (server, client, line.answered)):
                threading.Thread(target=self._relay, args=(source, sink, pass_on, pair), daemon=True).start()

    def _relay(
        self,
        source: socket.socket,
        sink: socket.socket,
        pass_on: Callable[[bytes], bytes | None],
        pair: tuple[socket.socket, socket.socket],
    ) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and (rest := pass_on(data)) is not None:
                sink.sendall(rest)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self._open.discard(end)

    def close(self) -> None:
        """Listen no longer, and cut what is open."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _forward(line: Line) -> Callable[[bytes], bytes]:
    def pass_on(data: bytes) -> bytes:
        line.sent(data)
        return data

    return pass_on


class DatabaseLine:
    """A connection to PostgreSQL (protocol 3.0, in clear): statements are read to know a transaction's kind when its COMMIT comes."""

    def __init__(self, drops: Drops) -> None:
        self._drops = drops
        self._sent, self._answered = b"", b""
        self._started = False
        self._named: dict[bytes, str] = {}
        self._statements: list[str] = []
        self._losing: str | None = None

    def sent(self, data: bytes) -> None:
        """Follow the client's messages: simple queries, and statements that are prepared once and bound by name later."""
        self._sent += data
        if not self._started:  # the first message has no type, only its length
            if len(self._sent) < 4 or len(self._sent) < struct.unpack("!I", self._sent[:4])[0]:
                return
            self._sent = self._sent[struct.unpack("!I", self._sent[:4])[0] :]
            self._started = True
        messages, self._sent = _messages(self._sent)
        for kind, body in messages:
            if kind == b"Q":
                self._meet(body.rstrip(b"\0").decode())
            elif kind == b"P":
                name, statement = body.split(b"\0")[:2]
                self._named[name] = statement.decode()
            elif kind == b"B":
                self._meet(self._named[body.split(b"\0")[1]])

    def _meet(self, statement: str) -> None:
        if statement.startswith(("BEGIN", "ROLLBACK")):
            self._statements.clear()
        elif statement == "COMMIT":
            kind = kind_of("\n".join(self._statements))
            if kind is not None and self._drops.take(kind):
                self._losing = kind
        else:
            self._statements.append(statement)

    def answered(self, data: bytes) -> bytes | None:
        """Pass everything on but the answer to a COMMIT that is to be lost; it has come whole when the server is ready again."""
        if self._losing is None:
            return data
        self._answered += data
        messages, self._answered = _messages(self._answered)
        if not any(kind == b"Z" for kind, _ in messages):
            return b""
        assert any(kind == b"C" and body.startswith(b"COMMIT") for kind, body in messages), messages
        self._drops.lost(self._losing)
        return None


def _messages(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Whole messages (type, body), and what is left of one that is not."""
    found: list[tuple[bytes, bytes]] = []
    while len(data) >= 5 and len(data) >= 1 + (length := struct.unpack("!I", data[1:5])[0]):
        found.append((data[:1], data[5 : 1 + length]))
        data = data[1 + length :]
    return found, data


def kind_of(statements: str) -> str | None:
    """The kind of a transaction by its statements; None for one that is of no interest here."""
    return next((kind for kind, words in KINDS.items() if all(word in statements for word in words)), None)


class RequestLine:
    """A connection to the API: answers to `POST /v1/jobs` may be lost, once the first of their bytes have come."""

    def __init__(self, drops: Drops) -> None:
        self._drops, self._losing = drops, False

    def sent(self, data: bytes) -> None:
        """Look whether a request for a job begins here: our client sends none before it has the answer to the last."""
        if data.startswith(b"POST /v1/jobs?") and self._drops.take("request"):
            self._losing = True

    def answered(self, data: bytes) -> bytes | None:
        """Pass an answer on, or cut the connection."""
        if not self._losing:
            return data
        self._drops.lost("request")
        return None


class Trouble:
    """A build that goes wrong once as the job's name says, and then does what it should."""

    def __init__(self) -> None:
        self._tried = Counter[str]()

    def __call__(self, **given: Any) -> Any:
        """build_dataset, or an error that ends the attempt."""
        work, name = given["work"], given["spec"].name
        self._tried[work] += 1
        if self._tried[work] == 1 and name == "broken":
            raise OSError
        if self._tried[work] == 1 and name == "stopped":
            raise StopAskedError
        if name == "bad":
            raise BadRowError("source.jsonl", 1, "not what it should be")
        manifest = build_dataset(**given)
        time.sleep(0.2)  # for heartbeats: the build itself is over before the second of them
        return manifest


def through(server: PostgreSQL, drops: Drops) -> Proxy:
    """A proxy before a database server."""

    def connect() -> socket.socket:
        end = socket.socket(socket.AF_UNIX)
        end.connect(server.socket)
        return end

    return Proxy(connect, lambda: DatabaseLine(drops))


def lost_answers(folder: Path, server: PostgreSQL, wanted: Mapping[str, int], *, share: float, seed: int) -> Found:
    """Jobs of every ending, until as many answers of each kind were lost as are wanted; then each job must be as if none had been.

    `share` of the answers are lost until then, at random.
    """
    url = server.new_database()
    drops = Drops(share, seed=seed)
    database = through(server, drops)
    clear = {"sslmode": "disable", "gssencmode": "disable"}
    near = make_url(url).set(host="127.0.0.1", port=database.port, query=clear)
    house = House(folder, url=near.render_as_string(), direct=url, build=Trouble())
    port = int(house.url.rpartition(":")[2])
    api = Proxy(lambda: socket.create_connection(("127.0.0.1", port)), lambda: RequestLine(drops))
    found, jobs = Found(), dict[str, str]()
    try:
        with Noticed() as noticed:
            drops.want(wanted)
            while drops.left():
                assert len(jobs) < 20 * sum(wanted.values()), drops.done
                asked = {_ask(f"http://127.0.0.1:{api.port}", house, name): name for name in ATTEMPTS}
                for job in asked:
                    house.wait(job)
                jobs |= asked
        _look(house, jobs, found)
        found.noticed, found.delivered = noticed.counts, drops.done
        found.figures.delivered = drops.done.total()
    finally:
        api.close()
        house.close()
        database.close()
    return found


def _ask(url: str, house: House, name: str) -> str:
    """Have a job made (and cancelled where its name says so) by a client that asks until it is answered."""
    key = new_key()
    with Client(url, pause=0.01) as client:
        job = _patiently(lambda: client.submit(house.spec(name), key=key))
        if name == "cancelled":
            _patiently(lambda: client.cancel(job["id"]))
    return job["id"]


def _patiently(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    while True:
        try:
            return call()
        except (UnreachableError, RefusedError) as error:
            if isinstance(error, RefusedError) and error.status != 503:
                raise
            time.sleep(0.02)


def _look(house: House, jobs: dict[str, str], found: Found) -> None:
    """Hold what became of the jobs against what would have become of them."""
    ends = {"bad": "failed", "cancelled": "cancelled"}
    for job_id, name in jobs.items():
        job = house.wait(job_id)
        found.figures.jobs += 1
        found.figures.lost += job["state"] != ends.get(name, "succeeded")
        found.charged += max(0, job["attempt"] - ATTEMPTS[name])
        if job["state"] == "succeeded":
            found.figures.wrong += house.digests(job) != house.right
    good = 1 + sum(name not in ends for name in jobs.values())  # the first job is the house's own
    known, made, told = house.counts()
    found.doubled = abs(known - 1 - len(jobs)) + abs(made - good) + abs(told - good)
    assert not house.broken, house.broken
