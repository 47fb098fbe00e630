"""How long shards have taken, counted in the database, so that every process of the API tells what all runners have built.

A count goes up with the progress of the job that it came from, in one transaction under its lease: a runner that has lost its job
counts nothing, one that dies has counted what it told, and a shard that is built again is counted again, for it took its time.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from service.jobs.database import shard_times

BOUNDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Seconds: what took at most so long is in the bucket of that place, and all else in one after the last."""

INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A shard that was built."""

    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTimes:
    """All shards of a kind: how many by bucket (one more than BOUNDS), and the sums of their seconds and tokens."""

    shards: tuple[int, ...]
    seconds: float
    tokens: int


def count(connection: Connection, kind: str, built: Sequence[Built]) -> None:
    """Add shards to the counts, in the caller's transaction."""
    found: dict[int, list[Built]] = {}
    for shard in built:
        found.setdefault(bisect.bisect_left(BOUNDS, shard.seconds), []).append(shard)
    # In the order of buckets, so that of two runners one waits for the other and never both.
    for bucket, shards in sorted(found.items()):
        new = INSERTS[connection.dialect.name](shard_times).values(
            kind=kind,
            bucket=bucket,
            shards=len(shards),
            seconds=sum(shard.seconds for shard in shards),
            tokens=sum(shard.tokens for shard in shards),
        )
        more = {name: shard_times.c[name] + new.excluded[name] for name in ("shards", "seconds", "tokens")}
        connection.execute(new.on_conflict_do_update(index_elements=["kind", "bucket"], set_=more))


def read(connection: Connection) -> Mapping[str, ShardTimes]:
    """The counts by kind."""
    shards: dict[str, list[int]] = {}
    sums: dict[str, tuple[float, int]] = {}
    for row in connection.execute(select(shard_times).order_by(shard_times.c.kind)):
        shards.setdefault(row.kind, [0] * (len(BOUNDS) + 1))[row.bucket] = row.shards
        seconds, tokens = sums.get(row.kind, (0.0, 0))
        sums[row.kind] = (seconds + row.seconds, tokens + row.tokens)
    return {
        kind: ShardTimes(shards=tuple(shards[kind]), seconds=seconds, tokens=tokens)
        for kind, (seconds, tokens) in sums.items()
    }
