"""The door of the API: no request reaches a route before it is known who calls and whether the key allows it.

Closed by default: every address that is not in OPEN needs a key, also one that no route has.
"""

from __future__ import annotations

import logging

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service import access
from service.access import HOUSE, STRANGER, Caller
from service.edges import respond
from service.jobs.keys import KeyStore
from service.problems import KeyNeededError, ScopeError, ServiceError, UnavailableError
from service.services import CALLER

OPEN = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz"})
"""They tell nothing of anybody's: what the API is, and whether it lives."""

FOR_ADMINS = frozenset({"/metrics"})
"""They count over all owners."""

log = logging.getLogger("longweave.api")


class Door:
    """ASGI middleware: finds out who calls and writes it into the scope, or refuses.

    Without any key in the database everybody who gets here is the house, unless `keys_only` (the service listens where
    other machines reach it).
    """

    def __init__(self, app: ASGIApp, *, keys: KeyStore, keys_only: bool) -> None:
        self._app = app
        self._keys = keys
        self._keys_only = keys_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its caller, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error: ServiceError
        try:
            scope[CALLER] = await self._caller(scope["path"], scope["method"], Headers(scope=scope))
        except ServiceError as refusal:
            error = refusal
        except SQLAlchemyError as cause:
            log.warning("database not reached error=%s", type(cause).__name__)
            error = UnavailableError("the database cannot be reached just now")
        else:
            await self._app(scope, receive, send)
            return
        await respond(error)(scope, receive, send)

    async def _caller(self, path: str, method: str, headers: Headers) -> Caller:
        if path in OPEN:
            return STRANGER
        caller = await run_in_threadpool(self._known, headers.getlist("authorization"))
        scope = access.Scope.ADMIN if path in FOR_ADMINS else access.needed(method)
        if not caller.may(scope):
            raise ScopeError(scope)
        return caller

    def _known(self, authorization: list[str]) -> Caller:
        """Who sends this header; raises KeyNeededError in the same words for every key that does not open."""
        if not self._keys_only and not self._keys.any():
            return HOUSE
        if not authorization:
            message = (
                "this service needs a key: Authorization: Bearer lw_…; the command line takes it from LONGWEAVE_KEY"
            )
            raise KeyNeededError(message, param="Authorization")
        caller = None
        scheme, _, key = authorization[0].partition(" ")
        if len(authorization) == 1 and scheme.lower() == "bearer":
            try:
                caller = self._keys.caller(access.read_key(key.strip()))
            except access.KeyFormError:
                caller = None
        if caller is None:
            message = "the key is not known here: it is wrong, or was revoked"
            raise KeyNeededError(message, param="Authorization")
        return caller
