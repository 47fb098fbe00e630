"""Databases of other versions: older ones are brought forward whole or not at all, newer ones are left alone."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, inspect, text

from service import access
from service.access import Caller, Scope
from service.jobs import migrations
from service.jobs.catalog import Catalog
from service.jobs.database import engine_at, metadata, open_database
from service.jobs.store import JobStore, Request
from service.problems import UnavailableError

REQUEST = Request(kind="skipalign", name="n", spec={"a": 1}, metadata={}, key="again", body_sha256="s")


def first_tables():
    """The tables of the first version, before there were keys and owners."""
    tables = MetaData()
    big, one = BigInteger, Float
    Table(
        "jobs",
        tables,
        Column("id", String(64), primary_key=True),
        *(Column(name, String(64), nullable=False) for name in ("kind",)),
        Column("name", Text, nullable=False),
        Column("state", String(16), nullable=False),
        *(Column(name, Text, nullable=False) for name in ("spec", "metadata")),
        Column("target", String(64), nullable=False, unique=True),
        Column("attempt", Integer, nullable=False),
        Column("owner", String(64)),
        Column("lease_expires_at", one),
        Column("not_before", one, nullable=False),
        Column("error", Text),
        Column("shards_done", big, nullable=False),
        Column("shards_total", big),
        *(Column(name, big, nullable=False) for name in ("rows", "tokens", "bytes")),
        Column("eta_seconds", one),
        Column("created_at", one, nullable=False),
        *(Column(name, one) for name in ("started_at", "finished_at")),
        Index("jobs_by_state", "state", "id"),
    )
    Table(
        "events",
        tables,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("job_id", String(64), nullable=False),
        Column("created_at", one, nullable=False),
        Column("type", String(16), nullable=False),
        Column("level", String(8), nullable=False),
        *(Column(name, Text, nullable=False) for name in ("message", "data")),
        Index("events_by_job", "job_id", "id"),
        sqlite_autoincrement=True,
    )
    Table(
        "uploads",
        tables,
        Column("id", String(64), primary_key=True),
        Column("record", Text, nullable=False),
        Column("created_at", one, nullable=False),
    )
    Table(
        "datasets",
        tables,
        Column("id", String(64), primary_key=True),
        *(Column(name, String(64), nullable=False) for name in ("job_id", "kind")),
        Column("name", Text, nullable=False),
        Column("fingerprint", String(128), nullable=False),
        Column("manifest_sha256", String(64), nullable=False),
        *(Column(name, big, nullable=False) for name in ("files", "rows", "tokens", "bytes")),
        Column("created_at", one, nullable=False),
    )
    Table(
        "idempotency_keys",
        tables,
        Column("key", String(255), primary_key=True),
        *(Column(name, String(64), nullable=False) for name in ("body_sha256", "job_id")),
        Column("created_at", one, nullable=False),
    )
    Table("runners", tables, Column("id", String(64), primary_key=True), Column("seen_at", one, nullable=False))
    return tables


def before_keys(url):
    """A database of the first version with a row in each table but the runners'."""
    engine, tables = engine_at(url), first_tables()
    with engine.begin() as connection:
        tables.create_all(connection)
        for table in tables.tables.values():
            row = {c.name: "{}" if isinstance(c.type, String | Text) else 1 for c in table.columns}
            row |= {name: value for name, value in {"state": "queued", "id": "job_1"}.items() if name in row}
            if table.name == "idempotency_keys":
                row |= {"key": "again", "body_sha256": "s", "job_id": "job_1"}
            if table.name == "events":
                row |= {"id": 1, "job_id": "job_1", "data": "{}"}
            connection.execute(table.insert().values(row))
    engine.dispose()


def before_steps(url):
    """A database with keys and owners, from when there were no steps yet: the baseline without its mark, with a job."""
    before_keys(url)
    engine = engine_at(url)
    with engine.begin() as connection:
        command.upgrade(migrations.config(connection), "0001")
        connection.execute(text("DROP TABLE alembic_version"))
    engine.dispose()


OLDER = {"before keys": before_keys, "before steps": before_steps}


def differences(engine):
    """What alembic would change to make the database's tables ours."""
    with engine.connect() as connection:
        # Defaults are compared by tables_of: alembic takes '' for none on SQLite.
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)


def caller(owner):
    return Caller(owner, access.implied([Scope.WRITE]), owner)


@pytest.mark.parametrize("older", OLDER)
def test_an_older_database_gains_what_is_new_and_keeps_its_rows(url, older):
    OLDER[older](url)
    for _ in range(2):  # the second time there is nothing left to do
        engine = open_database(url)
        assert differences(engine) == []
        assert not inspect(engine).has_table("idempotency_keys")
        store, catalog = JobStore(engine, queue_limit=100), Catalog(engine)
        assert store.get("job_1").key_id == ""
        assert catalog.dataset("job_1").key_id == ""
        assert store.submit(REQUEST)[0].id == "job_1"
        assert catalog.upload("job_1").id == "job_1"
        assert catalog.seen_by(caller("someone")).datasets() == []
        assert [entry.id for entry in store.events("job_1")] == [1]
        with engine.connect() as connection:
            assert connection.execute(text("SELECT priority FROM jobs")).scalars().all() == [0]
            assert migrations.standing(connection) == migrations.NEWEST
        engine.dispose()
    engine = open_database(url)
    mine = JobStore(engine, queue_limit=100).seen_by(caller("someone"))
    assert mine.submit(REQUEST)[0].key_id == "someone"
    engine.dispose()


def test_the_steps_from_nothing_and_a_new_database_are_the_same(url):
    engine = engine_at(url)
    with engine.begin() as connection:
        migrations.run_steps(connection, None)
    assert differences(engine) == []
    stepped = tables_of(engine)
    with engine.begin() as connection:
        for name in stepped:
            connection.execute(text(f'DROP TABLE "{name}"'))
    engine.dispose()
    engine = open_database(url)
    assert differences(engine) == []
    assert tables_of(engine) == stepped
    assert len(stepped) == len(metadata.tables) + 1
    engine.dispose()


def tables_of(engine):
    """Every table's columns (in any order, for a step adds at the end), keys and indexes as the database tells them."""
    here = inspect(engine)
    found = {}
    for name in here.get_table_names():
        columns = {c["name"]: (str(c["type"]), c["nullable"], str(c["default"])) for c in here.get_columns(name)}
        indexes = {i["name"]: (i["column_names"], i["unique"], i.get("column_sorting")) for i in here.get_indexes(name)}
        unique = [constraint["column_names"] for constraint in here.get_unique_constraints(name)]
        found[name] = (columns, here.get_pk_constraint(name)["constrained_columns"], indexes, unique)
    return found


def test_a_difference_would_be_seen(url):
    engine = open_database(url)
    for change in ("DROP INDEX jobs_by_priority", "ALTER TABLE jobs DROP COLUMN eta_seconds"):
        before = len(differences(engine))
        with engine.begin() as connection:
            connection.execute(text(change))
        assert len(differences(engine)) > before, change
    engine.dispose()


def test_the_newest_step_is_the_one_we_name():
    script = ScriptDirectory(str(migrations.FOLDER))
    assert script.get_heads() == [migrations.NEWEST]
    assert [step.revision for step in script.walk_revisions()] == ["0005", "0004", "0003", "0002", "0001"]


def test_claims_are_served_by_the_index_of_priorities(url):
    engine = open_database(url)
    query = "SELECT id FROM jobs WHERE state = 'queued' ORDER BY priority DESC, id LIMIT 1"
    explain = "EXPLAIN QUERY PLAN " if url.startswith("sqlite") else "EXPLAIN "
    with engine.connect() as connection:
        if not url.startswith("sqlite"):
            connection.execute(text("SET enable_seqscan = off"))  # an empty table is read as a whole otherwise
        plan = " ".join(str(row) for row in connection.execute(text(explain + query)))
    assert "jobs_by_priority" in plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan
    engine.dispose()


@pytest.mark.parametrize("older", OLDER)
def test_a_step_that_fails_leaves_the_database_as_it_was(url, monkeypatch, older):
    OLDER[older](url)
    engine = engine_at(url)
    before = tables_of(engine)
    real = migrations.run_steps

    def fails(connection, found):
        real(connection, found)
        connection.execute(text("SELECT * FROM nowhere"))

    monkeypatch.setattr(migrations, "run_steps", fails)
    with pytest.raises(UnavailableError):
        open_database(url)
    monkeypatch.undo()
    assert tables_of(engine) == before
    engine.dispose()
    engine = open_database(url)
    assert JobStore(engine, queue_limit=100).submit(REQUEST)[0].id == "job_1"
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused_and_left_alone(url):
    engine = open_database(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("DROP TABLE runners"))
    with pytest.raises(UnavailableError, match=r"newer version of Longweave .step 9999.*update Longweave") as caught:
        open_database(url)
    assert caught.value.param == "LONGWEAVE_DATABASE_URL"
    assert not inspect(engine).has_table("runners")
    engine.dispose()


def test_many_that_start_on_an_older_database_at_once_all_open_it(url):
    before_keys(url)
    count = 8
    gate = threading.Barrier(count)

    def start(_number):
        gate.wait()
        engine = open_database(url)
        found = differences(engine), JobStore(engine, queue_limit=100).get("job_1").key_id
        engine.dispose()
        return found

    with ThreadPoolExecutor(count) as pool:
        assert list(pool.map(start, range(count))) == [([], "")] * count


def test_alembic_is_imported_only_where_there_is_something_to_do(tmp_path):
    ask = (
        "import sys; from service.jobs.database import open_database\n"
        "open_database(sys.argv[1]).dispose(); print('alembic' in sys.modules)"
    )

    def imported(url):
        return subprocess.run(
            [sys.executable, "-c", ask, url], check=True, capture_output=True, text=True
        ).stdout.strip()

    url = f"sqlite:///{tmp_path}/new.db"
    assert [imported(url), imported(url)] == ["False", "False"]
    old = f"sqlite:///{tmp_path}/old.db"
    before_keys(old)
    assert [imported(old), imported(old)] == ["True", "False"]
