"""The database: its tables, its clock, and an engine on SQLite or PostgreSQL.

The tables here are as this version has them. A change to them is also a step in service.jobs.migrations.

All times are the database's own (`now()`), so that runners with clocks of their own agree about leases.
"""

from __future__ import annotations

import secrets
import sqlite3
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from service.jobs import migrations
from service.problems import UnavailableError

BUSY_MILLISECONDS = 10_000
PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""Of libpq: seconds, the last in milliseconds. Together less than the default lease."""
STEP_LOCK = 7_105_923
"""A number of our own: PostgreSQL lets one process at a time make tables and take steps under it."""

metadata = MetaData()


def _key_id() -> Column[str]:
    """Whose row it is: the owner of the key that made it, "" where the service had no keys."""
    return Column("key_id", String(16), nullable=False, server_default="")


jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("spec", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("target", String(64), nullable=False, unique=True),
    Column("attempt", Integer, nullable=False, default=0),
    Column("owner", String(64)),
    Column("lease_expires_at", Float),
    Column("not_before", Float, nullable=False, default=0.0),
    Column("error", Text),
    Column("shards_done", BigInteger, nullable=False, default=0),
    Column("shards_total", BigInteger),
    Column("rows", BigInteger, nullable=False, default=0),
    Column("tokens", BigInteger, nullable=False, default=0),
    Column("bytes", BigInteger, nullable=False, default=0),
    Column("eta_seconds", Float),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    _key_id(),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Index("jobs_by_state", "state", "id"),
)
Index("jobs_by_priority", jobs.c.state, jobs.c.priority.desc(), jobs.c.id)

events = Table(
    "events",
    metadata,
    # SQLite counts up by itself only in a column that is INTEGER to the letter.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("job_id", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("type", String(16), nullable=False),
    Column("level", String(8), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", Text, nullable=False),
    Index("events_by_job", "job_id", "id"),
    sqlite_autoincrement=True,  # an id is never given twice, so a Last-Event-ID means the same for ever
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("record", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    _key_id(),
)

arriving_uploads = Table(
    "arriving_uploads",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("length", BigInteger),
    Column("sha256", String(64)),
    Column("created_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    _key_id(),
    Index("arriving_uploads_by_owner", "key_id", "seen_at"),
)

datasets = Table(
    "datasets",
    metadata,
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

idempotency_keys = Table(
    "owned_idempotency_keys",
    metadata,
    Column("key_id", String(16), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("body_sha256", String(64), nullable=False),
    Column("job_id", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("owner", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("last_used_at", Float),
    Column("revoked_at", Float),
)

shard_times = Table(
    "shard_times",
    metadata,
    Column("kind", String(64), primary_key=True),
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    Column("shards", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("tokens", BigInteger, nullable=False),
)

runners = Table(
    "runners",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("seen_at", Float, nullable=False),
)


tokenizers = Table(
    "tokenizers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("record", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    _key_id(),
    UniqueConstraint("key_id", "name", name="tokenizers_by_name"),
)


class now(FunctionElement[float]):  # noqa: N801  # it stands among SQL functions
    """Seconds since 1970 by the database's clock."""

    type = Float()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(_element: Any, _compiler: Any, **_options: Any) -> str:  # pyright: ignore[reportUnusedFunction]
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(_element: Any, _compiler: Any, **_options: Any) -> str:  # pyright: ignore[reportUnusedFunction]
    # now() would stand still for the length of a transaction.
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


def open_database(url: str) -> Engine:
    """An engine with the tables made or brought to this version; raises UnavailableError where there is no database,
    or one that a newer version has been at work on.

    `engine.begin()` opens a transaction that may write. On SQLite it takes the write lock at once: one that reads
    first and writes later would be refused without waiting when somebody else wrote in between. `reading(engine)`
    takes no lock.
    """
    try:
        engine = engine_at(url)
        _make_tables(engine)
    except (OperationalError, sqlite3.Error) as error:
        message = f"the database cannot be opened: {_first_line(error)}"
        raise UnavailableError(message, param="LONGWEAVE_DATABASE_URL") from error
    except (SQLAlchemyError, ImportError) as error:
        # The URL may hold a password, so it is not repeated.
        message = f"LONGWEAVE_DATABASE_URL cannot be used ({type(error).__name__})"
        raise UnavailableError(message, param="LONGWEAVE_DATABASE_URL") from error
    return engine


def patience(url: str | URL) -> dict[str, int]:
    """How long libpq waits for a PostgreSQL that says nothing, less what the URL itself says of it.

    A connection whose other side is gone without a word (a host that lost its power, a network that drops packets)
    would be waited for as long as the kernel sees fit, minutes at least, and a runner's lease would run out meanwhile.
    """
    given = make_url(url).query
    return {name: value for name, value in PATIENCE.items() if name not in given}


def engine_at(url: str) -> Engine:
    """An engine whose database has not been looked at; raises what SQLAlchemy raises for a URL that it cannot use."""
    options = {} if url.startswith("sqlite") else {"pool_pre_ping": True, "connect_args": patience(url)}
    engine = create_engine(url, **options)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
    return engine


def _make_tables(engine: Engine) -> None:
    """Make the tables, or bring old ones forward, all of it or nothing; what is as it should be is not locked."""
    try:
        with reading(engine) as connection:
            if migrations.standing(connection) == migrations.NEWEST:
                return
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({STEP_LOCK})"))
            migrations.bring_forward(connection, metadata)
    except Exception:
        engine.dispose()
        raise


def reading(engine: Engine) -> Connection:
    """A connection for statements that only read."""
    return engine.connect().execution_options(reading=True)


def new_id(prefix: str, connection: Connection) -> str:
    """A random id whose order is the order of creation: milliseconds of the database's clock, then 72 random bits."""
    milliseconds = int(connection.execute(select(now())).scalar_one() * 1000)
    return f"{prefix}_{milliseconds:011x}{secrets.token_hex(9)}"


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    # Python's driver would begin transactions by itself, and late; `_on_begin` does it.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {BUSY_MILLISECONDS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: Connection) -> None:
    reads = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
