"""What is done with every request: it gets an id, a line in the log and a place in the metrics, and always an answer."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.edges import harden, unexpected
from service.logs import REQUEST
from service.metrics import RequestMeter
from service.services import CALLER

HEADER = "X-Request-ID"
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: they are logged only where they fail."""

_FORM = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = logging.getLogger("longweave.api")


class Requests:
    """ASGI middleware, the outermost. An id that a client or proxy sends in X-Request-ID is kept if it is a plain word."""

    def __init__(self, app: ASGIApp, *, meter: RequestMeter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; an unexpected error is a problem where nothing was sent yet, else the connection is cut."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = _given(Headers(scope=scope)) or secrets.token_hex(8)
        answer = _Answer()

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.begin(message["status"])
                MutableHeaders(scope=message)[HEADER] = name
            await send(message)

        token = REQUEST.set(name)
        try:
            await self._app(scope, receive, send_named)
        except Exception as error:
            log.exception("unexpected error=%s", type(error).__name__)
            if answer.status:
                raise
            await unexpected(error)(scope, receive, harden(send_named))
        finally:
            self._note(scope, answer)
            REQUEST.reset(token)

    def _note(self, scope: Scope, answer: _Answer) -> None:
        route = getattr(scope.get("route"), "path", None)
        self._meter.answered(scope["method"], route, answer.status, answer.seconds)
        level = logging.DEBUG if route in QUIET and answer.status < 400 else logging.INFO
        log.log(
            level,
            "method=%s route=%s status=%d seconds=%.3f key=%s",
            scope["method"] if scope["method"].isalpha() else "other",
            route or "none",
            answer.status,
            round(time.monotonic() - answer.arrived, 3),
            getattr(scope.get(CALLER), "key_id", "") or "none",
        )


class _Answer:
    """When a request arrived, and when and how its answer began; the status is 0 until then."""

    def __init__(self) -> None:
        self.arrived = time.monotonic()
        self.status = 0
        self._began: float | None = None

    def begin(self, status: int) -> None:
        """The head of the answer is sent."""
        self.status, self._began = status, time.monotonic()

    @property
    def seconds(self) -> float:
        """From the request to the head of its answer, or until now."""
        return (self._began or time.monotonic()) - self.arrived


def _given(headers: Headers) -> str | None:
    """The client's own id, if it sent one that can stand in a log."""
    found = headers.getlist(HEADER)
    return found[0] if len(found) == 1 and _FORM.fullmatch(found[0]) else None
