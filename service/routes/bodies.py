"""The bodies of responses, as models for OpenAPI and as functions that make them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from service.jobs.arrivals import Arrival
from service.jobs.catalog import DatasetEntry, UploadEntry
from service.jobs.eventlog import Entry
from service.jobs.job import Job
from service.jobs.registry import TokenizerEntry


class ProgressBody(BaseModel):
    """How far a job has come."""

    shards_done: int
    shards_total: int | None
    rows: int
    tokens: int
    bytes: int
    eta_seconds: float | None


class ErrorBody(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None = None


class JobBody(BaseModel):
    """A job."""

    id: str
    kind: str
    name: str
    state: str
    spec: dict[str, Any]
    progress: ProgressBody
    dataset_id: str | None
    error: ErrorBody | None
    attempt: int
    priority: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    metadata: dict[str, Any]


class JobPage(BaseModel):
    """Jobs, newest first; `after=<id of the last>` gives the next page."""

    data: list[JobBody]
    has_more: bool


class EventBody(BaseModel):
    """Something that happened to a job."""

    id: int
    job_id: str
    type: str
    level: str
    message: str
    data: dict[str, Any]
    created_at: str


class EventPage(BaseModel):
    """Events, oldest first; `after=<id of the last>` gives the next page."""

    data: list[EventBody]
    has_more: bool


class RowProblem(BaseModel):
    """A row that cannot be used."""

    row: int
    reason: str


class RowProblems(BaseModel):
    """How many rows cannot be used, and the first of them."""

    count: int
    first: list[RowProblem]


class UploadBody(BaseModel):
    """An upload that was read, checked and counted."""

    id: str
    name: str
    bytes: int
    rows: int
    sha256: str
    problems: RowProblems
    created_at: str


class ArrivingBody(BaseModel):
    """An upload that comes in parts and is not complete yet. `length` is what its sender announced, `received` what has come."""

    id: str
    name: str
    received: int
    length: int | None
    created_at: str


class TokenizerBody(BaseModel):
    """A tokenizer by the name that specs use. `origin` is `builtin`, `operator` or `upload`; only uploaded ones have an id."""

    id: str | None
    name: str
    origin: str
    digest: str | None
    vocab_size: int | None
    chat_template: bool | None
    bytes: int | None
    created_at: str | None


class TokenizerPage(BaseModel):
    """Tokenizers: on the first page the service's own, then uploaded ones, newest first; `after=<id of the last>` gives the next."""

    data: list[TokenizerBody]
    has_more: bool


class DatasetBody(BaseModel):
    """A dataset."""

    id: str
    job_id: str
    kind: str
    name: str
    fingerprint: str
    manifest_sha256: str
    files: int
    rows: int
    tokens: int
    bytes: int
    created_at: str


class DatasetPage(BaseModel):
    """Datasets, newest first; `after=<id of the last>` gives the next page."""

    data: list[DatasetBody]
    has_more: bool


class EstimateBody(BaseModel, extra="allow"):
    """A spec that could be built, and what would come of it."""

    valid: bool
    kind: str


class PreviewBody(BaseModel):
    """The first rows a spec would give."""

    kind: str
    rows: list[dict[str, Any]]


class RowsBody(BaseModel):
    """Rows of a dataset; `partial` says that fewer came than were asked for because they are long."""

    offset: int
    total: int
    columns: list[str]
    rows: list[dict[str, Any]]
    partial: bool


def when(seconds: float) -> str:
    """A time as RFC 3339 has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def when_known(seconds: float | None) -> str | None:
    """As `when`, where there is a time."""
    return None if seconds is None else when(seconds)


def job_body(job: Job) -> JobBody:
    """A job for the wire."""
    progress = job.progress
    return JobBody(
        id=job.id,
        kind=job.kind,
        name=job.name,
        state=job.state,
        spec=dict(job.spec),
        progress=ProgressBody(
            shards_done=progress.shards_done,
            shards_total=progress.shards_total,
            rows=progress.rows,
            tokens=progress.tokens,
            bytes=progress.bytes,
            eta_seconds=progress.eta_seconds,
        ),
        dataset_id=job.dataset_id,
        error=ErrorBody(**job.error) if job.error is not None else None,
        attempt=job.attempt,
        priority=job.priority,
        created_at=when(job.created_at),
        started_at=when_known(job.started_at),
        finished_at=when_known(job.finished_at),
        metadata=dict(job.metadata),
    )


def event_body(entry: Entry) -> EventBody:
    """An event for the wire."""
    return EventBody(
        id=entry.id,
        job_id=entry.job_id,
        type=entry.type,
        level=entry.level,
        message=entry.message,
        data=dict(entry.data),
        created_at=when(entry.created_at),
    )


def upload_body(entry: UploadEntry) -> UploadBody:
    """An upload for the wire; where its pieces are is nobody's business."""
    record = entry.record
    return UploadBody(
        id=entry.id,
        name=record["name"],
        bytes=record["bytes"],
        rows=record["rows"],
        sha256=record["digest"],
        problems=RowProblems.model_validate(record["problems"]),
        created_at=when(entry.created_at),
    )


def arriving_body(entry: Arrival, received: int) -> ArrivingBody:
    """An upload on its way for the wire."""
    return ArrivingBody(
        id=entry.id, name=entry.name, received=received, length=entry.length, created_at=when(entry.created_at)
    )


def tokenizer_body(entry: TokenizerEntry) -> TokenizerBody:
    """An uploaded tokenizer for the wire."""
    return TokenizerBody(
        id=entry.id,
        name=entry.name,
        origin="upload",
        digest=entry.digest,
        vocab_size=entry.vocab_size,
        chat_template=entry.chat_template,
        bytes=entry.bytes,
        created_at=when(entry.created_at),
    )


def dataset_body(entry: DatasetEntry) -> DatasetBody:
    """A dataset for the wire."""
    return DatasetBody(
        id=entry.id,
        job_id=entry.job_id,
        kind=entry.kind,
        name=entry.name,
        fingerprint=entry.fingerprint,
        manifest_sha256=entry.manifest_sha256,
        files=entry.files,
        rows=entry.rows,
        tokens=entry.tokens,
        bytes=entry.bytes,
        created_at=when(entry.created_at),
    )
