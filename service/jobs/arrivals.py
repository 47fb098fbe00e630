"""Uploads that are still on their way, in the database: whose they are and what they are to be. Their bytes are objects.

One statement decides who ends an upload: finishing and dropping both begin by taking its row away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, delete, func, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from service.access import HOUSE, Caller
from service.jobs.database import arriving_uploads, new_id, now, reading, uploads
from service.problems import NotFoundError, QuotaError

MOST = 20
"""Uploads of one owner that may be on their way at once."""
SILENT_SECONDS = 24 * 3600.0
"""An upload of which nothing has come for so long has expired: garbage collection removes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """An upload on its way. `length` (bytes) and `sha256` (of the whole) are what its sender has announced."""

    id: str
    name: str
    length: int | None
    sha256: str | None
    created_at: float


class Arrivals:
    """The table of uploads on their way, as far as `caller` may see them: what belongs to others is not there."""

    def __init__(self, engine: Engine, *, caller: Caller = HOUSE) -> None:
        self._engine = engine
        self._caller = caller

    def begin(self, name: str, *, length: int | None, sha256: str | None) -> tuple[Arrival, bool]:
        """Enter an upload; one of the caller's of the same name, length and sha256 that is under way already is gone on with.

        Gives True where it is new. Raises QuotaError.
        """
        own, t = arriving_uploads.c.key_id == self._caller.owner, arriving_uploads.c
        values = {"name": name, "length": length, "sha256": sha256, "created_at": now(), "seen_at": now()}
        with self._engine.begin() as connection:
            same = select(arriving_uploads).where(own, t.name == name, t.length == length, t.sha256 == sha256)
            row = connection.execute(same.order_by(t.id).limit(1)).mappings().one_or_none() if sha256 else None
            if row is not None:
                _touch(connection, row["id"])
                return _arrival(row), False
            live = select(func.count()).select_from(arriving_uploads).where(own, t.seen_at > now() - SILENT_SECONDS)
            if connection.execute(live).scalar_one() >= MOST:
                message = f"{MOST} uploads of this owner are under way already: finish or delete one first"
                raise QuotaError(message)
            values |= {"id": new_id("up", connection), "key_id": self._caller.owner}
            made = connection.execute(insert(arriving_uploads).values(values).returning(arriving_uploads))
            return _arrival(made.mappings().one()), True

    def find(self, upload_id: str) -> Arrival | None:
        """One upload on its way; None where there is none."""
        query = select(arriving_uploads).where(arriving_uploads.c.id == upload_id, *self._mine())
        with reading(self._engine) as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else _arrival(row)

    def touch(self, upload_id: str) -> None:
        """Note that something has come; raises NotFoundError where the upload was dropped meanwhile."""
        with self._engine.begin() as connection:
            if not _touch(connection, upload_id):
                raise _gone(upload_id)

    def finish(self, upload_id: str, record: Mapping[str, Any]) -> bool:
        """Enter the upload whose pieces are in the store as one that is there, with the owner it came from.

        Done by two at once it is done once, and False for the other. Raises NotFoundError where it was dropped meanwhile.
        """
        with self._engine.begin() as connection:
            take = delete(arriving_uploads).where(arriving_uploads.c.id == upload_id)
            owner = connection.execute(take.returning(arriving_uploads.c.key_id)).scalar_one_or_none()
            if owner is not None:
                values = {"id": upload_id, "record": json.dumps(record), "created_at": now(), "key_id": owner}
                connection.execute(insert(uploads).values(values))
            elif connection.execute(select(uploads.c.id).where(uploads.c.id == upload_id)).one_or_none() is None:
                raise _gone(upload_id)
            return owner is not None

    def drop(self, upload_id: str) -> bool:
        """Forget an upload on its way; False where there is none. Its objects are the caller's to remove, afterwards."""
        with self._engine.begin() as connection:
            take = delete(arriving_uploads).where(arriving_uploads.c.id == upload_id, *self._mine())
            return connection.execute(take).rowcount == 1

    def _mine(self) -> list[ColumnElement[bool]]:
        return [] if self._caller.sees_all else [arriving_uploads.c.key_id == self._caller.owner]


def live_arrivals(connection: Connection) -> frozenset[str]:
    """The ids of those that have not expired."""
    query = select(arriving_uploads.c.id).where(arriving_uploads.c.seen_at > now() - SILENT_SECONDS)
    return frozenset(connection.execute(query).scalars())


def forget_silent(connection: Connection) -> None:
    """Take away the rows of those that have expired."""
    connection.execute(delete(arriving_uploads).where(arriving_uploads.c.seen_at <= now() - SILENT_SECONDS))


def _touch(connection: Connection, upload_id: str) -> bool:
    seen = update(arriving_uploads).where(arriving_uploads.c.id == upload_id).values(seen_at=now())
    return connection.execute(seen).rowcount == 1


def _gone(upload_id: str) -> NotFoundError:
    return NotFoundError(f"there is no upload {upload_id!r}", param="id")


def _arrival(row: RowMapping) -> Arrival:
    return Arrival(**{name: row[name] for name in ("id", "name", "length", "sha256", "created_at")})
