"""The runner: claims a job, has its dataset built, and writes what became of it.

The database is all it shares with the API.

Endings: what an error means is failures.py's to say; a cancel ends in `cancelled` with nothing left behind; when the
runner is told to stop, the job goes back to the queue and no attempt is charged. A runner that dies says nothing: its
lease runs out, and the next one finds the receipts of what is built.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from packing.dataset.errors import LongweaveError
from packing.dataset.manifest import Manifest
from packing.spec import CommonSpec
from service import kinds
from service.engine import poison
from service.engine.executor import Executor, WorkerLostError
from service.engine.line import build_dataset
from service.engine.poison import Mark
from service.faults import crash_point
from service.jobs import failures
from service.jobs.catalog import Catalog, DatasetEntry
from service.jobs.endings import ended
from service.jobs.failures import FailureClass
from service.jobs.hints import Hints
from service.jobs.job import Job, Lease, State
from service.jobs.leases import Claim, LeaseLostError, LeaseStore
from service.jobs.watch import CancelAskedError, Hold, JobWatch, StopAskedError
from service.library import folder_of
from service.resolve import resolve_sources, resolve_tokenizer
from service.settings import Settings
from service.storage.collect import Scope, collect
from service.storage.objects import Objects, StoreAwayError

IDLE_SECONDS = 0.25
LISTENING_SECONDS = 2.0
"""Between two questions for a job where the database gives hints: retries and silent runners' jobs come without one."""
AWAY_SECONDS = 2.0
COLLECT_SECONDS = 3600.0
"""What is left over is looked for this often."""

log = logging.getLogger("longweave.runner")


class EngineBrokenError(Exception):
    """The engine itself has failed: this process cannot build any more and should be replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a runner works with."""

    settings: Settings
    store: LeaseStore
    catalog: Catalog
    objects: Objects
    executor: Executor


class Runner:
    """One at a time: claim, build, report."""

    def __init__(
        self,
        parts: Parts,
        *,
        stopping: threading.Event,
        build: Callable[..., Manifest] = build_dataset,
        hints: Hints | None = None,
    ) -> None:
        self._parts = parts
        self._store = parts.store
        self._stopping = stopping
        self._build = build
        self._hints = hints
        self._claims = 0
        self._unsure: str | None = None
        self._collected = -math.inf
        self.id = f"runner_{secrets.token_hex(6)}"

    def run(self) -> None:
        """Work until told to stop; raises EngineBrokenError where the engine has failed."""
        tended = -math.inf
        try:
            while not self._stopping.is_set():
                if not self._parts.executor.alive():
                    message = "a process that Ray stands on has died"
                    raise EngineBrokenError(message)
                try:
                    if time.monotonic() - tended >= self._parts.settings.heartbeat_seconds:
                        self.tend()
                        tended = time.monotonic()
                    worked = self.run_once()
                except (SQLAlchemyError, StoreAwayError) as error:
                    away = "object store" if isinstance(error, StoreAwayError) else "database"
                    log.warning("%s not reached error=%s", away, type(error).__name__)
                    self._stopping.wait(AWAY_SECONDS)
                    worked = False
                if not worked:
                    self._rest()
        finally:
            self._say_goodbye()

    def _rest(self) -> None:
        if self._hints is None:
            self._stopping.wait(IDLE_SECONDS)
        else:
            self._hints.wait(self._stopping)

    def tend(self) -> None:
        """Say that we are alive, end what runners that are not have left to be ended, and now and then remove what is left over."""
        self._store.seen(self.id)
        for job in self._store.sweep(self._poison_in):
            log.warning("job=%s %s, its runner is silent", job.id, job.state)
            self._clear(job)
        if time.monotonic() - self._collected >= COLLECT_SECONDS:
            self._collect()

    def run_once(self) -> bool:
        """Claim and work on one job; False where there is none."""
        claim = self._claim()
        if claim is None:
            return False
        log.info("job=%s attempt=%d claimed kind=%s", claim.job.id, claim.job.attempt, claim.job.kind)
        crash_point("claimed")
        try:
            ended = self._work(claim)
        except LeaseLostError:
            # It is somebody else's now: touch nothing.
            log.warning("job=%s lease lost", claim.job.id)
            return True
        log.info("job=%s %s%s", ended.id, ended.state, f" code={ended.error['code']}" if ended.error else "")
        return True

    def _claim(self) -> Claim | None:
        """The next job; or the one that a claim took whose answer was lost."""
        if self._unsure is not None:
            claim = self._store.held(self._unsure)
            self._unsure = None
            if claim is not None:
                return claim
        self._claims += 1
        owner = f"{self.id}.{self._claims}"
        try:
            return self._store.claim(owner)
        except SQLAlchemyError:
            self._unsure = owner
            raise

    def _work(self, claim: Claim) -> Job:
        settings = self._parts.settings
        hold = Hold(
            self._store,
            claim.lease,
            runner_id=self.id,
            every=settings.heartbeat_seconds,
            lease_seconds=settings.lease_seconds,
            stopping=self._stopping,
        )
        watch = JobWatch(self._store, claim.lease, hold, self._stopping)
        try:
            with hold:
                return self._ended(claim, lambda: self._build_job(claim, watch))
        except LeaseLostError:
            # Asked only here, when the heartbeat's thread has ended: it may have been about to say so.
            if hold.let_go is None:
                raise
            job = hold.let_go
        # The job was ended without its build, which has come to its end only now.
        if job.state.ended:
            self._clear(job)
        return job

    def _ended(self, claim: Claim, build: Callable[[], Manifest]) -> Job:
        try:
            manifest = build()
        except CancelAskedError:
            return self._stopped(claim)
        except StopAskedError:
            return self._released(claim)
        except LeaseLostError:
            raise
        except Exception as error:
            return self._stumbled(claim, error)
        return self._succeeded(claim, manifest)

    def _build_job(self, claim: Claim, watch: JobWatch) -> Manifest:
        parts, job = self._parts, claim.job
        spec: CommonSpec = kinds.spec_of(dict(job.spec))
        return self._build(
            spec=spec,
            # Whether these are the owner's to use was decided when the job was taken.
            sources=resolve_sources(spec, parts.catalog, parts.objects),
            tokenizer=resolve_tokenizer(
                spec.tokenizer, owner=job.key_id, settings=parts.settings, catalog=parts.catalog, objects=parts.objects
            ),
            objects=parts.objects,
            work=work_folder(job),
            target=folder_of(job.target),
            executor=parts.executor,
            watch=watch,
            reserve=parts.settings.free_bytes,
        )

    def _succeeded(self, claim: Claim, manifest: Manifest) -> Job:
        try:
            entry = entry_of(claim.job, manifest)
            job = self._end(claim, lambda: self._store.succeed(claim.lease, entry, manifest.warnings))
        except LeaseLostError:
            # Either the lease is lost, and this raises it again, or a cancel came before the dataset was entered: the
            # cancel wins.
            return self._stopped(claim)
        crash_point("succeeded")
        self._clear(job)
        crash_point("cleared")
        return job

    def _stopped(self, claim: Claim) -> Job:
        job = self._end(claim, lambda: self._store.stop(claim.lease))
        self._clear(job)
        return job

    def _released(self, claim: Claim) -> Job:
        marks = self._marks(claim.job)
        job = self._end(claim, lambda: self._store.release(claim.lease))
        if job.state.ended:
            self._clear(job)
        else:
            self._forget(job, marks)
        return job

    def _end(self, claim: Claim, write: Callable[[], Job]) -> Job:
        return ended(
            self._store, claim.lease, write, within=self._parts.settings.lease_seconds, stopping=self._stopping
        )

    def _stumbled(self, claim: Claim, error: Exception) -> Job:
        """After an error: again later, or failed, as its class says."""
        failure, job, attempts = failures.failure_of(error), claim.job, self._parts.settings.attempts
        if not isinstance(error, LongweaveError):
            log.error("job=%s unexpected error", job.id, exc_info=error)
        lost = failures.engine_lost(error)
        died = lost or failure.code == WorkerLostError.code
        marks = {} if died else self._marks(job)
        told = failure.to_json()
        earlier = self._store.earlier_codes(job.id) if failure.kind is FailureClass.RESOURCE else ()
        if failures.tried_again(failure, attempt=job.attempt, attempts=attempts, earlier=earlier):
            if failure.kind is FailureClass.RESOURCE:
                self._make_room(job)
            pause = failures.pause(job.id, attempt=job.attempt, first=self._parts.settings.retry_seconds)
            after = self._end(claim, lambda: self._store.retry(claim.lease, told, delay=pause))
        else:
            if failure.kind is not FailureClass.PERMANENT and job.attempt > 1:
                told["message"] = f"{told['message']} (tried {job.attempt} times)"
            why = (self._poison_in(job) if died else None) or told
            after = self._end(claim, lambda: self._store.fail(claim.lease, why))
        if after.state.ended:
            self._clear(after)
        else:
            self._forget(after, marks)
        if lost:
            # A Ray that is broken stays so for this process; its successor starts a new one.
            raise EngineBrokenError(failures.sentence(error)) from error
        return after

    def _poison_in(self, job: Job) -> Mapping[str, Any] | None:
        """The error that names the task of the job that kills whatever runs it, where there is one."""
        error = poison.poisoned(self._parts.objects, work_folder(job))
        return None if error is None else {"code": error.code, "message": error.message, "param": error.param}

    def _marks(self, job: Job) -> Mapping[str, Mark]:
        """What is under suspicion now; it is cleared of it once the job is handed over, for until then the job may not be ours."""
        try:
            return poison.unfinished(self._parts.objects, work_folder(job))
        except Exception as error:
            log.warning("job=%s marks not read error=%s", job.id, failures.sentence(error))
            return {}

    def _forget(self, job: Job, marks: Mapping[str, Mark]) -> None:
        try:
            poison.forget(self._parts.objects, marks)
        except Exception as error:
            log.warning("job=%s marks not removed error=%s", job.id, failures.sentence(error))

    def _make_room(self, job: Job) -> None:
        """Remove what is left over: what killed writers of this job left unfinished, and what ended jobs left."""
        try:
            objects = self._parts.objects
            objects.delete([path for path in objects.list(work_folder(job)) if "/partial/" in path])
        except Exception as error:
            log.warning("job=%s no room made error=%s", job.id, failures.sentence(error))
        self._collect()

    def _collect(self) -> None:
        self._collected = time.monotonic()
        try:
            found = collect(
                self._store, self._parts.objects, self._parts.settings.incoming, scope=Scope.JOBS, delete=True
            )
        except Exception as error:
            log.warning("nothing collected error=%s", failures.sentence(error))
            return
        if found:
            log.info("collected=%d bytes=%d", len(found), sum(item.bytes for item in found))

    def _clear(self, job: Job) -> None:
        """Remove what an ended job leaves; what cannot be removed now is no reason to fail."""
        try:
            self._parts.executor.settle()
        except Exception as error:
            log.warning("job=%s tasks not waited for error=%s", job.id, failures.sentence(error))
        left = [work_folder(job)] if job.state is State.SUCCEEDED else [work_folder(job), folder_of(job.target)]
        for place in left:
            try:
                self._parts.objects.delete_prefix(place)
            except Exception as error:
                log.warning("job=%s not cleared place=%s error=%s", job.id, place, failures.sentence(error))

    def _say_goodbye(self) -> None:
        try:
            self._store.gone(self.id)
        except SQLAlchemyError as error:
            log.warning("database not reached error=%s", type(error).__name__)


def work_folder(job: Job) -> str:
    """Where a job's receipts are while it is worked on."""
    return f"work/{job.id}"


def entry_of(job: Job, manifest: Manifest) -> DatasetEntry:
    """The catalog's entry of a job's dataset."""
    return DatasetEntry(
        id=job.target,
        job_id=job.id,
        key_id=job.key_id,
        kind=manifest.kind,
        name=manifest.name,
        fingerprint=manifest.fingerprint,
        manifest_sha256=hashlib.sha256(manifest.to_bytes()).hexdigest(),
        files=len(manifest.files),
        rows=sum(file.rows for file in manifest.files),
        tokens=sum(file.tokens for file in manifest.files),
        bytes=sum(file.bytes for file in manifest.files),
    )


__all__ = ["EngineBrokenError", "Lease", "Parts", "Runner", "entry_of", "work_folder"]
