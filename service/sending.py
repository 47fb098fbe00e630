"""A file sent to the service in parts: after whatever breaks it goes on where the service says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import httpx2

from service.connection import PASSING, TRIES, Connection, RefusedError, UnreachableError, segment
from service.digests import digest_field

CHUNK = 1024 * 1024
CONFLICT = 409
"""Another request was at work on the upload: one of ours, whose connection the service has not given up yet."""
PART_BYTES = 64 * 1024 * 1024
"""What one request of such an upload holds: proxies bound bodies, and what was answered is safe."""

Report = Callable[[int], None]
"""Told how many more bytes have passed; fewer than none where some have to be sent again."""


def ignore(_count: int) -> None:
    """Nobody wants to know."""


def upload_in_parts(
    wire: Connection, name: str, stream: IO[bytes], *, size: int, sha256: str, report: Report
) -> dict[str, Any]:
    """Upload a file, and return what the service says of it.

    What is under way already, after a broken connection, a restart of the service, or in another process of this command that was
    stopped, goes on where it was. Raises RefusedError, and UnreachableError where nothing goes through for half a minute.
    """
    headers = {"Upload-Complete": "?0", "Upload-Length": str(size), "Repr-Digest": digest_field(sha256)}
    # It can be repeated: the service goes on with the upload of this name and sha256.
    begun = wire.patiently(lambda: wire.call("POST", "/v1/uploads", params={"name": name}, headers=headers).json())
    address = f"/v1/uploads/{segment(begun['id'])}"
    there, furthest, failures = begun, begun["received"], 0
    counted = _Counted(report)
    while True:
        try:
            there = there or wire.call("GET", address).json()
            if "received" not in there:
                counted.reach(size)
                return there
            offset: int = there["received"]
            counted.reach(offset)
            furthest, failures = max(furthest, offset), 0 if offset > furthest else failures
            there = _send_part(wire, address, stream, offset, size=size, report=counted)
        except (httpx2.HTTPError, UnreachableError, RefusedError) as error:
            failures += 1
            there = None
            if failures > TRIES or (isinstance(error, RefusedError) and error.status not in (*PASSING, CONFLICT)):
                raise wire.unreachable(error) if isinstance(error, httpx2.HTTPError) else error from error
            time.sleep(wire.pause * 2**failures)


def _send_part(
    wire: Connection, address: str, stream: IO[bytes], offset: int, *, size: int, report: Report
) -> dict[str, Any]:
    """Send what comes next; returns how far the upload is, or the finished one."""
    end = min(offset + PART_BYTES, size)
    headers = {"Content-Type": "application/partial-upload", "Content-Length": str(end - offset)}
    headers |= {"Upload-Offset": str(offset), "Upload-Complete": "?1" if end == size else "?0"}
    body = stretch(stream, offset, end, report)
    answer = wire.call("PATCH", address, content=body, headers=headers, timeout=None)
    return answer.json() if end == size else {"received": int(answer.headers["Upload-Offset"])}


class _Counted:
    """How much has gone out; what has to be sent again is taken back."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._bytes = 0

    def __call__(self, count: int) -> None:
        self._bytes += count
        self._report(count)

    def reach(self, offset: int) -> None:
        """The service says that so much has come."""
        if offset != self._bytes:
            self(offset - self._bytes)


def stretch(stream: IO[bytes], start: int, end: int, report: Report) -> Iterator[bytes]:
    """Bytes start..end (end not included) of a file, in chunks."""
    stream.seek(start)
    while start < end and (chunk := stream.read(min(CHUNK, end - start))):
        start += len(chunk)
        report(len(chunk))
        yield chunk
