"""One task of a job: look at a piece, or build a shard. It knows nothing of who asked, in what order, or how often."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import pyarrow as pa

from packing.dataset.errors import LongweaveError, TokenizerError
from packing.dataset.manifest import canonical_json
from packing.dataset.writer import write_shard
from packing.plan import Kind, Shard, Tally
from packing.spec import CommonSpec
from service.engine import poison
from service.engine.inputs import StoreInputs, write_kept
from service.engine.memory import keep_freed_memory
from service.engine.tokenizers import TokenizerRecord, gave_up
from service.faults import crash_point
from service.kinds import KINDS, spec_of
from service.storage.objects import Objects
from service.storage.seals import seal, unseal
from service.storage.source_record import SourceRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A finished shard: what stands where, what was counted while it was built, and how many seconds that took."""

    index: int
    path: str
    split: str
    rows: int
    tokens: int
    bytes: int
    sha256: str
    content_sha256: str
    tally: Mapping[str, Any]
    seconds: float = 0.0

    def to_bytes(self) -> bytes:
        """The receipt as canonical JSON, sealed."""
        return seal(canonical_json(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """The receipt as plain JSON; its tally is not copied."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_bytes(cls, data: bytes, *, path: str) -> Receipt:
        """The inverse of `to_bytes`; raises DamagedError, naming `path`."""
        return cls(**json.loads(unseal(data, path=path)))


class TaskError(LongweaveError):
    """An error that a task reported: the sentence and code are the worker's."""

    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message, param=param)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all tasks of a job share, as it stands in the store at `<work>/header.json`."""

    kind: Kind
    spec: CommonSpec
    inputs: StoreInputs
    target: str


def header(spec: CommonSpec, sources: Mapping[str, Any], tokenizer: TokenizerRecord, target: str) -> bytes:
    """The header of a job, as its tasks read it, sealed."""
    return seal(
        canonical_json({"spec": spec.to_json(), "sources": sources, "tokenizer": tokenizer.to_json(), "target": target})
    )


@lru_cache(maxsize=4)
def _open_job(url: str, work: str, data: bytes) -> Job:
    value = json.loads(unseal(data, path=f"{work}/header.json"))
    spec = spec_of(value["spec"])
    sources = {pointer: SourceRecord.from_json(record) for pointer, record in value["sources"].items()}
    inputs = StoreInputs(Objects.open(url), sources, TokenizerRecord(**value["tokenizer"]), work=work)
    return Job(kind=KINDS[spec.kind], spec=spec, inputs=inputs, target=value["target"])


def survey_payload(url: str, work: str, piece: int) -> bytes:
    """The task of surveying the job's piece number `piece`."""
    return canonical_json({"store": url, "work": work, "stage": "survey", "piece": piece})


def build_payload(url: str, work: str, shard: Shard) -> bytes:
    """The task of building one shard."""
    task = {"store": url, "work": work, "stage": "build", "shard": shard.to_json(), "table": shard.table is not None}
    return canonical_json(task)


def run_task(payload: bytes) -> bytes:
    """Do one task; JSON in, JSON out. A LongweaveError comes back as data; anything else is raised, for it is nobody's input."""
    task = json.loads(payload)
    keep_freed_memory()
    try:
        objects = Objects.open(task["store"])
        job = _open_job(task["store"], task["work"], objects.read(f"{task['work']}/header.json"))
        if task["stage"] == "survey":
            _survey(job, objects, task["work"], task["piece"])
            return canonical_json({"survey": task["piece"]})
        table = read_table(objects, plan_path(task["work"], task["shard"]["index"])) if task["table"] else None
        receipt = _build(job, objects, task["work"], Shard(**task["shard"], table=table))
        crash_point("shard_put")
        objects.write(receipt_path(task["work"], receipt.index), receipt.to_bytes())
        crash_point("receipt_put")
        return canonical_json({"receipt": receipt.to_json()})
    except LongweaveError as error:
        return canonical_json({"error": {"code": error.code, "message": error.message, "param": error.param}})
    except BaseException as error:
        if not gave_up(error):
            raise
        message = f"the tokenizer's engine gives up on a text of the source: {error}"
        return canonical_json({"error": {"code": TokenizerError.code, "message": message, "param": "/tokenizer"}})


def receipt_path(work: str, index: int) -> str:
    """Where the receipt of a shard is kept."""
    return f"{work}/receipts/{index:08d}.json"


def survey_path(work: str, piece: int) -> str:
    """Where the survey of a piece is kept."""
    return f"{work}/surveys/{piece:08d}.arrow"


def plan_path(work: str, index: int) -> str:
    """Where the table of a shard's plan is kept."""
    return f"{work}/plans/{index:08d}.arrow"


def read_table(objects: Objects, path: str) -> pa.Table:
    """A table as `write_table` left it; raises DamagedError for any other."""
    return pa.ipc.open_file(io.BytesIO(unseal(objects.read(path), path=path))).read_all()


def write_table(objects: Objects, path: str, table: pa.Table) -> None:
    """Keep a table below the job's work, sealed, whole or not at all."""
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    objects.write(path, seal(sink.getvalue()))


def read_survey(objects: Objects, work: str, piece: int) -> tuple[pa.Table, Tally]:
    """The survey of a piece, as a task left it, and what it counted."""
    table = read_table(objects, survey_path(work, piece))
    return table, Tally.from_json(json.loads((table.schema.metadata or {})[b"tally"]))


def _survey(job: Job, objects: Objects, work: str, number: int) -> None:
    tally, piece = Tally(), job.inputs.pieces[number]
    poison.begin(objects, work, survey_path(work, number), what=poison.what_survey(piece, number), param=piece.field)
    crash_point("task_begun")
    found = job.kind.survey(job.spec, piece, job.inputs, tally)
    if found.kept is not None:
        write_kept(objects, work, number, found.kept)
    crash_point("survey_kept")
    # The table is the survey's receipt: it comes last.
    write_table(
        objects,
        survey_path(work, number),
        found.table.replace_schema_metadata({"tally": canonical_json(tally.to_json())}),
    )
    crash_point("survey_put")


def _build(job: Job, objects: Objects, work: str, shard: Shard) -> Receipt:
    begun, tally = time.monotonic(), Tally()
    what = poison.what_shard(job.spec.kind, shard)
    poison.begin(objects, work, receipt_path(work, shard.index), what=what, param=shard.path)
    crash_point("task_begun")

    def checked() -> Iterator[pa.RecordBatch]:
        for batch in job.kind.build(job.spec, shard, job.inputs, tally):
            job.kind.check(job.spec, batch)
            yield batch

    path = f"{job.target}/{shard.path}" if job.target else shard.path
    with objects.writing(path, staging=f"{work}/partial") as stream:
        written = write_shard(checked(), job.kind.schema(job.spec), stream)
    taken = round(time.monotonic() - begun, 3)
    return Receipt(
        index=shard.index,
        path=shard.path,
        split=shard.split,
        tally=tally.to_json(),
        seconds=taken,
        **asdict(written),
    )
