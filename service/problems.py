"""Errors of the service, each with its HTTP status, and their form on the wire: problem+json (RFC 9457).

LongweaveError
├── (SpecError 422, InputError 422, DatasetError 500: see packing.dataset.errors)
└── ServiceError               has `status`
    ├── MalformedError         422  a body, header or parameter that cannot be read
    │   └── DigestError             bytes that are not those of the digest sent with them
    ├── KeyNeededError         401  no key, or one that is unknown, wrong or revoked
    ├── ScopeError             403  a key that does not allow this
    ├── NotFoundError          404  unknown, deleted or malformed ids, and what belongs to others
    ├── ConflictError          409  not in this state
    │   └── QuotaError              an owner has as many of it as there may be
    ├── TooLargeError          413
    ├── MediaTypeError         415
    ├── RangeError             416  carries the size for Content-Range
    ├── ForeignHostError       421  a Host that is not ours
    ├── ForeignOriginError     403  a web page of somewhere else
    ├── QueueFullError         429
    ├── BusyError              429
    ├── UnavailableError       503  a part of the service cannot be reached
    └── InsufficientStorageError  507  a disk, a quota or the database is full
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from packing.dataset.errors import FieldProblem, InputError, LongweaveError, SpecError
from service.logs import REQUEST

MEDIA_TYPE = "application/problem+json"


class ServiceError(LongweaveError):
    """A request that cannot be served."""

    code = "service_error"
    status = 500
    headers: Mapping[str, str] = {}


class MalformedError(ServiceError):
    """A body, header or parameter that cannot be read."""

    code = "malformed_request"
    status = 422


class IdempotencyError(MalformedError):
    """An Idempotency-Key that was used before, for something else."""

    code = "idempotency_key_reused"


class KeyNeededError(ServiceError):
    """No key, or one that is unknown, wrong or revoked: which of them is not said."""

    code = "key_needed"
    status = 401
    headers = {"WWW-Authenticate": 'Bearer realm="longweave"'}  # noqa: RUF012


class ScopeError(ServiceError):
    """The key does not allow this."""

    code = "missing_scope"
    status = 403

    def __init__(self, scope: str) -> None:
        super().__init__(f"this needs a key with the scope {scope}", param="Authorization")
        self.headers = {"WWW-Authenticate": f'Bearer realm="longweave", error="insufficient_scope", scope="{scope}"'}


class NotFoundError(ServiceError):
    """There is no such thing, or no longer."""

    code = "not_found"
    status = 404


class ConflictError(ServiceError):
    """The thing is in no state for this."""

    code = "conflict"
    status = 409


class QuotaError(ConflictError):
    """An owner has as many of it as there may be."""

    code = "quota"


class DigestError(MalformedError):
    """Bytes that are not those of the digest sent with them: they were damaged on the way."""

    code = "digest_mismatch"


class TooLargeError(ServiceError):
    """A body over the limit."""

    code = "too_large"
    status = 413


class MediaTypeError(ServiceError):
    """A body of a kind that is not read here."""

    code = "unsupported_media_type"
    status = 415


class RangeError(ServiceError):
    """A range that begins behind the end of the file."""

    code = "range_not_satisfiable"
    status = 416

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes; the range asked for holds none of them", param="Range")
        self.headers = {"Content-Range": f"bytes */{size}"}


class ForeignHostError(ServiceError):
    """A Host that is not ours: DNS rebinding, or a proxy whose name the operator has not allowed."""

    code = "foreign_host"
    status = 421


class ForeignOriginError(ServiceError):
    """A request made by a web page of somewhere else."""

    code = "foreign_origin"
    status = 403


class QueueFullError(ServiceError):
    """Too many jobs wait already."""

    code = "queue_full"
    status = 429
    headers = {"Retry-After": "30"}  # noqa: RUF012


class BusyError(ServiceError):
    """As much of this kind of work as there may be is under way."""

    code = "busy"
    status = 429
    headers = {"Retry-After": "5"}  # noqa: RUF012


class UnavailableError(ServiceError):
    """A part of the service cannot be reached just now."""

    code = "unavailable"
    status = 503
    headers = {"Retry-After": "5"}  # noqa: RUF012


class InsufficientStorageError(ServiceError):
    """A disk, a quota or the database is full."""

    code = "insufficient_storage"
    status = 507
    headers = {"Retry-After": "60"}  # noqa: RUF012


def status_of(error: LongweaveError) -> int:
    """The HTTP status of any error of the house."""
    if isinstance(error, ServiceError):
        return error.status
    return 422 if isinstance(error, SpecError | InputError) else 500


def fields_of(error: LongweaveError) -> tuple[FieldProblem, ...]:
    """A problem for each offending field of the request."""
    if isinstance(error, SpecError):
        return error.problems
    in_spec = isinstance(error, InputError) and (error.param or "").startswith("/")
    if error.param is not None and (in_spec or isinstance(error, MalformedError)):
        return (FieldProblem(pointer=error.param, message=error.message),)
    return ()


def problem(
    status: int, code: str, detail: str, *, errors: Sequence[FieldProblem] = (), param: str | None = None
) -> dict[str, Any]:
    """The body of an error response."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    if param is not None:
        body["param"] = param
    if (request := REQUEST.get()) is not None:
        body["request_id"] = request
    body["errors"] = [{"pointer": e.pointer, "message": e.message} for e in errors]
    return body


def problem_of(error: LongweaveError) -> dict[str, Any]:
    """The body for an error of the house."""
    return problem(status_of(error), error.code, error.message, errors=fields_of(error), param=error.param)
