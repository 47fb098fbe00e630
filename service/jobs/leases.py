"""What runners write: claims, heartbeats, progress, endings. Every write is fenced by the lease it is made under.

A write takes effect only where id, owner and attempt are still the lease's, the state takes the event, and the lease
has not run out by the database's clock. A runner that was asleep for longer than its lease therefore changes nothing:
it gets LeaseLostError.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, func, insert, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from packing.dataset.errors import LongweaveError
from service.faults import crash_point
from service.jobs import arrivals, eventlog, shard_times
from service.jobs.catalog import DatasetEntry, insert_dataset
from service.jobs.database import datasets, jobs, now, reading, runners, uploads
from service.jobs.hints import give_hint
from service.jobs.job import ENDED, OWNED, Event, Job, Lease, Progress, State, sources, transition
from service.jobs.shard_times import Built, ShardTimes
from service.jobs.store import job_of, moved
from service.storage.collect import Known

RUNNER_LOST = "runner_lost"


class LeaseLostError(LongweaveError):
    """The lease has run out or the job has been taken from us: stop at once and touch nothing."""

    code = "lease_lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job in the hands of a runner."""

    job: Job
    lease: Lease


class LeaseStore:
    """The jobs table for runners."""

    def __init__(self, engine: Engine, *, lease_seconds: float, attempts: int) -> None:
        self._engine = engine
        self._lease_seconds = lease_seconds
        self._attempts = attempts

    def claim(self, owner: str) -> Claim | None:
        """Take the job of the highest priority that waits, or whose runner has been silent for too long; of equals the oldest.

        None where there is none.

        One UPDATE finds and takes it, so two runners never get the same; the attempt is counted here, so that a job
        which kills its runner uses its attempts up. `owner` is new for every claim.
        """
        waits = and_(jobs.c.state == State.QUEUED, jobs.c.not_before <= now())
        left = and_(jobs.c.state == State.RUNNING, jobs.c.lease_expires_at < now(), jobs.c.attempt < self._attempts)
        first = select(jobs.c.id).where(or_(waits, left)).order_by(jobs.c.priority.desc(), jobs.c.id).limit(1)
        # SKIP LOCKED is PostgreSQL's; SQLite has one writer at a time and SQLAlchemy leaves the clause out.
        chosen = first.with_for_update(skip_locked=True).scalar_subquery()
        take = (
            update(jobs)
            .where(jobs.c.id == chosen, or_(waits, left))
            .values(
                state=State.RUNNING,
                owner=owner,
                attempt=jobs.c.attempt + 1,
                lease_expires_at=now() + self._lease_seconds,
                started_at=func.coalesce(jobs.c.started_at, now()),
                error=None,
            )
            .returning(jobs)
        )
        with self._engine.begin() as connection:
            row = connection.execute(take).mappings().one_or_none()
            if row is None:
                return None
            job = job_of(row)
            _log_state(connection, job, f"running, attempt {job.attempt}")
            return Claim(job=job, lease=Lease(job_id=job.id, owner=owner, attempt=job.attempt))

    def held(self, owner: str) -> Claim | None:
        """What `owner` has claimed and does not know of, for the database's answer was lost; the lease is renewed."""
        mine = (jobs.c.owner == owner, jobs.c.state.in_(OWNED), jobs.c.lease_expires_at > now())
        renew = update(jobs).where(*mine).values(lease_expires_at=now() + self._lease_seconds).returning(jobs)
        with self._engine.begin() as connection:
            row = connection.execute(renew).mappings().one_or_none()
        if row is None:
            return None
        job = job_of(row)
        return Claim(job=job, lease=Lease(job_id=job.id, owner=owner, attempt=job.attempt))

    def sweep(self, told: Callable[[Job], Mapping[str, Any] | None] = lambda _job: None) -> Sequence[Job]:
        """End what nobody will claim again: silent runners' jobs that were being cancelled, or have no attempt left.

        `told` may know better than "the runner died" what ended a job. Returns the jobs that ended here.
        """
        silent = jobs.c.lease_expires_at < now()
        cancelled = update(jobs).where(jobs.c.state == State.CANCELLING, silent).values(moved(Event.EXPIRE))
        spent = (jobs.c.state == State.RUNNING, silent, jobs.c.attempt >= self._attempts)
        with reading(self._engine) as connection:
            # What was known of a job is looked up before the transaction: it may take a while.
            errors = {
                job.id: told(job) for job in map(job_of, connection.execute(select(jobs).where(*spent)).mappings())
            }
        with self._engine.begin() as connection:
            rows = list(connection.execute(cancelled.returning(jobs)).mappings())
            for job_id, error in errors.items():
                values = moved(Event.EXHAUST) | {"error": json.dumps(error or self._lost_runner())}
                failed = update(jobs).where(jobs.c.id == job_id, *spent).values(values)
                rows += connection.execute(failed.returning(jobs)).mappings()
            ended = [job_of(row) for row in rows]
            for job in ended:
                _log_state(connection, job)
            return ended

    def _lost_runner(self) -> dict[str, Any]:
        message = f"the runner died {self._attempts} times while it worked on this job"
        return {"code": RUNNER_LOST, "message": message, "param": None}

    def known(self) -> Known:
        """What garbage collection must know: jobs that have not ended, what they will make, and every dataset and
        upload, also those on their way."""
        live = select(jobs.c.id, jobs.c.target).where(jobs.c.state.not_in(ENDED))
        with reading(self._engine) as connection:
            pairs = connection.execute(live).all()
            return Known(
                live_jobs=frozenset(row.id for row in pairs),
                live_targets=frozenset(row.target for row in pairs),
                datasets=frozenset(connection.execute(select(datasets.c.id)).scalars()),
                uploads=frozenset(connection.execute(select(uploads.c.id)).scalars()),
                arriving=arrivals.live_arrivals(connection),
            )

    def forget_silent(self) -> None:
        """Forget uploads of which nothing has come for a day: garbage collection asks for it before it looks what is known."""
        with self._engine.begin() as connection:
            arrivals.forget_silent(connection)

    def earlier_codes(self, job_id: str) -> Sequence[str]:
        """The codes of the errors that the job's attempts so far have ended with, oldest first."""
        with reading(self._engine) as connection:
            entries = eventlog.errors(connection, job_id)
        return [str(error["code"]) for error in entries]

    def heartbeat(self, lease: Lease) -> bool:
        """Renew the lease; True when somebody has asked for the job's end. Raises LeaseLostError."""
        renew = update(jobs).where(_held(lease, OWNED)).values(lease_expires_at=now() + self._lease_seconds)
        with self._engine.begin() as connection:
            state = connection.execute(renew.returning(jobs.c.state)).scalar_one_or_none()
            if state is None:
                raise _lost(lease)
            return state == State.CANCELLING

    def cancel_asked(self, lease: Lease) -> bool:
        """Whether somebody has asked for the job's end, without a write; raises LeaseLostError."""
        with reading(self._engine) as connection:
            state = connection.execute(select(jobs.c.state).where(_held(lease, OWNED))).scalar_one_or_none()
        if state is None:
            raise _lost(lease)
        return state == State.CANCELLING

    def progress(self, lease: Lease, progress: Progress, built: Sequence[Built] = ()) -> None:
        """Write how far the job is, and count the shards that were built since the last time; raises LeaseLostError."""
        values = asdict(progress)
        with self._engine.begin() as connection:
            write = update(jobs).where(_held(lease, OWNED)).values(values).returning(jobs.c.kind)
            kind = connection.execute(write).scalar_one_or_none()
            if kind is None:
                raise _lost(lease)
            shard_times.count(connection, kind, built)
            done, total = progress.shards_done, progress.shards_total
            message = f"{done} of {total} shards, {progress.rows} rows, {progress.tokens} tokens"
            eventlog.append(connection, lease.job_id, type="progress", message=message, data=values)

    def succeed(self, lease: Lease, dataset: DatasetEntry, warnings: Sequence[str] = ()) -> Job:
        """The dataset is committed: it appears and its job has succeeded, in one transaction. Raises LeaseLostError.

        What the build warns of goes into the event log. Refused as well where a cancel was asked for meanwhile; `stop`
        is then what remains.
        """
        with self._engine.begin() as connection:
            for warning in warnings:
                eventlog.append(connection, lease.job_id, type="message", level="warn", message=warning, data={})
            job = self._move(connection, lease, Event.SUCCEED, {"eta_seconds": 0.0})
            insert_dataset(connection, dataset)
            crash_point("dataset_entered")
            return job

    def fail(self, lease: Lease, error: Mapping[str, Any]) -> Job:
        """End the job with an error; raises LeaseLostError."""
        with self._engine.begin() as connection:
            return self._move(connection, lease, Event.FAIL, {"error": json.dumps(error)})

    def retry(self, lease: Lease, error: Mapping[str, Any], *, delay: float) -> Job:
        """Put the job back after an error that may pass, to be claimed again in `delay` seconds.

        Raises LeaseLostError.
        """
        later = {"error": json.dumps(error), "not_before": now() + delay, "eta_seconds": None}
        with self._engine.begin() as connection:
            return self._move(connection, lease, Event.RETRY, later)

    def release(self, lease: Lease) -> Job:
        """Hand the job back because the runner stops; that costs no attempt. Raises LeaseLostError."""
        with self._engine.begin() as connection:
            give_hint(connection)
            return self._move(connection, lease, Event.RELEASE, {"attempt": jobs.c.attempt - 1, "eta_seconds": None})

    def ending(self, lease: Lease) -> Job | None:
        """The job, if it has ended in the lease's attempt; None where it goes on without us."""
        own = (jobs.c.id == lease.job_id, jobs.c.attempt == lease.attempt, jobs.c.state.in_(ENDED))
        with reading(self._engine) as connection:
            row = connection.execute(select(jobs).where(*own)).mappings().one_or_none()
        return None if row is None else job_of(row)

    def stop(self, lease: Lease) -> Job:
        """The runner has stopped because a cancel was asked for; raises LeaseLostError."""
        with self._engine.begin() as connection:
            return self._move(connection, lease, Event.STOP, {})

    def seen(self, runner_id: str) -> None:
        """Note that a runner is alive."""
        with self._engine.begin() as connection:
            here = update(runners).where(runners.c.id == runner_id).values(seen_at=now())
            if connection.execute(here).rowcount == 0:
                connection.execute(insert(runners).values(id=runner_id, seen_at=now()))

    def gone(self, runner_id: str) -> None:
        """Note that a runner has stopped."""
        with self._engine.begin() as connection:
            connection.execute(delete(runners).where(runners.c.id == runner_id))

    def alive(self) -> int:
        """How many runners have been heard of within a lease's length."""
        query = select(func.count()).select_from(runners).where(runners.c.seen_at > now() - self._lease_seconds)
        with reading(self._engine) as connection:
            return connection.execute(query).scalar_one()

    def silence(self) -> float | None:
        """Seconds since any runner was heard of; None where there is none that has not said goodbye."""
        with reading(self._engine) as connection:
            age = connection.execute(select(now() - func.max(runners.c.seen_at))).scalar()
        return None if age is None else max(0.0, age)

    def shard_times(self) -> Mapping[str, ShardTimes]:
        """How long the shards of each kind have taken, by all runners there ever were."""
        with reading(self._engine) as connection:
            return shard_times.read(connection)

    def claim_age(self) -> float:
        """Seconds since the first of the jobs that runners hold was begun; 0 where they hold none."""
        query = select(now() - func.min(jobs.c.started_at)).where(jobs.c.state.in_(OWNED))
        with reading(self._engine) as connection:
            return max(0.0, connection.execute(query).scalar() or 0.0)

    def _move(self, connection: Connection, lease: Lease, event: Event, values: Mapping[str, Any]) -> Job:
        """Apply `event` under the lease, with the columns it brings along, and write it to the event log."""
        changes: dict[str, Any] = moved(event) | {"owner": None, "lease_expires_at": None, **values}
        row = connection.execute(
            update(jobs).where(_held(lease, sources(event))).values(changes).returning(jobs)
        ).mappings()
        job = next((job_of(found) for found in row), None)
        if job is None:
            raise _lost(lease)
        assert transition(State.RUNNING, event) is job.state or transition(State.CANCELLING, event) is job.state
        _log_state(connection, job, f"{job.state}, {event}" if event in (Event.RETRY, Event.RELEASE) else None)
        return job


def _held(lease: Lease, states: Iterable[State]) -> ColumnElement[bool]:
    return and_(
        jobs.c.id == lease.job_id,
        jobs.c.owner == lease.owner,
        jobs.c.attempt == lease.attempt,
        jobs.c.state.in_([str(state) for state in states]),
        jobs.c.lease_expires_at > now(),
    )


def _lost(lease: Lease) -> LeaseLostError:
    return LeaseLostError(f"the lease on {lease.job_id} is no longer ours", param=lease.job_id)


def _log_state(connection: Connection, job: Job, message: str | None = None) -> None:
    data: dict[str, Any] = {"state": job.state, "attempt": job.attempt}
    if job.error is not None:
        data["error"] = job.error
    if job.dataset_id is not None:
        data["dataset_id"] = job.dataset_id
    level = "error" if job.state is State.FAILED else "warn" if job.error is not None else "info"
    text = message or (f"failed: {job.error['message']}" if job.error is not None else str(job.state))
    eventlog.append(connection, job.id, type="state", level=level, message=text, data=data)
