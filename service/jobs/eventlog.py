"""The event log of a job: what SSE streams and pages are read from. Numbers rise and are never given twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, insert, select

from service.jobs.database import events, now

EntryType = Literal["state", "progress", "message"]
Level = Literal["info", "warn", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened to a job."""

    id: int
    job_id: str
    type: EntryType
    level: Level
    message: str
    data: Mapping[str, Any]
    created_at: float


def append(
    connection: Connection,
    job_id: str,
    *,
    type: EntryType,  # the name on the wire
    message: str,
    level: Level = "info",
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write an event in the transaction that made it true."""
    values = {"job_id": job_id, "type": type, "level": level, "message": message, "data": json.dumps(data or {})}
    connection.execute(insert(events).values(created_at=now(), **values))


def read(connection: Connection, job_id: str, *, after: int, limit: int) -> Sequence[Entry]:
    """A job's events with numbers above `after`, oldest first."""
    query = select(events).where(events.c.job_id == job_id, events.c.id > after).order_by(events.c.id).limit(limit)
    return [
        Entry(
            id=row["id"],
            job_id=row["job_id"],
            type=row["type"],
            level=row["level"],
            message=row["message"],
            data=json.loads(row["data"]),
            created_at=row["created_at"],
        )
        for row in connection.execute(query).mappings()
    ]


def errors(connection: Connection, job_id: str) -> Sequence[Mapping[str, Any]]:
    """The errors that a job's state changes so far have told of, oldest first."""
    told = (events.c.type == "state", events.c.level != "info")
    query = select(events.c.data).where(events.c.job_id == job_id, *told).order_by(events.c.id)
    found = [json.loads(data) for data in connection.execute(query).scalars()]
    return [data["error"] for data in found if "error" in data]
