"""A kind of dataset that does nothing, and the task that counts what tasks take: only the bench knows them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field

from packing.plan import Inputs, Piece, Plan, Shard, Survey, Tally
from packing.spec import CommonSpec
from service.engine import shard_task
from service.kinds import KINDS

RECORD = "LONGWEAVE_BENCH_RECORD"
SCHEMA = pa.schema([pa.field("n_tokens", pa.int32(), nullable=False)])


class Spec(CommonSpec):
    """So many shards of one row each."""

    kind: Literal["noop"]
    shards: Annotated[int, Field(ge=1)]


def needs_survey(spec: Spec) -> bool:
    return False


def survey(spec: Spec, piece: Piece, inputs: Inputs, tally: Tally) -> Survey:
    raise AssertionError("there is no source")


def plan(spec: Spec, inputs: Inputs, surveys: Sequence[pa.Table]) -> Plan:
    return Plan.of_work([{"number": number} for number in range(spec.shards)])


def schema(spec: Spec) -> pa.Schema:
    return SCHEMA


def build(spec: Spec, shard: Shard, inputs: Inputs, tally: Tally) -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pylist([{"n_tokens": 1}], schema=SCHEMA)


def check(spec: Spec, batch: pa.RecordBatch) -> None:
    pass


def conclude(spec: Spec, tally: Tally) -> list[str]:
    return []


def charts(spec: Spec, tally: Tally) -> dict[str, Any]:
    return {}


def register() -> None:
    """Make the kind known in this process."""
    import sys

    KINDS.setdefault("noop", sys.modules[__name__])  # type: ignore[arg-type]


def timed_task(payload: bytes) -> bytes:
    """A task as the product runs it; its seconds, by the wall, are a line of the file that LONGWEAVE_BENCH_RECORD names."""
    register()
    begun = time.perf_counter()
    result = shard_task.run_task(payload)
    line = f"{os.getpid()} {time.perf_counter() - begun:.6f}\n".encode()
    record = os.open(os.environ[RECORD], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(record, line)
    os.close(record)
    return result
