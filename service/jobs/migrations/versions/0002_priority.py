"""Jobs have a priority, and an index in the order in which they are claimed."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Integer, text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """What waits already has the priority 0."""
    op.add_column("jobs", Column("priority", Integer, nullable=False, server_default=text("0")))
    op.create_index("jobs_by_priority", "jobs", ["state", text("priority DESC"), "id"])
