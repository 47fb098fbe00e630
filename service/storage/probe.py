"""What a remote store must do before anything is trusted to it: one winner among many creators, and read after write."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor

from service.storage.objects import Objects, StorageError, StoreAwayError

CREATORS = 32
VARIABLE = "LONGWEAVE_OBJECTS_URL"


def check_store(objects: Objects) -> None:
    """Race 32 creates on one key of a remote store and read it back; a local store is not asked, its file system does it.

    Datasets are committed by create-if-absent alone, so a store that lets two creators win could lose one. Raises StorageError
    where it is not exactly one, where what was written is not there at once, or where the store cannot be reached.
    """
    if objects.folder is not None:
        return
    path = f"probe/{secrets.token_hex(12)}"
    bodies = [f"{number:02d} of {CREATORS}".encode() for number in range(CREATORS)]
    try:
        with ThreadPoolExecutor(CREATORS) as pool:
            won = list(pool.map(lambda body: objects.create(path, body, staging=""), bodies))
        standing, part, listed = objects.read(path), objects.read_range(path, 3, 5), objects.list("probe")
        objects.delete([path])
        left = objects.size(path)
    except (StoreAwayError, OSError) as error:
        message = f"the object store {objects.url} cannot be used: {_first_line(error)}"
        raise StorageError(message, param=VARIABLE) from error
    if sum(won) != 1:
        message = (
            f"the object store {objects.url} does not honour conditional puts (If-None-Match: *): of {CREATORS} that created "
            f"one key at once {sum(won)} were told they had, not 1; take a store that does, such as S3, SeaweedFS or R2"
        )
        raise StorageError(message, param=VARIABLE)
    if standing != bodies[won.index(True)] or part != b"of" or path not in listed or left is not None:
        message = f"the object store {objects.url} does not read what was just written: take one that does at once, such as S3"
        raise StorageError(message, param=VARIABLE)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
