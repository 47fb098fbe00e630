"""What a runner has in hand while it builds: the lease kept alive in a thread, and progress counted from receipts."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Protocol, Self

from sqlalchemy.exc import SQLAlchemyError

from service.jobs.job import Job, Lease, Progress
from service.jobs.leases import LeaseLostError, LeaseStore
from service.jobs.shard_times import Built

PROGRESS_SECONDS = 0.5
"""Progress is written at most this often, and always after the last shard."""

LOOK_SECONDS = 0.5
"""Between heartbeats we only look whether somebody has asked for the job's end."""

PATIENCE_SECONDS = 1.5
"""A build that has not stopped by then, in a long plan or inside C code, is let go of: its job is ended without it."""

log = logging.getLogger("longweave.runner")


class CancelAskedError(Exception):
    """Somebody wants the job to end."""


class StopAskedError(Exception):
    """The runner is told to stop."""


class Counted(Protocol):
    """What a receipt says about its shard."""

    @property
    def rows(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def seconds(self) -> float: ...


class Hold:
    """Keeps a lease alive from a thread of its own for as long as the `with` block runs.

    A heartbeat that cannot be written is tried again until the lease would have run out by our own clock; from then
    on the job is taken for lost, for another runner may have it.

    A build that does not stop within moments of a cancel, or of `stopping`, is let go of: the job is cancelled or handed
    back from here, `let_go` is the job then, and whatever the build still does is a zombie's.
    """

    def __init__(
        self,
        store: LeaseStore,
        lease: Lease,
        *,
        runner_id: str,
        every: float,
        lease_seconds: float,
        stopping: threading.Event | None = None,
    ) -> None:
        self._store = store
        self._lease = lease
        self._runner_id = runner_id
        self._every = every
        self._lease_seconds = lease_seconds
        self._stopping = stopping or threading.Event()
        self._asked_at: float | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.cancel_asked = False
        self.lost = False
        self.let_go: Job | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._done.wait(min(self._every, LOOK_SECONDS)):
            begun = time.monotonic()
            try:
                if begun - renewed < self._every:
                    self.cancel_asked = self._store.cancel_asked(self._lease)
                else:
                    self.cancel_asked = self._store.heartbeat(self._lease)
                    self._store.seen(self._runner_id)
                    renewed = begun
                if self._out_of_patience():
                    self._let_go()
                    return
            except LeaseLostError:
                self.lost = True
                return
            except SQLAlchemyError as error:
                log.warning("heartbeat failed job=%s error=%s", self._lease.job_id, type(error).__name__)
                if time.monotonic() - renewed > self._lease_seconds:
                    self.lost = True
                    return

    def _out_of_patience(self) -> bool:
        """Whether the build was to stop and has had its time to."""
        if not self.cancel_asked and not self._stopping.is_set():
            return False
        self._asked_at = self._asked_at or time.monotonic()
        return time.monotonic() - self._asked_at >= PATIENCE_SECONDS and not self._done.is_set()

    def _let_go(self) -> None:
        log.warning("job=%s is let go of: its build does not stop", self._lease.job_id)
        self.let_go = self._store.stop(self._lease) if self.cancel_asked else self._store.release(self._lease)


class JobWatch:
    """The Watch that build_dataset reports to."""

    def __init__(self, store: LeaseStore, lease: Lease, hold: Hold, stopping: threading.Event) -> None:
        self._store = store
        self._lease = lease
        self._hold = hold
        self._stopping = stopping
        self._progress = Progress()
        self._built = 0  # by us: shards that were found say nothing about how long the rest takes
        self._untold: list[Built] = []
        self._planned_at = 0.0
        self._written_at = 0.0

    def planned(self, shards: int) -> None:
        """The plan is made."""
        self._planned_at = time.monotonic()
        self._progress = Progress(shards_total=shards)
        self._write()

    def built(self, receipt: Counted, *, found: bool) -> None:
        """A shard is there, built now or `found` from an earlier attempt."""
        before = self._progress
        if not found:
            self._built += 1
            self._untold.append(Built(seconds=receipt.seconds, tokens=receipt.tokens))
        done = before.shards_done + 1
        self._progress = Progress(
            shards_done=done,
            shards_total=before.shards_total,
            rows=before.rows + receipt.rows,
            tokens=before.tokens + receipt.tokens,
            bytes=before.bytes + receipt.bytes,
            eta_seconds=self._eta(done, before.shards_total),
        )
        if done == before.shards_total or time.monotonic() - self._written_at > PROGRESS_SECONDS:
            self._write()

    def check(self) -> None:
        """Raise where the build has to stop: the lease is lost, a cancel was asked for, or the runner stops."""
        if self._hold.lost:
            message = f"the lease on {self._lease.job_id} is no longer ours"
            raise LeaseLostError(message, param=self._lease.job_id)
        if self._hold.cancel_asked:
            raise CancelAskedError
        if self._stopping.is_set():
            raise StopAskedError

    def _eta(self, done: int, total: int | None) -> float | None:
        if total is None or not self._built:
            return None
        elapsed = time.monotonic() - self._planned_at
        return round(elapsed / self._built * (total - done), 1)

    def _write(self) -> None:
        self._written_at = time.monotonic()
        try:
            self._store.progress(self._lease, self._progress, self._untold)
            self._untold = []
        except SQLAlchemyError as error:
            # The build goes on without being seen; whether it may is for the heartbeat to find out.
            log.warning("progress not written job=%s error=%s", self._lease.job_id, type(error).__name__)
