"""What an error means for the job that met it. Pure: one table, and no word of how the job is written down.

| class | examples | what follows |
|---|---|---|
| transient | a worker or all of Ray lost, a store or database away, anything unexpected | again after a pause, while attempts are left |
| resource | a full disk, no memory | what is left over is removed, then again once |
| permanent | a bad row, a spec that finds nothing, a poisoned shard | failed at once: the same spec would meet it again |
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from packing.dataset.errors import LongweaveError
from service.storage.objects import StoreAwayError
from service.storage.seals import DamagedError
from service.storage.space import chain, out_of_space

LONGEST_PAUSE = 300.0
JITTER = 0.2
"""The part of a pause that is drawn, so that jobs which failed together do not come back together."""


class FailureClass(StrEnum):
    """What trying again is good for."""

    TRANSIENT = "transient"
    RESOURCE = "resource"
    PERMANENT = "permanent"


CLASSES = {
    "internal_error": FailureClass.TRANSIENT,
    "engine_lost": FailureClass.TRANSIENT,
    "runner_lost": FailureClass.TRANSIENT,
    "worker_lost": FailureClass.TRANSIENT,
    "unavailable": FailureClass.TRANSIENT,
    DamagedError.code: FailureClass.TRANSIENT,
    "insufficient_storage": FailureClass.RESOURCE,
    "out_of_memory": FailureClass.RESOURCE,
}
"""The class of an error code; every other code of ours is permanent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error as a job shows it, and its class."""

    kind: FailureClass
    code: str
    message: str
    param: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The job's `error`."""
        return {"code": self.code, "message": self.message, "param": self.param}


def class_of(code: str) -> FailureClass:
    """What trying again is good for after an error of this code. Total."""
    return CLASSES.get(code, FailureClass.PERMANENT)


def failure_of(error: Exception) -> Failure:
    """What an error means for its job."""
    if out_of_space(error):
        ours = isinstance(error, LongweaveError)
        return _failure(
            "insufficient_storage", error.message if ours else f"there is no space left ({sentence(error)})"
        )
    if isinstance(error, LongweaveError):
        return _failure(error.code, error.message, error.param)
    if any(isinstance(link, MemoryError) for link in chain(error)):
        return _failure("out_of_memory", f"there is not enough memory ({sentence(error)})")
    if any(isinstance(link, StoreAwayError) for link in chain(error)):
        return _failure("unavailable", f"the object store did not do what it was asked ({sentence(error)})")
    code = "engine_lost" if engine_lost(error) else "internal_error"
    return _failure(code, f"an unexpected error, {sentence(error)}")


def engine_lost(error: Exception) -> bool:
    """Whether Ray itself has failed, and not a task of ours in it."""
    return type(error).__module__.partition(".")[0] == "ray" and cause(error) is error


def tried_again(failure: Failure, *, attempt: int, attempts: int, earlier: Sequence[str]) -> bool:
    """Whether a job whose attempt number `attempt` ended so is tried again; `earlier` are the codes its other attempts ended with."""
    if attempt >= attempts or failure.kind is FailureClass.PERMANENT:
        return False
    return failure.kind is FailureClass.TRANSIENT or all(
        class_of(code) is not FailureClass.RESOURCE for code in earlier
    )


def pause(job_id: str, *, attempt: int, first: float) -> float:
    """Seconds until the next attempt: `first`, doubled with every attempt, at most 300, less up to a fifth by job and attempt."""
    drawn = int.from_bytes(hashlib.sha256(f"{job_id} {attempt}".encode()).digest()[:4], "big") / 2**32
    return min(LONGEST_PAUSE, first * 2 ** (attempt - 1)) * (1 - JITTER * drawn)


def cause(error: Exception) -> Exception:
    """The error a task raised, out of the RayTaskError that Ray wraps it in (with a whole traceback for a message)."""
    inner = getattr(error, "cause", None)
    return inner if isinstance(inner, Exception) else error


def sentence(error: Exception) -> str:
    """An error in one line."""
    error = cause(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _failure(code: str, message: str, param: str | None = None) -> Failure:
    return Failure(kind=class_of(code), code=code, message=message, param=param)
