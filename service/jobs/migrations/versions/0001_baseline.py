"""The tables when steps began to be counted. Databases from before have some of them, or all, and are adopted.

The definitions stand still here; those that grow are in service.jobs.database.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, inspect, text

revision = "0001"
down_revision = None

_tables = MetaData()


def _key_id() -> Column[str]:
    return Column("key_id", String(16), nullable=False, server_default="")


Table(
    "jobs",
    _tables,
    Column("id", String(64), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("spec", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("target", String(64), nullable=False, unique=True),
    Column("attempt", Integer, nullable=False),
    Column("owner", String(64)),
    Column("lease_expires_at", Float),
    Column("not_before", Float, nullable=False),
    Column("error", Text),
    Column("shards_done", BigInteger, nullable=False),
    Column("shards_total", BigInteger),
    Column("rows", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("eta_seconds", Float),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    _key_id(),
    Index("jobs_by_state", "state", "id"),
)
Table(
    "events",
    _tables,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("job_id", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("type", String(16), nullable=False),
    Column("level", String(8), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", Text, nullable=False),
    Index("events_by_job", "job_id", "id"),
    sqlite_autoincrement=True,
)
Table(
    "uploads",
    _tables,
    Column("id", String(64), primary_key=True),
    Column("record", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    _key_id(),
)
Table(
    "datasets",
    _tables,
    Column("id", String(64), primary_key=True),
    Column("job_id", String(64), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("fingerprint", String(128), nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    _key_id(),
)
Table(
    "owned_idempotency_keys",
    _tables,
    Column("key_id", String(16), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("body_sha256", String(64), nullable=False),
    Column("job_id", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
)
Table(
    "api_keys",
    _tables,
    Column("id", String(16), primary_key=True),
    Column("owner", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("last_used_at", Float),
    Column("revoked_at", Float),
)
Table(
    "runners",
    _tables,
    Column("id", String(64), primary_key=True),
    Column("seen_at", Float, nullable=False),
)


def upgrade() -> None:
    """Make the tables that are missing; give those from before there were owners their column and their keys."""
    connection = op.get_bind()
    _tables.create_all(connection)
    here = inspect(connection)
    for name in ("jobs", "uploads", "datasets"):
        if "key_id" not in {column["name"] for column in here.get_columns(name)}:
            op.add_column(name, _key_id())
    if here.has_table("idempotency_keys"):
        # Its primary key was the client's key alone, which neither database changes in place alike.
        op.execute(
            text(
                "INSERT INTO owned_idempotency_keys (key_id, key, body_sha256, job_id, created_at) "
                "SELECT '', key, body_sha256, job_id, created_at FROM idempotency_keys"
            )
        )
        op.drop_table("idempotency_keys")
