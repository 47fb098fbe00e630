"""Is it alive, is it ready, how much waits."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy.exc import SQLAlchemyError

from service.services import Services, Wired

router = APIRouter(tags=["health"])


@router.get("/healthz", response_model=dict[str, str])
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz", response_model=dict[str, Any], responses={503: {"description": "no database or no objects"}})
def readyz(services: Wired) -> Response:
    """`ready`; or `degraded`: jobs are taken but no runner works on them; or 503 `unavailable`."""
    database, runners = _database(services)
    objects = _objects(services)
    status = "unavailable" if not (database and objects) else "ready" if runners else "degraded"
    body = {"status": status, "database": database, "objects": objects, "runners": runners}
    return JSONResponse(body, 503 if status == "unavailable" else 200)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(services: Wired) -> Response:
    """Gauges in Prometheus' text form."""
    lines: list[str] = []

    def gauge(name: str, meaning: str, samples: dict[str, float]) -> None:
        lines.extend((f"# HELP longweave_{name} {meaning}", f"# TYPE longweave_{name} gauge"))
        lines.extend(f"longweave_{name}{labels} {value:g}" for labels, value in samples.items())

    gauge("jobs", "Jobs by state.", {f'{{state="{s}"}}': n for s, n in services.jobs.counts().items()})
    gauge("queue_wait_seconds", "How long the oldest queued job has waited.", {"": services.jobs.longest_wait()})
    gauge("runners", "Runners heard of lately.", {"": services.leases.alive()})
    for name, count in services.catalog.counts().items():
        gauge(name, f"How many {name} there are.", {"": count})
    return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8")


def _database(services: Services) -> tuple[bool, int]:
    try:
        return True, services.leases.alive()
    except SQLAlchemyError:
        return False, 0


def _objects(services: Services) -> bool:
    try:
        services.objects.size("readyz")
    except Exception:  # whatever it is, the store does not answer
        return False
    folder = services.objects.folder
    return folder is None or folder.is_dir()
