"""Byte ranges and conditions of RFC 9110, as far as files that never change need them. Pure."""

from __future__ import annotations

import re

from service.problems import RangeError

_SINGLE = re.compile(r"\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII)
MAX_DIGITS = 19


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes a Range header asks for, as start and end (not included); None means the whole file.

    Unknown units, malformed ranges and lists of several ranges are ignored, as the RFC allows. Raises RangeError for
    a range that holds no byte of the file.
    """
    unit, found, ranges = (header or "").partition("=")
    if not found or unit.strip().lower() != "bytes":
        return None
    match = _SINGLE.fullmatch(ranges)
    if match is None or match.group(1) == match.group(2) == "" or max(map(len, match.groups())) > MAX_DIGITS:
        return None
    first, last = match.groups()
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), size if last == "" else min(size, int(last) + 1)
        if last != "" and int(last) < start:
            return None
    if start >= size or start >= end:
        raise RangeError(size)
    return start, end


def matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names the strong `etag` (weak comparison, as the RFC wants for it)."""
    if header is None:
        return False
    if header.strip() == "*":
        return True
    return etag in {tag.strip().removeprefix("W/") for tag in header.split(",")}
