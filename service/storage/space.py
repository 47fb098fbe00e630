"""Room on the disk: whether an error says that there is none, and whether there is enough before work begins."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.problems import InsufficientStorageError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the kernel says: the disk is full, a quota is, or the file may not grow (a file system's or a process's limit)."""
FULL_SENTENCES = ("no space left on device", "disk quota exceeded", "file too large", "database or disk is full")
"""The same by its words: what obstore (Rust) and SQLite leave of it."""
POSTGRESQL_FULL = "53100"
SQLITE_FULL = frozenset({"SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"})
"""What SQLite calls a quota or a file's limit, which it does not tell from a broken disk: none of them takes what is to be written."""
MARGIN = 1.3
"""Estimates are of what will stand; temporaries stand beside it."""


def out_of_space(error: BaseException) -> bool:
    """Whether an error, or one that it came of, says that something is full. Pure."""
    return any(_says_full(link) for link in chain(error))


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came of: Python's causes, the driver's (SQLAlchemy) and the worker's (Ray)."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        link = waiting.pop()
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [link.__cause__, link.__context__, getattr(link, "orig", None), getattr(link, "cause", None)]


def _says_full(error: BaseException) -> bool:
    if isinstance(error, InsufficientStorageError) or getattr(error, "sqlstate", None) == POSTGRESQL_FULL:
        return True
    if getattr(error, "sqlite_errorname", None) in SQLITE_FULL:
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    text = str(error).lower()
    return any(sentence in text for sentence in FULL_SENTENCES)


@contextmanager
def space_needed(path: str) -> Generator[None]:
    """Turn the errors of a full disk into InsufficientStorageError; `path` is what was being written."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InsufficientStorageError) or not out_of_space(error):
            raise
        message = f"there is no space left for {path}: free some, or give the data directory a larger disk"
        raise InsufficientStorageError(message) from error


def require_room(folder: Path | None, needed: float, *, reserve: int) -> None:
    """Raise InsufficientStorageError where the disk of `folder` has less than `needed` bytes (with a margin) beside the `reserve`.

    A remote store (None) is not asked.
    """
    if folder is None:
        return
    free = shutil.disk_usage(folder).free
    wanted = int(needed * MARGIN) + reserve
    if free < wanted:
        message = (
            f"the disk has {free:,} bytes free and this needs {wanted:,} ({int(needed):,} for what is still to be built, a margin, and "
            f"{reserve:,} that stay free): delete datasets, or give the data directory a larger disk"
        )
        raise InsufficientStorageError(message)
