"""A reader ahead of the training thread: what comes next is read while the present step is computed."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from typing import Generic, TypeVar

T = TypeVar("T")
AHEAD = 2
"""Steps that are held ready: enough to hide a slow read behind a step, few enough to cost little memory."""
PATIENCE = 0.1
"""Seconds after which a reader that finds no room looks whether anybody still wants what it reads."""


@contextmanager
def ahead(items: Iterator[T], *, count: int = AHEAD) -> Generator[Iterator[T]]:
    """The same items in the same order, up to `count` of them read beforehand by a thread of its own.

    What reading raises is raised in its place, after all items before it. On leaving, the thread ends with the item it
    is at, and is waited for.
    """
    reader = _Reader(items, count)
    reader.thread.start()
    try:
        yield reader
    finally:
        reader.close()


class _Reader(Generic[T]):
    def __init__(self, items: Iterator[T], count: int) -> None:
        self._items = items
        # The end, and what ended it, have room beside the items: a reader is never kept from saying it.
        self._ready: Queue[tuple[T] | BaseException] = Queue()
        self._room = threading.Semaphore(count)
        self._closed = threading.Event()
        self.thread = threading.Thread(target=self._read, name="rows ahead", daemon=True)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        found = self._ready.get()
        if isinstance(found, BaseException):
            self._ready.put(found)  # asked again, it says so again
            raise found
        self._room.release()
        return found[0]

    def close(self) -> None:
        """Let the thread end, wait for it, and forget what it had read."""
        self._closed.set()
        self.thread.join()
        while True:
            try:
                self._ready.get_nowait()
            except Empty:
                return

    def _read(self) -> None:
        try:
            while self._wanted():
                self._ready.put((next(self._items),))
        except BaseException as error:
            self._ready.put(error)

    def _wanted(self) -> bool:
        """Wait for room; False once nobody wants more."""
        while not self._room.acquire(timeout=PATIENCE):
            if self._closed.is_set():
                return False
        return not self._closed.is_set()
