"""Is it alive, is it ready, how much waits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Literal

from anyio import CapacityLimiter, move_on_after, to_thread
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from service.metrics import MEDIA_TYPE, DatabaseCollector, exposition
from service.services import Services, Wired

router = APIRouter(tags=["health"])

PROBE_SECONDS = 2.0
PROBES = CapacityLimiter(4)

log = logging.getLogger("longweave.api")


@router.get("/healthz", response_model=dict[str, str])
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


class ReadyBody(BaseModel):
    """Whether the service does its work, what of it is there, and a sentence for each thing that is not."""

    status: Literal["ready", "degraded", "unavailable"]
    database: bool
    objects: bool
    runners: int
    reasons: list[str]


@router.get(
    "/readyz",
    response_model=ReadyBody,
    responses={503: {"model": ReadyBody, "description": "no database, or no objects"}},
)
async def readyz(services: Wired) -> Response:
    """`ready`; or `degraded`: everything is served but no runner builds; or 503 `unavailable`: requests would fail.

    A database or store that does not answer within two seconds is one that is not there.
    """
    runners = await _within(partial(_runners, services))
    objects = await _within(partial(_objects, services)) is not None
    reasons = [
        sentence
        for sentence, holds in (
            ("the database does not answer: nothing can be served", runners is None),
            ("the object store does not answer: no uploads, no files, no new jobs", not objects),
            ("no runner is heard of: jobs are taken and wait, reads are served", runners == 0),
        )
        if holds
    ]
    dead = runners is None or not objects
    status = "unavailable" if dead else "degraded" if reasons else "ready"
    body = ReadyBody(
        status=status, database=runners is not None, objects=objects, runners=runners or 0, reasons=reasons
    )
    return JSONResponse(body.model_dump(), 503 if dead else 200)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(services: Wired) -> Response:
    """Jobs, waits, runners, datasets and requests, in Prometheus' text form."""
    database = DatabaseCollector(services.jobs, services.leases, services.catalog)
    return Response(exposition(services.meter, database), media_type=MEDIA_TYPE)


async def _within(probe: Callable[[], int | None]) -> int | None:
    """What a probe finds; None where that takes too long. A probe that hangs keeps one of a few threads of its own."""
    with move_on_after(PROBE_SECONDS):
        return await to_thread.run_sync(probe, abandon_on_cancel=True, limiter=PROBES)
    return None


def _runners(services: Services) -> int | None:
    """How many runners are heard of; None where the database does not answer."""
    try:
        return services.leases.alive()
    except SQLAlchemyError as error:
        log.warning("not ready, database error=%s", type(error).__name__)
        return None


def _objects(services: Services) -> int | None:
    """None where the store does not answer."""
    try:
        services.objects.size("readyz")
    except Exception as error:  # whatever it is, the store does not answer
        log.warning("not ready, object store error=%s", type(error).__name__)
        return None
    folder = services.objects.folder
    return 1 if folder is None or folder.is_dir() else None
