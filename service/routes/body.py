"""Reading request bodies: counted as they come, and JSON only."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any, NoReturn

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.problems import MalformedError, MediaTypeError, NotFoundError, TooLargeError

DRAINED = 16 * 1024 * 1024
"""Bytes read and thrown away after a body has turned out too large, so that the client gets to read why."""

JSON_TYPES = re.compile(r"application/(json|[\w.+-]+\+json)\s*(;.*)?", re.IGNORECASE)

NUL = re.compile(r"(?<!\\)(\\\\)*\\u0000")


async def chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body in chunks; raises TooLargeError once there are more than `limit` bytes, whatever Content-Length said."""
    announced = request.headers.get("content-length", "")
    total = drained = 0
    too_large = announced.isdecimal() and int(announced) > limit
    try:
        async for chunk in request.stream():
            total += len(chunk)
            too_large = too_large or total > limit
            if not too_large:
                yield chunk
                continue
            drained += len(chunk)
            if drained > DRAINED:
                break
    except ClientDisconnect as error:
        message = "the client went away in the middle of the body"
        raise MalformedError(message) from error
    if too_large:
        message = f"the body has more than {limit} bytes, which is the most this address takes"
        raise TooLargeError(message)


def counted_request(request: Request, limit: int) -> Request:
    """The same request with a body that is counted as it is read: for forms. It raises as `chunks` does."""
    counted = chunks(request, limit)

    async def receive() -> Message:
        chunk = await anext(counted, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    return Request(request.scope, receive)


async def read_object(request: Request, limit: int) -> dict[str, Any]:
    """The body as a JSON object; raises MediaTypeError, TooLargeError or MalformedError."""
    if JSON_TYPES.fullmatch(request.headers.get("content-type", "")) is None:
        message = "send the spec as JSON, with the header Content-Type: application/json"
        raise MediaTypeError(message, param="Content-Type")
    data = b"".join([chunk async for chunk in chunks(request, limit)])
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_unique)
        # Half a surrogate pair is no text, and NUL none that PostgreSQL could store.
        text = json.dumps(value, ensure_ascii=False)
        text.encode("utf-8")
        if NUL.search(text):
            _refuse("the character U+0000")
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8 (byte {error.start})"
        raise MalformedError(message, param="") from None
    except json.JSONDecodeError as error:
        message = f"the body is not JSON: {error.msg}, line {error.lineno} column {error.colno}"
        raise MalformedError(message, param="") from None
    except (ValueError, RecursionError) as error:
        message = f"the body is not JSON that can be used ({error})"
        raise MalformedError(message, param="") from None
    if not isinstance(value, dict):
        message = "a spec is one JSON object"
        raise MalformedError(message, param="")
    return value


def known_id(prefix: str, value: str) -> str:
    """An id as it is; raises NotFoundError for one that was never given out."""
    if re.fullmatch(rf"{prefix}_[0-9a-f]{{1,58}}", value) is None:
        message = f"there is no {NAMES[prefix]} of this id"
        raise NotFoundError(message, param="id")
    return value


def known_cursor(prefix: str, value: str | None) -> str | None:
    """The cursor `after` of a list; raises MalformedError for what no page ended with."""
    if value is not None and re.fullmatch(rf"{prefix}_[0-9a-f]{{1,58}}", value) is None:
        message = f"after is the id of a {NAMES[prefix]}: the last one of the page before"
        raise MalformedError(message, param="/after")
    return value


NAMES = {"job": "job", "ds": "dataset", "up": "upload", "tok": "tokenizer"}


def _refuse(name: str) -> NoReturn:
    message = f"{name} has no place in it"
    raise ValueError(message)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        message = f"the field {twice!r} stands there twice"
        raise ValueError(message)
    return found
