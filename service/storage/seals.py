"""Seals: what a job keeps for itself ends with the SHA-256 of the rest, so that a torn write or a flipped bit is no fact to build on."""

from __future__ import annotations

import hashlib

from packing.dataset.errors import LongweaveError

LENGTH = 1 + 64
"""A line break and 64 hexadecimal digits."""


class DamagedError(LongweaveError):
    """An object of a job's work is not what was written: the next attempt makes it again."""

    code = "damaged_object"


def seal(data: bytes) -> bytes:
    """`data` with its digest behind it."""
    return data + b"\n" + hashlib.sha256(data).hexdigest().encode()


def unseal(sealed: bytes, *, path: str) -> bytes:
    """The inverse of `seal`; raises DamagedError, naming `path`, for anything else."""
    data = sealed[:-LENGTH]
    if len(sealed) < LENGTH or sealed != seal(data):
        message = (
            f"{path} is damaged in the store: it is not what was written, and is made again when the job is tried again"
        )
        raise DamagedError(message, param=path)
    return data
