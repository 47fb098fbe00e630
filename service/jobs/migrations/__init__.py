"""The tables from version to version: one file a step below `versions`, run once and in order by alembic.

A database says in `alembic_version` at which step it stands. A new one is made whole from the tables as they are now and
marked so; a test holds the two ways to the same tables. There is no way back but a backup.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select

from service.problems import UnavailableError

NEWEST = "0005"
"""The last step there is. Known without alembic, which takes 0.4 s to import and is not needed where nothing is to be done."""

FOLDER = Path(__file__).parent

# alembic's own table, of which it makes the same.
_marks = MetaData()
_mark = Table(
    "alembic_version",
    _marks,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)

# alembic keeps the running migration in variables of its modules.
_one_at_a_time = threading.Lock()


def standing(connection: Connection) -> str | None:
    """The step a database stands at; None where it is empty, or from before steps were counted."""
    if not inspect(connection).has_table(_mark.name):
        return None
    return connection.execute(select(_mark.c.version_num)).scalar_one_or_none()


def bring_forward(connection: Connection, tables: MetaData) -> None:
    """Make the tables, or bring those of an earlier version to this one, in the connection's transaction.

    Done twice, it does nothing. Raises UnavailableError for a database that a newer version has brought further.
    """
    found = standing(connection)
    if found == NEWEST:
        return
    if found is None and not inspect(connection).has_table("jobs"):
        tables.create_all(connection)
        _marks.create_all(connection)
        connection.execute(insert(_mark).values(version_num=NEWEST))
        return
    with _one_at_a_time:
        run_steps(connection, found)


def run_steps(connection: Connection, found: str | None) -> None:
    """Run every step after `found`; raises UnavailableError where that is none of ours."""
    from alembic import command
    from alembic.script import ScriptDirectory

    steps = config(connection)
    known = {step.revision for step in ScriptDirectory.from_config(steps).walk_revisions()}
    if found is not None and found not in known:
        message = (
            f"the database is of a newer version of Longweave (step {found}, this one knows {NEWEST}): update Longweave"
        )
        raise UnavailableError(message, param="LONGWEAVE_DATABASE_URL")
    command.upgrade(steps, "head")


def config(connection: Connection) -> Any:
    """What alembic is told instead of an alembic.ini: where the steps are, and on which connection to run them."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made
