"""API keys in the database: digests, never keys. Times are the database's.

Revoked keys stay as rows, so a service that has had a key never falls back to letting everybody in.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, RowMapping, insert, make_url, select, update
from sqlalchemy.exc import SQLAlchemyError

from service.access import Caller, KeyText, Scope, implied, new_key
from service.jobs.database import api_keys, now, open_database, reading
from service.problems import NotFoundError

USED_SECONDS = 60.0
"""`last_used_at` is written at most this often, so that reading stays reading."""

NOBODY = "0" * 64
"""Compared with where there is no such key, so that both cases take the same steps; no SHA-256 anybody knows a text of."""

log = logging.getLogger("longweave.keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is known of a key: all but its secret. `owner` is its own id, or that of the key whose things it shares. Times are
    seconds since 1970."""

    id: str
    owner: str
    name: str
    scopes: frozenset[Scope]
    created_at: float
    last_used_at: float | None
    revoked_at: float | None


class KeyStore:
    """The table of keys."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, name: str, scopes: Iterable[Scope], *, of: str | None = None) -> tuple[ApiKey, KeyText]:
        """A new key and, this once, its text. It owns what it makes, or shares what the key `of` owns.

        Raises NotFoundError where there never was a key `of`; one that was revoked will do, its things are still there.
        """
        key = new_key()
        values = {
            "id": key.id,
            "name": name,
            "scopes": _joined(implied(scopes)),
            "digest": key.digest,
            "created_at": now(),
        }
        with self._engine.begin() as connection:
            owner = key.id
            if of is not None:
                owner = connection.execute(select(api_keys.c.owner).where(api_keys.c.id == of)).scalar_one_or_none()
                if owner is None:
                    raise _unknown(of)
            made = insert(api_keys).values(values | {"owner": owner}).returning(api_keys)
            return _api_key(connection.execute(made).mappings().one()), key

    def list(self) -> Sequence[ApiKey]:
        """Every key there was, oldest first."""
        with reading(self._engine) as connection:
            query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
            return [_api_key(row) for row in connection.execute(query).mappings()]

    def revoke(self, key_id: str) -> ApiKey:
        """End a key, now and for ever; one that has ended stays as it is. Raises NotFoundError."""
        with self._engine.begin() as connection:
            alive = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
            connection.execute(alive.values(revoked_at=now()))
            row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).mappings().one_or_none()
        if row is None:
            raise _unknown(key_id)
        return _api_key(row)

    def any(self) -> bool:
        """Whether there ever was a key: from then on every call needs one."""
        with reading(self._engine) as connection:
            return connection.execute(select(api_keys.c.id).limit(1)).first() is not None

    def caller(self, key: KeyText) -> Caller | None:
        """Who sends this key; None where it is unknown, wrong or revoked."""
        query = select(api_keys, (now() - api_keys.c.last_used_at).label("unused")).where(api_keys.c.id == key.id)
        with reading(self._engine) as connection:
            row = connection.execute(query).mappings().one_or_none()
        right = hmac.compare_digest(key.digest, NOBODY if row is None else row["digest"])
        if row is None or not right or row["revoked_at"] is not None:
            return None
        if row["unused"] is None or row["unused"] > USED_SECONDS:
            self._used(key.id)
        return Caller(row["owner"], _api_key(row).scopes, key.id)

    def stands(self, key_id: str) -> bool:
        """Whether the key has not been revoked."""
        with reading(self._engine) as connection:
            query = select(api_keys.c.id).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
            return connection.execute(query).first() is not None

    def _used(self, key_id: str) -> None:
        try:
            with self._engine.begin() as connection:
                connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=now()))
        except SQLAlchemyError as error:
            # A database too busy for this note is no reason to refuse a good key.
            log.warning("use not noted key=%s error=%s", key_id, type(error).__name__)


def keys_exist(database_url: str) -> bool:
    """Whether the database at this URL has keys; one that is not there yet is not made. Raises UnavailableError."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and not (url.database and Path(url.database).exists()):
        return False
    engine = open_database(database_url)
    try:
        return KeyStore(engine).any()
    finally:
        engine.dispose()


def _joined(scopes: Iterable[Scope]) -> str:
    return ",".join(scope for scope in Scope if scope in set(scopes))


def _unknown(key_id: str) -> NotFoundError:
    return NotFoundError(f"there is no key with the id {key_id!r}; `longweave keys list` shows them", param="id")


def _api_key(row: RowMapping) -> ApiKey:
    return ApiKey(
        id=row["id"],
        owner=row["owner"],
        name=row["name"],
        scopes=frozenset(Scope(scope) for scope in row["scopes"].split(",")),
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        revoked_at=row["revoked_at"],
    )
