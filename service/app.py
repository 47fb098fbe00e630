"""The API, wired: routes, the guard at the door, errors as problems, and the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig

from service.door import FOR_ADMINS, OPEN, Door
from service.edges import Guard, install_error_handlers
from service.kinds import KINDS
from service.problems import MEDIA_TYPE
from service.requests import Requests
from service.routes import datasets, events, files, health, jobs, pages, scores, tokenizers, uploads
from service.services import Services
from service.settings import Settings
from service.uploads import clear_landing

ROUTERS = (
    jobs.router,
    events.router,
    uploads.router,
    tokenizers.router,
    datasets.router,
    scores.router,
    files.router,
    health.router,
    pages.router,
)
PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "errors"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "param": {"type": "string"},
        "request_id": {"type": "string", "description": "X-Request-ID of the answer; the service's log has it too"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "message"],
                "properties": {"pointer": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}


SECURITY = {"key": {"type": "http", "scheme": "bearer", "description": "an API key, `lw_<id>_<secret>`"}}

TELEMETRY: TelemetryConfig = {
    "auto_configure": True,  # sends nothing before the operator sets OTEL_EXPORTER_OTLP_ENDPOINT
    "logs": False,  # they would hold the messages of exceptions, and those parts of requests
}


def create_app(
    settings: Settings,
    services: Services | None = None,
    *,
    keys_only: bool = False,
    telemetry: TelemetryConfig | None = None,
) -> FastAPI:
    """The API on these settings; with `keys_only` it is closed to everybody while there are no keys.

    `telemetry` overrides single settings of OpenTelemetry, such as its providers.

    Raises LongweaveError where the database or the object store cannot be used.
    """
    wired = services or Services.open(settings)
    clear_landing(settings.incoming)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        yield
        wired.stopping.set()
        wired.close()

    app = FastAPI(
        title="Longweave",
        version=_version(),
        description="Builds the data that teaches language models to use long context.",
        docs_url=None,  # FastAPI's own page loads its parts from a CDN
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry={**TELEMETRY, **(telemetry or {})},
    )
    app.state.services = wired
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Door, keys=wired.keys, keys_only=keys_only)
    app.add_middleware(Guard, hosts=settings.hosts)
    app.add_middleware(Requests, meter=wired.meter)
    install_error_handlers(app, _allowed(ROUTERS))
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _allowed(routers: tuple[APIRouter, ...]) -> list[tuple[re.Pattern[str], frozenset[str]]]:
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    return [
        (re.compile(r"/openapi\.json$"), frozenset({"GET", "HEAD"})),
        *((route.path_regex, frozenset(route.methods or ())) for route in routes),
    ]


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the spec of every kind and the problem as components."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
        names: dict[str, str] = {}
        for kind, module in KINDS.items():
            schema = module.Spec.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            names[kind] = f"{kind.title().replace('_', '')}Spec"
            schemas[names[kind]] = schema
        references = [{"$ref": f"#/components/schemas/{name}"} for name in names.values()]
        schemas["Spec"] = {"oneOf": references}
        schemas["Problem"] = PROBLEM
        document["components"]["securitySchemes"] = SECURITY
        _describe_errors(document)
        app.openapi_schema = document
    return app.openapi_schema


def _describe_errors(document: dict[str, Any]) -> None:
    problem = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path not in OPEN:
                # The second alternative is a service without keys; what only admins see needs the scope said in words.
                operation["security"] = [{"key": []}, {}]
                operation["description"] += " Needs the scope admin." if path in FOR_ADMINS else ""
            operation["responses"]["default"] = {"description": "a problem (RFC 9457)", **problem}
            # FastAPI's own idea of a 422 body is not what is sent.
            operation["responses"].pop("422", None)
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)


def _version() -> str:
    try:
        return version("longweave")
    except PackageNotFoundError:
        return "0"
