"""The events of a job.

A page of JSON, or a stream (text/event-stream) that ends with the job and resumes by Last-Event-ID.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from sqlalchemy.exc import SQLAlchemyError

from service.problems import MalformedError, NotFoundError
from service.routes.bodies import EventPage, event_body
from service.routes.body import known_id
from service.services import Services, Wired

router = APIRouter(prefix="/v1", tags=["jobs"])

POLL_SECONDS = 0.3
PING_SECONDS = 15.0
RETRY_MILLISECONDS = 1000
BATCH = 100
LARGEST_ID = 2**63 - 1

log = logging.getLogger("longweave.api")


@router.get(
    "/jobs/{job_id}/events",
    response_model=EventPage,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def job_events(
    job_id: str,
    request: Request,
    services: Wired,
    after: Annotated[int, Query(ge=0, le=LARGEST_ID)] = 0,
    limit: Annotated[int, Query(ge=1, le=BATCH)] = BATCH,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """What happened to a job. Ask for text/event-stream to be told as it happens."""
    job = await run_in_threadpool(services.jobs.get, known_id("job", job_id))
    if "text/event-stream" in request.headers.get("accept", ""):
        seen = max(after, _event_id(last_event_id))
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return EventSourceResponse(_stream(services, job.id, seen), headers=headers)
    found = await run_in_threadpool(services.jobs.events, job.id, after=after, limit=limit + 1)
    page = EventPage(data=[event_body(entry) for entry in found[:limit]], has_more=len(found) > limit)
    return JSONResponse(page.model_dump())


def _event_id(header: str | None) -> int:
    if header is None or header == "":
        return 0
    if not (header.isascii() and header.isdecimal() and int(header) <= LARGEST_ID):
        message = "Last-Event-ID is the id of the last event seen, a number"
        raise MalformedError(message, param="Last-Event-ID")
    return int(header)


async def _stream(services: Services, job_id: str, seen: int) -> AsyncIterator[bytes]:
    """Events after `seen` as they come.

    Ends after the job's last one, or with `bye` when the server stops or its database is away: then ask again.
    """
    yield format_sse_event(retry=RETRY_MILLISECONDS, comment=f"events of {job_id}")
    quiet_since = time.monotonic()
    while not services.stopping.is_set():
        # The job is looked at before its events: what ended it is then among them.
        try:
            if not await run_in_threadpool(services.caller_stands):
                return
            job = await run_in_threadpool(services.jobs.get, job_id)
            found = await run_in_threadpool(services.jobs.events, job_id, after=seen, limit=BATCH)
        except NotFoundError:
            return  # deleted while we were telling
        except SQLAlchemyError as error:
            log.warning("events not read, database error=%s", type(error).__name__)
            yield _bye("the database cannot be reached just now")
            return
        for entry in found:
            seen = entry.id
            yield format_sse_event(data_str=event_body(entry).model_dump_json(), event=entry.type, id=str(entry.id))
        if found:
            quiet_since = time.monotonic()
            continue
        if job.state.ended:
            return
        if time.monotonic() - quiet_since > PING_SECONDS:
            quiet_since = time.monotonic()
            yield KEEPALIVE_COMMENT
        await anyio.sleep(POLL_SECONDS)
    yield _bye("the server stops")


def _bye(why: str) -> bytes:
    """The end of a stream that has more to tell."""
    return format_sse_event(event="bye", data_str=f'"{why}: ask again with Last-Event-ID"')
