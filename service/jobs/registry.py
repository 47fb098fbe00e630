"""Tokenizers that users sent, in the database: what is known of them. Their files are objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, RowMapping, delete, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.elements import ColumnElement

from service.access import HOUSE, Caller
from service.jobs.database import jobs, new_id, now, reading, tokenizers
from service.jobs.job import ENDED
from service.problems import ConflictError, NotFoundError, QuotaError

MOST = 50
"""Uploaded tokenizers of one owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerEntry:
    """An uploaded tokenizer. `files` has the sha256 of each file by name; `digest` is what fingerprints take."""

    id: str
    name: str
    digest: str
    sha256: str
    vocab_size: int
    chat_template: bool
    files: Mapping[str, str]
    bytes: int
    owner: str
    created_at: float

    @property
    def prefix(self) -> str:
        """Where its files are, each by its sha256."""
        return tokenizer_folder(self.id)


class TokenizerTable:
    """The table of uploaded tokenizers, as far as `caller` may see it: what belongs to others is not there."""

    def __init__(self, engine: Engine, *, caller: Caller = HOUSE) -> None:
        self._engine = engine
        self._caller = caller

    def new_id(self) -> str:
        """An id for a tokenizer that is still being checked."""
        with reading(self._engine) as connection:
            return new_id("tok", connection)

    def add(self, tokenizer_id: str, name: str, record: Mapping[str, Any]) -> TokenizerEntry:
        """Enter a tokenizer whose files are in the store.

        Raises ConflictError where its owner has one of that name, QuotaError where they have too many.
        """
        values = {
            "id": tokenizer_id,
            "name": name,
            "record": json.dumps(record),
            "created_at": now(),
            "key_id": self._caller.owner,
        }
        own = select(func.count()).select_from(tokenizers).where(tokenizers.c.key_id == self._caller.owner)
        try:
            with self._engine.begin() as connection:
                if connection.execute(own).scalar_one() >= MOST:
                    message = f"{MOST} tokenizers of this owner are there already: delete one first"
                    raise QuotaError(message)
                row = connection.execute(insert(tokenizers).values(values).returning(tokenizers)).mappings().one()
        except IntegrityError as error:
            message = f"there is a tokenizer {name!r} of yours already: delete it first, or take another name"
            raise ConflictError(message, param="name") from error
        return _entry(row)

    def list(self, *, after: str | None = None, limit: int = 100) -> Sequence[TokenizerEntry]:
        """Tokenizers, newest first, those after the tokenizer `after`."""
        query = select(tokenizers).where(*self._mine()).order_by(tokenizers.c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(tokenizers.c.id < after)
        with reading(self._engine) as connection:
            return [_entry(row) for row in connection.execute(query).mappings()]

    def get(self, reference: str) -> TokenizerEntry:
        """One tokenizer by its id, or one of the caller's own by its name; raises NotFoundError."""
        if reference.startswith("tok_"):
            query = select(tokenizers).where(tokenizers.c.id == reference, *self._mine())
        else:
            query = select(tokenizers).where(tokenizers.c.name == reference, tokenizers.c.key_id == self._caller.owner)
        with reading(self._engine) as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            message = f"there is no tokenizer {reference!r}"
            raise NotFoundError(message, param="id")
        return _entry(row)

    def named(self, name: str, *, owner: str) -> TokenizerEntry | None:
        """The tokenizer that an owner calls so; None where there is none."""
        query = select(tokenizers).where(tokenizers.c.name == name, tokenizers.c.key_id == owner)
        with reading(self._engine) as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else _entry(row)

    def delete(self, entry: TokenizerEntry) -> None:
        """Forget a tokenizer; raises ConflictError while a job of its owner waits or runs with it, NotFoundError where it is gone.

        Its files are the caller's to remove, afterwards.
        """
        # Names hold no % and no quote; the underscore's wildcard can at worst find what is not there: we refuse too much then.
        uses = select(jobs.c.id).where(
            jobs.c.key_id == entry.owner, jobs.c.state.not_in(ENDED), jobs.c.spec.like(f'%"{entry.name}"%')
        )
        with self._engine.begin() as connection:
            user = connection.execute(uses.limit(1)).scalar_one_or_none()
            if user is not None:
                message = f"job {user} still needs tokenizer {entry.name!r}"
                raise ConflictError(message, param="id")
            if connection.execute(delete(tokenizers).where(tokenizers.c.id == entry.id)).rowcount != 1:
                message = f"there is no tokenizer {entry.id!r}"
                raise NotFoundError(message, param="id")

    def _mine(self) -> list[ColumnElement[bool]]:
        return [] if self._caller.sees_all else [tokenizers.c.key_id == self._caller.owner]


def tokenizer_folder(tokenizer_id: str) -> str:
    """Where the files of an uploaded tokenizer are."""
    return f"tokenizers/{tokenizer_id}"


def _entry(row: RowMapping) -> TokenizerEntry:
    return TokenizerEntry(
        id=row["id"], name=row["name"], owner=row["key_id"], created_at=row["created_at"], **json.loads(row["record"])
    )
