"""Uploads and datasets in the database.

What there is, not the bytes. A dataset's row appears when its manifest is committed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, Table, delete, func, insert, select
from sqlalchemy.sql.elements import ColumnElement

from service.access import HOUSE, Caller
from service.jobs.arrivals import Arrivals
from service.jobs.database import datasets, new_id, now, reading, uploads
from service.jobs.registry import TokenizerTable
from service.problems import NotFoundError


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetEntry:
    """A committed dataset, owned by the key `key_id`. `created_at` is the database's to say."""

    id: str
    job_id: str
    kind: str
    name: str
    fingerprint: str
    manifest_sha256: str
    files: int
    rows: int
    tokens: int
    bytes: int
    key_id: str = ""
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadEntry:
    """An upload that was taken in; `record` is its SourceRecord as JSON."""

    id: str
    record: Mapping[str, Any]
    created_at: float


class Catalog:
    """The tables of uploads and datasets, as far as `caller` may see them: what belongs to others is not there."""

    def __init__(self, engine: Engine, *, caller: Caller = HOUSE) -> None:
        self._engine = engine
        self._caller = caller

    def seen_by(self, caller: Caller) -> Catalog:
        """The same tables for somebody."""
        return Catalog(self._engine, caller=caller)

    @property
    def tokenizers(self) -> TokenizerTable:
        """The tokenizers that users sent, as far as the caller may see them."""
        return TokenizerTable(self._engine, caller=self._caller)

    @property
    def arrivals(self) -> Arrivals:
        """Uploads on their way, as far as the caller may see them."""
        return Arrivals(self._engine, caller=self._caller)

    def _mine(self, table: Table) -> list[ColumnElement[bool]]:
        return mine(table, self._caller)

    def new_upload_id(self) -> str:
        """An id for an upload that is still on its way."""
        with reading(self._engine) as connection:
            return new_id("up", connection)

    def add_upload(self, upload_id: str, record: Mapping[str, Any]) -> UploadEntry:
        """Enter an upload whose pieces are in the object store."""
        values = {"id": upload_id, "record": json.dumps(record), "created_at": now(), "key_id": self._caller.owner}
        with self._engine.begin() as connection:
            return _upload(connection.execute(insert(uploads).values(values).returning(uploads)).mappings().one())

    def upload(self, upload_id: str) -> UploadEntry:
        """One upload; raises NotFoundError."""
        with reading(self._engine) as connection:
            query = select(uploads).where(uploads.c.id == upload_id, *self._mine(uploads))
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            message = f"there is no upload {upload_id!r}"
            raise NotFoundError(message, param="id")
        return _upload(row)

    def delete_upload(self, upload_id: str) -> None:
        """Forget an upload; raises NotFoundError."""
        with self._engine.begin() as connection:
            if connection.execute(delete(uploads).where(uploads.c.id == upload_id, *self._mine(uploads))).rowcount != 1:
                message = f"there is no upload {upload_id!r}"
                raise NotFoundError(message, param="id")

    def dataset(self, dataset_id: str) -> DatasetEntry:
        """One dataset; raises NotFoundError."""
        with reading(self._engine) as connection:
            query = select(datasets).where(datasets.c.id == dataset_id, *self._mine(datasets))
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            message = f"there is no dataset {dataset_id!r}"
            raise NotFoundError(message, param="id")
        return DatasetEntry(**row)

    def datasets(self, *, kind: str | None = None, after: str | None = None, limit: int = 20) -> Sequence[DatasetEntry]:
        """Datasets, newest first, those after the dataset `after`."""
        query = select(datasets).where(*self._mine(datasets)).order_by(datasets.c.id.desc()).limit(limit)
        if kind is not None:
            query = query.where(datasets.c.kind == kind)
        if after is not None:
            query = query.where(datasets.c.id < after)
        with reading(self._engine) as connection:
            return [DatasetEntry(**row) for row in connection.execute(query).mappings()]

    def delete_dataset(self, dataset_id: str) -> None:
        """Forget a dataset; raises NotFoundError. Its files are the caller's to remove, afterwards."""
        with self._engine.begin() as connection:
            if (
                connection.execute(delete(datasets).where(datasets.c.id == dataset_id, *self._mine(datasets))).rowcount
                != 1
            ):
                message = f"there is no dataset {dataset_id!r}"
                raise NotFoundError(message, param="id")

    def counts(self) -> dict[str, int]:
        """How many uploads and datasets there are, of all owners."""
        with reading(self._engine) as connection:
            return {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (uploads, datasets)
            }

    def totals(self) -> dict[str, int]:
        """Files, rows, tokens and bytes of all datasets there are, of all owners."""
        columns = [func.coalesce(func.sum(datasets.c[n]), 0).label(n) for n in ("files", "rows", "tokens", "bytes")]
        with reading(self._engine) as connection:
            return {name: int(total) for name, total in connection.execute(select(*columns)).mappings().one().items()}


def mine(table: Table, caller: Caller) -> list[ColumnElement[bool]]:
    """The conditions that leave what `caller` may see of a table with owners."""
    return [] if caller.sees_all else [table.c.key_id == caller.owner]


def insert_dataset(connection: Connection, entry: DatasetEntry) -> None:
    """Enter a committed dataset in the caller's transaction."""
    connection.execute(insert(datasets).values(asdict(entry) | {"created_at": now()}))


def _upload(row: RowMapping) -> UploadEntry:
    return UploadEntry(id=row["id"], record=json.loads(row["record"]), created_at=row["created_at"])
