"""How long shards have taken, by kind and bucket."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, String

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """None is counted yet."""
    op.create_table(
        "shard_times",
        Column("kind", String(64), primary_key=True),
        Column("bucket", Integer, primary_key=True, autoincrement=False),
        Column("shards", BigInteger, nullable=False),
        Column("seconds", Float, nullable=False),
        Column("tokens", BigInteger, nullable=False),
    )
