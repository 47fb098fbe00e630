"""The runner: claims a job, has its dataset built, and writes what became of it.

The database is all it shares with the API.

Endings: a LongweaveError is final (the same spec would meet it again); any other error is tried again after a pause
until the attempts are used up; a cancel ends in `cancelled` with nothing left behind; when the runner is told to
stop, the job goes back to the queue and no attempt is charged. A runner that dies says nothing: its lease runs out,
and the next one finds the receipts of what is built.
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
from service.engine.executor import Executor
from service.engine.line import build_dataset
from service.jobs.catalog import Catalog, DatasetEntry
from service.jobs.job import Job, Lease, State
from service.jobs.leases import Claim, LeaseLostError, LeaseStore
from service.jobs.watch import CancelAskedError, Hold, JobWatch, StopAskedError
from service.library import folder_of
from service.resolve import resolve_sources, resolve_tokenizer
from service.settings import Settings
from service.storage.objects import Objects

IDLE_SECONDS = 0.25
AWAY_SECONDS = 2.0
LONGEST_PAUSE = 300.0

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
        self, parts: Parts, *, stopping: threading.Event, build: Callable[..., Manifest] = build_dataset
    ) -> None:
        self._parts = parts
        self._store = parts.store
        self._stopping = stopping
        self._build = build
        self._claims = 0
        self.id = f"runner_{secrets.token_hex(6)}"

    def run(self) -> None:
        """Work until told to stop; raises EngineBrokenError where the engine has failed."""
        tended = -math.inf
        try:
            while not self._stopping.is_set():
                try:
                    if time.monotonic() - tended >= self._parts.settings.heartbeat_seconds:
                        self.tend()
                        tended = time.monotonic()
                    worked = self.run_once()
                except SQLAlchemyError as error:
                    log.warning("database not reached error=%s", type(error).__name__)
                    self._stopping.wait(AWAY_SECONDS)
                    worked = False
                if not worked:
                    self._stopping.wait(IDLE_SECONDS)
        finally:
            self._say_goodbye()

    def tend(self) -> None:
        """Say that we are alive, and end what runners that are not have left to be ended."""
        self._store.seen(self.id)
        for job in self._store.sweep():
            log.warning("job=%s %s, its runner is silent", job.id, job.state)
            self._clear(job)

    def run_once(self) -> bool:
        """Claim and work on one job; False where there is none."""
        self._claims += 1
        claim = self._store.claim(f"{self.id}.{self._claims}")
        if claim is None:
            return False
        log.info("job=%s attempt=%d claimed kind=%s", claim.job.id, claim.job.attempt, claim.job.kind)
        try:
            ended = self._work(claim)
        except LeaseLostError:
            # It is somebody else's now: touch nothing.
            log.warning("job=%s lease lost", claim.job.id)
            return True
        log.info("job=%s %s%s", ended.id, ended.state, f" code={ended.error['code']}" if ended.error else "")
        return True

    def _work(self, claim: Claim) -> Job:
        settings = self._parts.settings
        hold = Hold(
            self._store,
            claim.lease,
            runner_id=self.id,
            every=settings.heartbeat_seconds,
            lease_seconds=settings.lease_seconds,
        )
        with hold:
            try:
                manifest = self._build_job(claim, JobWatch(self._store, claim.lease, hold, self._stopping))
            except CancelAskedError:
                return self._stopped(claim)
            except StopAskedError:
                return self._released(claim)
            except LeaseLostError:
                raise
            except LongweaveError as error:
                return self._failed(claim, {"code": error.code, "message": error.message, "param": error.param})
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
        )

    def _succeeded(self, claim: Claim, manifest: Manifest) -> Job:
        try:
            job = self._store.succeed(claim.lease, entry_of(claim.job, manifest), manifest.warnings)
        except LeaseLostError:
            # Either the lease is lost, and this raises it again, or a cancel came before the dataset was entered: the
            # cancel wins.
            return self._stopped(claim)
        self._clear(job)
        return job

    def _stopped(self, claim: Claim) -> Job:
        job = self._store.stop(claim.lease)
        self._clear(job)
        return job

    def _released(self, claim: Claim) -> Job:
        job = self._store.release(claim.lease)
        if job.state.ended:
            self._clear(job)
        return job

    def _failed(self, claim: Claim, error: Mapping[str, Any]) -> Job:
        job = self._store.fail(claim.lease, error)
        self._clear(job)
        return job

    def _stumbled(self, claim: Claim, error: Exception) -> Job:
        """After an unexpected error: again later, or failed with the last attempt."""
        log.error("job=%s unexpected error", claim.job.id, exc_info=error)
        settings, attempt = self._parts.settings, claim.job.attempt
        told = {"code": "internal_error", "message": f"an unexpected error, {_sentence(error)}", "param": None}
        if attempt >= settings.attempts:
            told["message"] = f"{told['message']} (tried {attempt} times)"
            job = self._failed(claim, told)
        else:
            pause = min(LONGEST_PAUSE, settings.retry_seconds * 2 ** (attempt - 1))
            job = self._store.retry(claim.lease, told, delay=pause)
            if job.state.ended:
                self._clear(job)
        if type(error).__module__.partition(".")[0] == "ray" and _cause(error) is error:
            # A Ray that is broken stays so for this process; its successor starts a new one.
            raise EngineBrokenError(_sentence(error)) from error
        return job

    def _clear(self, job: Job) -> None:
        """Remove what an ended job leaves; what cannot be removed now is no reason to fail."""
        try:
            self._parts.objects.delete_prefix(work_folder(job))
            if job.state is not State.SUCCEEDED:
                self._parts.objects.delete_prefix(folder_of(job.target))
        except Exception as error:
            log.warning("job=%s not cleared error=%s", job.id, _sentence(error))

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


def _cause(error: Exception) -> Exception:
    """The error a task raised, out of the RayTaskError that Ray wraps it in (with a whole traceback for a message)."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error


def _sentence(error: Exception) -> str:
    error = _cause(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


__all__ = ["EngineBrokenError", "Lease", "Parts", "Runner", "entry_of", "work_folder"]
