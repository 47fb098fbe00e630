"""Tokenizers that users send."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Float, String, Text, UniqueConstraint

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """No user has sent one yet."""
    op.create_table(
        "tokenizers",
        Column("id", String(64), primary_key=True),
        Column("name", String(64), nullable=False),
        Column("record", Text, nullable=False),
        Column("created_at", Float, nullable=False),
        Column("key_id", String(16), nullable=False, server_default=""),
        UniqueConstraint("key_id", "name", name="tokenizers_by_name"),
    )
