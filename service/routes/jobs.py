"""Jobs: submit, look, list, cancel, delete, and previews of what a job would give."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from packing.dataset.manifest import canonical_json
from packing.spec import CommonSpec
from service import kinds
from service.engine.bounded import run_bounded
from service.engine.inputs import sources_json
from service.engine.line import check_tokens
from service.engine.preview import estimate, plan_ahead, preview_rows
from service.engine.tokenizers import TokenizerRecord
from service.jobs.job import HIGHEST_PRIORITY, LOWEST_PRIORITY, Job, State
from service.jobs.store import Request as JobRequest
from service.problems import BusyError, MalformedError
from service.resolve import resolve_sources, resolve_tokenizer
from service.routes.bodies import EstimateBody, JobBody, JobPage, PreviewBody, job_body
from service.routes.body import known_cursor, known_id, read_object
from service.services import Services, Wired
from service.storage.source_record import SourceRecord

router = APIRouter(prefix="/v1", tags=["jobs"])

KEY_LENGTH = 255
AT_ONCE = 4
"""Previews and estimates that this process makes at once: each builds rows, and all else has to be served beside them."""
WAIT_SECONDS = 5.0
PLACES = threading.BoundedSemaphore(AT_ONCE)
Limit = Annotated[int, Query(ge=1, le=100)]
Priority = Annotated[int, Query(ge=LOWEST_PRIORITY, le=HIGHEST_PRIORITY)]

SPEC_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Spec"}}},
    }
}


@router.post(
    "/jobs",
    status_code=202,
    response_model=JobBody,
    responses={200: {"model": EstimateBody, "description": "validate_only: the spec could be built"}},
    openapi_extra=SPEC_BODY,
)
async def submit_job(
    request: Request,
    services: Wired,
    validate_only: Annotated[bool, Query()] = False,  # noqa: FBT002  # a query parameter
    priority: Priority = 0,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Response:
    """Put a spec into the queue, or with `validate_only` say what would come of it.

    With an Idempotency-Key the same body gives the same job for as long as the job is kept; another body is refused.
    Of jobs that wait the highest `priority` is built first, and of equals the oldest; it is no part of what is built.
    """
    value = await read_object(request, services.settings.limits.body_bytes)
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= KEY_LENGTH:
        message = f"an Idempotency-Key has 1 to {KEY_LENGTH} characters"
        raise MalformedError(message, param="Idempotency-Key")
    if validate_only:
        return JSONResponse(await run_in_threadpool(_estimate, services, value))
    return await run_in_threadpool(_submit, services, value, idempotency_key, priority)


def _spec(value: dict[str, Any]) -> CommonSpec:
    """What a request's object asks for; raises SpecError naming every offending field."""
    spec = kinds.spec_of(value)
    kinds.refuse_paths(spec)
    return spec


def _parts(services: Services, spec: CommonSpec) -> tuple[CommonSpec, Mapping[str, SourceRecord], TokenizerRecord]:
    """The spec with all that it names; raises SpecError naming each source that is not there, or TokenizerError."""
    sources = resolve_sources(spec, services.catalog, services.objects)
    tokenizer = resolve_tokenizer(
        spec.tokenizer,
        owner=services.caller.owner,
        settings=services.settings,
        catalog=services.catalog,
        objects=services.objects,
    )
    return spec, sources, tokenizer


def _bounded(
    services: Services,
    task: str,
    parts: tuple[CommonSpec, Mapping[str, SourceRecord], TokenizerRecord],
    **more: Any,
) -> Any:
    """Do with a tokenizer that somebody uploaded, in a process of its own, what is done here with those of the operator."""
    spec, sources, tokenizer = parts
    payload = {
        "spec": spec.to_json(),
        "sources": sources_json(sources),
        "tokenizer": tokenizer.to_json(),
        "store": services.objects.url,
    }
    return run_bounded(task, payload | more)


@contextmanager
def _place() -> Generator[None]:
    """One of the places for what builds rows in this process; raises BusyError where none becomes free."""
    if not PLACES.acquire(timeout=WAIT_SECONDS):
        message = f"{AT_ONCE} previews and estimates are being made already: try again in a moment"
        raise BusyError(message)
    try:
        yield
    finally:
        PLACES.release()


def _submit(services: Services, value: dict[str, Any], key: str | None, priority: int) -> Response:
    spec = _spec(value)
    body_sha256 = hashlib.sha256(canonical_json(value)).hexdigest()
    if key is not None and (known := services.jobs.made_before(key, body_sha256)) is not None:
        # before anything is looked at: what the job was made from may have gone since
        return _submitted(known, found=True)
    spec, sources, tokenizer = parts = _parts(services, spec)
    if tokenizer.uploaded:
        _bounded(services, "admit", parts)
    else:
        check_tokens(spec, sources, tokenizer)
        plan_ahead(spec=spec, tokenizer=tokenizer, objects=services.objects)
    job, found = services.jobs.submit(
        JobRequest(
            kind=spec.kind,
            name=spec.name,
            spec=value,
            metadata=dict(spec.metadata),
            key=key,
            priority=priority,
            body_sha256=body_sha256,
        )
    )
    return _submitted(job, found=found)


def _submitted(job: Job, *, found: bool) -> Response:
    headers = {"Location": f"/v1/jobs/{job.id}"} | ({"Idempotency-Replayed": "true"} if found else {})
    return JSONResponse(job_body(job).model_dump(), 202, headers=headers)


def _estimate(services: Services, value: dict[str, Any]) -> dict[str, Any]:
    spec, sources, tokenizer = parts = _parts(services, _spec(value))
    if tokenizer.uploaded:
        found = _bounded(services, "estimate", parts)
    else:
        with _place():
            found = estimate(spec=spec, sources=sources, tokenizer=tokenizer, objects=services.objects)
    return {"valid": True, "kind": spec.kind, **found}


@router.post("/previews", response_model=PreviewBody, openapi_extra=SPEC_BODY, tags=["previews"])
async def preview(request: Request, services: Wired, count: Annotated[int, Query(ge=1, le=20)] = 3) -> Response:
    """The first rows a spec would give, at once and without a job."""
    value = await read_object(request, services.settings.limits.body_bytes)
    return JSONResponse(await run_in_threadpool(_preview, services, value, count))


def _preview(services: Services, value: dict[str, Any], count: int) -> dict[str, Any]:
    spec, sources, tokenizer = parts = _parts(services, _spec(value))
    if tokenizer.uploaded:
        rows = _bounded(services, "preview", parts, count=count)
    else:
        with _place():
            rows = preview_rows(spec=spec, sources=sources, tokenizer=tokenizer, objects=services.objects, count=count)
    return {"kind": spec.kind, "rows": rows}


@router.get("/jobs")
def list_jobs(
    services: Wired, state: State | None = None, kind: str | None = None, after: str | None = None, limit: Limit = 20
) -> JobPage:
    """Jobs, newest first."""
    found = services.jobs.list(state=state, kind=kind, after=known_cursor("job", after), limit=limit + 1)
    return JobPage(data=[job_body(job) for job in found[:limit]], has_more=len(found) > limit)


@router.get("/jobs/{job_id}")
def get_job(job_id: str, services: Wired) -> JobBody:
    """One job."""
    return job_body(services.jobs.get(known_id("job", job_id)))


@router.post("/jobs/{job_id}/cancel")
def cancel_job(job_id: str, services: Wired) -> JobBody:
    """Ask for a job's end. A running one is `cancelling` until its runner has stopped, and then never succeeds."""
    job = services.jobs.cancel(known_id("job", job_id))
    if job.state is State.CANCELLED:
        services.objects.delete_prefix(f"work/{job.id}")
    return job_body(job)


@router.delete("/jobs/{job_id}", status_code=204)
def delete_job(job_id: str, services: Wired) -> Response:
    """Forget a job that has ended. Its dataset stays."""
    services.jobs.delete(known_id("job", job_id))
    return Response(status_code=204)
