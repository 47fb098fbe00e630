"""Uploads that come in parts."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Index, String, Text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """None is on its way yet."""
    op.create_table(
        "arriving_uploads",
        Column("id", String(64), primary_key=True),
        Column("name", Text, nullable=False),
        Column("length", BigInteger),
        Column("sha256", String(64)),
        Column("created_at", Float, nullable=False),
        Column("seen_at", Float, nullable=False),
        Column("key_id", String(16), nullable=False, server_default=""),
        Index("arriving_uploads_by_owner", "key_id", "seen_at"),
    )
