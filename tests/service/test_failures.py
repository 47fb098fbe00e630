"""What an error means for its job: the table of classes, full disks in every wording, who is tried again and when."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from packing.dataset.errors import BadRowError, FieldProblem, SpecError
from service.engine.executor import WorkerLostError
from service.engine.poison import ShardPoisonedError
from service.jobs import failures
from service.jobs.failures import FailureClass, failure_of, pause, tried_again
from service.problems import InsufficientStorageError, UnavailableError
from service.storage.objects import StorageError, StoreAwayError

TRANSIENT, RESOURCE, PERMANENT = FailureClass


def full():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def caused(outer, inner):
    outer.__cause__ = inner
    return outer


def ray_error(name, cause=None):
    kind = type(name, (Exception,), {"cause": cause, "__module__": "ray.exceptions"})
    return kind("ray::run_task() (pid=1)\nTraceback …")


class PostgresFull(Exception):  # noqa: N818 (psycopg names it so)
    sqlstate = "53100"


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (RuntimeError("odd"), TRANSIENT, "internal_error"),
        (OSError(errno.EIO, "input/output error"), TRANSIENT, "internal_error"),
        (OperationalError("UPDATE", {}, Exception("away")), TRANSIENT, "internal_error"),
        (UnavailableError("away"), TRANSIENT, "unavailable"),
        (StoreAwayError("Generic S3 error"), TRANSIENT, "unavailable"),
        (ray_error("RayTaskError", StoreAwayError("Generic S3 error")), TRANSIENT, "unavailable"),
        (StoreAwayError("LocalFileSystem: No space left on device"), RESOURCE, "insufficient_storage"),
        (ray_error("RaySystemError"), TRANSIENT, "engine_lost"),
        (ray_error("RayTaskError", RuntimeError("odd")), TRANSIENT, "internal_error"),
        (full(), RESOURCE, "insufficient_storage"),
        (OSError(errno.EDQUOT, "quota"), RESOURCE, "insufficient_storage"),
        (OSError(errno.EFBIG, "big"), RESOURCE, "insufficient_storage"),
        (InsufficientStorageError("none left"), RESOURCE, "insufficient_storage"),
        (ray_error("RayTaskError", full()), RESOURCE, "insufficient_storage"),
        (caused(RuntimeError("odd"), full()), RESOURCE, "insufficient_storage"),
        (OperationalError("INSERT", {}, Exception("database or disk is full")), RESOURCE, "insufficient_storage"),
        (OperationalError("INSERT", {}, PostgresFull()), RESOURCE, "insufficient_storage"),
        (MemoryError(), RESOURCE, "out_of_memory"),
        (caused(RuntimeError("odd"), MemoryError()), RESOURCE, "out_of_memory"),
        (BadRowError("a.jsonl", 1, "not JSON"), PERMANENT, "bad_row"),
        (SpecError([FieldProblem(pointer="/a", message="b")]), PERMANENT, "invalid_spec"),
        (ShardPoisonedError("shard 3"), PERMANENT, "shard_poisoned"),
        (WorkerLostError(b"{}"), TRANSIENT, "worker_lost"),
        (StorageError("damaged"), PERMANENT, "storage"),
    ],
)
def test_every_error_has_its_class(error, kind, code):
    failure = failure_of(error)
    assert (failure.kind, failure.code) == (kind, code)
    assert failure.message
    assert "Traceback" not in failure.message


def test_an_error_that_is_its_own_cause_ends_the_search():
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert failure_of(first).code == "internal_error"


@pytest.mark.parametrize(
    ("code", "attempt", "earlier", "again"),
    [
        ("internal_error", 1, [], True),
        ("internal_error", 2, ["internal_error"], True),
        ("internal_error", 3, ["internal_error"] * 2, False),
        ("internal_error", 2, ["insufficient_storage"], True),
        ("insufficient_storage", 1, [], True),
        ("insufficient_storage", 2, ["internal_error"], True),
        ("insufficient_storage", 2, ["insufficient_storage"], False),
        ("out_of_memory", 2, ["insufficient_storage"], False),
        ("insufficient_storage", 3, [], False),
        ("bad_row", 1, [], False),
    ],
)
def test_who_is_tried_again(code, attempt, earlier, again):
    failure = failures.Failure(kind=failures.class_of(code), code=code, message="m")
    assert tried_again(failure, attempt=attempt, attempts=3, earlier=earlier) is again


@given(st.text(min_size=1), st.integers(1, 60), st.floats(0, 100))
def test_pauses_grow_within_their_bounds(job_id, attempt, first):
    drawn = pause(job_id, attempt=attempt, first=first)
    whole = min(300.0, first * 2 ** (attempt - 1))
    assert 0.8 * whole <= drawn <= whole
    assert drawn == pause(job_id, attempt=attempt, first=first)


def test_jobs_that_failed_together_come_back_apart():
    assert len({pause(f"job_{number}", attempt=1, first=5) for number in range(50)}) == 50
