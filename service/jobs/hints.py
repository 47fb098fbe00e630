"""A hint that a job waits: PostgreSQL's NOTIFY, so that a runner need not ask all the time.

It is no more than that. A hint that is lost, or a listener that is cut off, costs the pause between two questions and nothing else;
on SQLite there are none.
"""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

import psycopg
from sqlalchemy import Connection, Engine, text

from service.jobs.database import patience

CHANNEL = "longweave_jobs"
SLICE_SECONDS = 0.25
AGAIN_SECONDS = 1.0

log = logging.getLogger("longweave.hints")


def give_hint(connection: Connection) -> None:
    """Tell runners, when the transaction commits, that there is a job to claim."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"NOTIFY {CHANNEL}"))


class Hints:
    """Listens while it is entered; `wait` returns early for a hint."""

    def __init__(self, engine: Engine, *, idle_seconds: float, listening_seconds: float) -> None:
        self._engine = engine
        self._idle, self._listening_idle = idle_seconds, listening_seconds
        self._hinted, self._closing = threading.Event(), threading.Event()
        self._connection: psycopg.Connection | None = None
        self._thread: threading.Thread | None = None

    @property
    def listening(self) -> bool:
        """Whether a hint would be heard now."""
        return self._connection is not None

    def wait(self, stopping: threading.Event) -> None:
        """Wait for a hint, for `stopping`, or for the pause between two questions: short where nothing is heard, longer where it is."""
        left = self._listening_idle if self.listening else self._idle
        while left > 0 and not stopping.is_set() and not self._hinted.wait(min(SLICE_SECONDS, left)):
            left -= SLICE_SECONDS
        self._hinted.clear()

    def __enter__(self) -> Self:
        if self._engine.dialect.name == "postgresql":
            self._thread = threading.Thread(target=self._listen, name="hints", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen_once()
            except psycopg.Error as error:
                log.warning("no hints from the database error=%s", type(error).__name__)
            self._connection = None
            self._closing.wait(AGAIN_SECONDS)

    def _listen_once(self) -> None:
        words, settings = self._engine.dialect.create_connect_args(self._engine.url)
        with psycopg.connect(*words, **{**patience(self._engine.url), **settings}, autocommit=True) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            self._connection = connection
            self._hinted.set()  # what came before we listened
            while not self._closing.is_set():
                for _ in connection.notifies(timeout=SLICE_SECONDS, stop_after=1):
                    self._hinted.set()
