"""The edge of the API: who may call at all, and how every error leaves.

A service without keys on loopback is open to web pages (DNS rebinding, posts across sites), so Host and Origin are
checked on every method before anything else happens.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from packing.dataset.errors import FieldProblem, LongweaveError
from service.problems import (
    MEDIA_TYPE,
    ForeignHostError,
    ForeignOriginError,
    InsufficientStorageError,
    MalformedError,
    ServiceError,
    UnavailableError,
    problem,
    problem_of,
    status_of,
)
from service.storage.objects import StoreAwayError
from service.storage.space import out_of_space

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
CODES = {400: "malformed_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}

log = logging.getLogger("longweave.api")


class Guard:
    """ASGI middleware: refuses foreign Hosts and Origins, and forbids browsers to guess types."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str]) -> None:
        self._app = app
        self._names = LOOPBACK | hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        send_guarded = harden(send)
        error = self._refusal(Headers(scope=scope))
        if error is not None:
            await respond(error)(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)

    def _refusal(self, headers: Headers) -> ServiceError | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _name_of(f"//{hosts[0]}") not in self._names:
            return ForeignHostError("this service does not answer to that Host name", param="Host")
        for origin in headers.getlist("origin"):
            if not origin.startswith(("http://", "https://")) or _name_of(origin) not in self._names:
                return ForeignOriginError("web pages of other origins may not use this service", param="Origin")
        return None


def harden(send: Send) -> Send:
    """The same, with the headers that every answer has."""

    async def send_hardened(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("Referrer-Policy", "no-referrer")
        await send(message)

    return send_hardened


def unexpected(error: Exception) -> Response:
    """The response for an error that nobody thought of: it tells nothing."""
    if full := _on_full(error):
        return full
    return _problem_response(500, "internal_error", "an unexpected error; the service's log has more")


def _name_of(url: str) -> str | None:
    """The host name of an origin or `//host:port`, in lower case; None where there is anything else in it."""
    try:
        parts = urlsplit(url)
        port_is_sound = parts.port is None or parts.port > 0
    except ValueError:
        return None
    plain = port_is_sound and "@" not in parts.netloc and not (parts.path or parts.query or parts.fragment)
    return parts.hostname if plain else None


def respond(error: LongweaveError) -> Response:
    """The response for an error of the house."""
    headers = error.headers if isinstance(error, ServiceError) else None
    return JSONResponse(problem_of(error), status_of(error), headers=headers, media_type=MEDIA_TYPE)


def _on_data(_request: Request, _error: Exception) -> Response:
    return respond(MalformedError("a text in the request holds a character that no database keeps, such as NUL"))


def _on_full(error: Exception) -> Response | None:
    """The answer where the error is a full disk, in whatever words."""
    if not out_of_space(error):
        return None
    log.error("no space left error=%s", type(error).__name__)
    return respond(InsufficientStorageError("there is no space left for this: try again once some has been freed"))


def _on_objects(_request: Request, error: Exception) -> Response:
    if full := _on_full(error):
        return full
    log.error("object store error=%s", type(error).__name__)
    return respond(UnavailableError("the object store cannot be reached just now"))


def _on_database(_request: Request, error: Exception) -> Response:
    if full := _on_full(error):
        return full
    log.error("database error=%s", type(error).__name__)
    return respond(UnavailableError("the database cannot be reached just now"))


def install_error_handlers(app: FastAPI, allowed: Sequence[tuple[re.Pattern[str], frozenset[str]]]) -> None:
    """Give every error that is foreseen the form of a problem; service.requests does it for the others.

    `allowed` has the methods of each path, for 405's Allow.
    """

    def on_house(_request: Request, error: Exception) -> Response:
        assert isinstance(error, LongweaveError)
        if status_of(error) >= 500:
            log.error("request failed code=%s %s", error.code, error.message)
        return respond(error)

    def on_validation(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = [
            FieldProblem(pointer="/" + "/".join(str(step) for step in item["loc"][1:]), message=str(item["msg"]))
            for item in error.errors()
        ]
        detail = "; ".join(f"{f.pointer}: {f.message}" for f in found)
        return _problem_response(422, "invalid_request", detail, errors=found)

    def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        detail = str(error.detail)
        if error.status_code == 405:
            methods = sorted(set[str]().union(*(m for path, m in allowed if path.match(request.url.path))))
            headers["Allow"] = ", ".join(methods) or headers.get("Allow", "")
            detail = f"{request.method} is not for this address; it takes {headers['Allow']}"
        elif error.status_code == 404:
            detail = "there is nothing at this address"
        return _problem_response(error.status_code, CODES.get(error.status_code, "error"), detail, headers=headers)

    app.add_exception_handler(LongweaveError, on_house)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(DataError, _on_data)
    app.add_exception_handler(SQLAlchemyError, _on_database)
    app.add_exception_handler(StoreAwayError, _on_objects)


def _problem_response(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = problem(status, code, detail, errors=errors)
    return JSONResponse(body, status, headers=headers, media_type=MEDIA_TYPE)
