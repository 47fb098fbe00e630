"""Jobs in the database, as clients see them: submit, look, list, cancel, delete. What runners write is in leases.py."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, case, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.elements import ColumnElement

from service.access import HOUSE, Caller
from service.jobs import eventlog
from service.jobs.catalog import mine
from service.jobs.database import events, idempotency_keys, jobs, new_id, now, reading
from service.jobs.hints import give_hint
from service.jobs.job import ENDED, Event, Job, Progress, State, sources
from service.problems import ConflictError, IdempotencyError, NotFoundError, QueueFullError


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client asks for. `key` is its Idempotency-Key; `body_sha256` tells one request from another, at any `priority`."""

    kind: str
    name: str
    spec: Mapping[str, Any]
    metadata: Mapping[str, Any]
    key: str | None = None
    body_sha256: str = ""
    priority: int = 0


class JobStore:
    """The jobs table for the API, as far as `caller` may see it: what belongs to others is not there.

    `queue_limit` jobs may wait in all, `key_queue_limit` of one key.
    """

    def __init__(
        self, engine: Engine, *, queue_limit: int, key_queue_limit: int | None = None, caller: Caller = HOUSE
    ) -> None:
        self._engine = engine
        self._queue_limit = queue_limit
        self._key_queue_limit = key_queue_limit
        self._caller = caller

    def seen_by(self, caller: Caller) -> JobStore:
        """The same table for somebody."""
        return JobStore(
            self._engine, queue_limit=self._queue_limit, key_queue_limit=self._key_queue_limit, caller=caller
        )

    def made_before(self, key: str, body_sha256: str) -> Job | None:
        """The job that the caller's Idempotency-Key made; None where it made none. Raises IdempotencyError for another body."""
        with reading(self._engine) as connection:
            return self._by_key(connection, key, body_sha256)

    def submit(self, request: Request) -> tuple[Job, bool]:
        """Put a job into the queue, or find the one that the same Idempotency-Key made.

        The flag tells which (True: found).
        """
        try:
            return self._submit(request)
        except IntegrityError:
            # Somebody with the same key was faster by a moment: now their job is found.
            return self._submit(request)

    def _submit(self, request: Request) -> tuple[Job, bool]:
        with self._engine.begin() as connection:
            if request.key is not None:
                known = self._by_key(connection, request.key, request.body_sha256)
                if known is not None:
                    return known, True
            self._check_queue(connection)
            job_id, target = new_id("job", connection), new_id("ds", connection)
            row = connection.execute(
                insert(jobs)
                .values(
                    id=job_id,
                    kind=request.kind,
                    name=request.name,
                    state=State.QUEUED,
                    spec=json.dumps(request.spec),
                    metadata=json.dumps(request.metadata),
                    priority=request.priority,
                    target=target,
                    key_id=self._caller.owner,
                    created_at=now(),
                )
                .returning(jobs)
            )
            job = job_of(row.mappings().one())
            if request.key is not None:
                connection.execute(
                    insert(idempotency_keys).values(
                        key_id=self._caller.owner,
                        key=request.key,
                        body_sha256=request.body_sha256,
                        job_id=job_id,
                        created_at=now(),
                    )
                )
            eventlog.append(connection, job_id, type="state", message="queued", data={"state": State.QUEUED})
            give_hint(connection)
            return job, False

    def get(self, job_id: str) -> Job:
        """One job; raises NotFoundError."""
        with reading(self._engine) as connection:
            return self._get(connection, job_id)

    def list(
        self, *, state: State | None = None, kind: str | None = None, after: str | None = None, limit: int = 20
    ) -> Sequence[Job]:
        """Jobs, newest first, those after the job `after`.

        Ids are in order of creation, so it may be gone meanwhile.
        """
        query = select(jobs).where(*self._mine()).order_by(jobs.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(jobs.c.state == state)
        if kind is not None:
            query = query.where(jobs.c.kind == kind)
        if after is not None:
            query = query.where(jobs.c.id < after)
        with reading(self._engine) as connection:
            return [job_of(row) for row in connection.execute(query).mappings()]

    def cancel(self, job_id: str) -> Job:
        """Ask for a job's end.

        A queued one is cancelled at once, a running one as soon as its runner sees it. Raises ConflictError.
        """
        with self._engine.begin() as connection:
            asked = update(jobs).where(jobs.c.id == job_id).values(moved(Event.CANCEL))
            before = self._get(connection, job_id)
            row = connection.execute(asked.where(jobs.c.state.in_(sources(Event.CANCEL))).returning(jobs)).mappings()
            job = next((job_of(found) for found in row), None)
            if job is None:
                message = f"job {job_id} has {before.state} already"
                raise ConflictError(message, param=job_id)
            if job.state != before.state:
                eventlog.append(connection, job_id, type="state", message=job.state, data={"state": job.state})
            return job

    def delete(self, job_id: str) -> None:
        """Forget a job that has ended, with its events; its dataset stays. Raises NotFoundError, ConflictError."""
        with self._engine.begin() as connection:
            job = self._get(connection, job_id)
            if not job.state.ended:
                message = f"job {job_id} is {job.state}: cancel it first"
                raise ConflictError(message, param=job_id)
            connection.execute(delete(events).where(events.c.job_id == job_id))
            connection.execute(delete(idempotency_keys).where(idempotency_keys.c.job_id == job_id))
            connection.execute(delete(jobs).where(jobs.c.id == job_id))

    def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> Sequence[eventlog.Entry]:
        """The job's events after the one numbered `after`, oldest first; raises NotFoundError."""
        with reading(self._engine) as connection:
            self._get(connection, job_id)
            return eventlog.read(connection, job_id, after=after, limit=limit)

    def active_mention(self, name: str) -> str | None:
        """A job of any owner that has not ended and whose spec names `name` (an upload's or a dataset's id): its id, or
        "of another owner"."""
        # Ids hold no % and no quote, and the underscore's wildcard can at worst find what is not there: then we
        # refuse too much.
        query = (
            select(jobs.c.id, jobs.c.key_id).where(jobs.c.state.not_in(ENDED), jobs.c.spec.like(f'%"{name}"%')).limit(1)
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return row.id if self._caller.sees_all or row.key_id == self._caller.owner else "of another owner"

    def counts(self) -> dict[State, int]:
        """How many jobs there are in each state, of all owners."""
        query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        with reading(self._engine) as connection:
            found = {State(state): int(count) for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in State}

    def longest_wait(self) -> float:
        """Seconds that the job which could be claimed for the longest has waited; pauses before another try do not count."""
        since = case((jobs.c.not_before > jobs.c.created_at, jobs.c.not_before), else_=jobs.c.created_at)
        query = select(now() - func.min(since)).where(jobs.c.state == State.QUEUED, jobs.c.not_before <= now())
        with reading(self._engine) as connection:
            return max(0.0, connection.execute(query).scalar() or 0.0)

    def _mine(self) -> Sequence[ColumnElement[bool]]:
        return mine(jobs, self._caller)

    def _get(self, connection: Connection, job_id: str) -> Job:
        row = connection.execute(select(jobs).where(jobs.c.id == job_id, *self._mine())).mappings().one_or_none()
        if row is None:
            message = f"there is no job {job_id!r}"
            raise NotFoundError(message, param="id")
        return job_of(row)

    def _check_queue(self, connection: Connection) -> None:
        """Raises QueueFullError where no job may be added to those that wait, in all or of this key."""
        waiting = select(func.count()).select_from(jobs).where(jobs.c.state == State.QUEUED)
        if connection.execute(waiting).scalar_one() >= self._queue_limit:
            message = f"{self._queue_limit} jobs wait already: try again later"
            raise QueueFullError(message)
        limit, owner = self._key_queue_limit, self._caller.owner
        own = waiting.where(jobs.c.key_id == owner)
        if owner and limit is not None and connection.execute(own).scalar_one() >= limit:
            message = f"{limit} jobs of this key wait already: try again once one of them runs"
            raise QueueFullError(message)

    def _by_key(self, connection: Connection, key: str, body_sha256: str) -> Job | None:
        """The job that the caller's own Idempotency-Key made; raises IdempotencyError for another body."""
        own = (idempotency_keys.c.key_id == self._caller.owner, idempotency_keys.c.key == key)
        row = connection.execute(select(idempotency_keys).where(*own)).mappings().one_or_none()
        if row is None:
            return None
        if row["body_sha256"] != body_sha256:
            message = "this Idempotency-Key was used for another body: take a new key for a new job"
            raise IdempotencyError(message, param="Idempotency-Key")
        return self._get(connection, row["job_id"])


def moved(event: Event) -> dict[str, Any]:
    """The columns that `event` changes, for an UPDATE restricted to the states in `sources(event)`."""
    moves = sources(event)
    after = case(*[(jobs.c.state == state, str(target)) for state, target in moves.items()])
    finishing = [state for state, target in moves.items() if target.ended and not state.ended]
    return {
        "state": after,
        "finished_at": case((jobs.c.state.in_(finishing), now()), else_=jobs.c.finished_at),
    }


def job_of(row: RowMapping) -> Job:
    """A row of the jobs table as a Job."""
    return Job(
        id=row["id"],
        kind=row["kind"],
        name=row["name"],
        state=State(row["state"]),
        spec=json.loads(row["spec"]),
        target=row["target"],
        key_id=row["key_id"],
        progress=Progress(
            shards_done=row["shards_done"],
            shards_total=row["shards_total"],
            rows=row["rows"],
            tokens=row["tokens"],
            bytes=row["bytes"],
            eta_seconds=row["eta_seconds"],
        ),
        error=json.loads(row["error"]) if row["error"] else None,
        attempt=row["attempt"],
        priority=row["priority"],
        metadata=json.loads(row["metadata"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )
