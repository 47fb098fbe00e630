"""Log lines: one an event, on stderr, readable or as JSON.

Messages are short and hold `key=%s` pairs; as JSON each pair is a field of its own too, taken from the arguments and not from
the text. No request bodies, no specs, no headers, no query strings, no URLs that may hold a password.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

Form = Literal["text", "json"]

REQUEST: ContextVar[str | None] = ContextVar("longweave_request", default=None)
"""The id of the request that is being answered: it stands in every line written meanwhile."""

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
PLACE = re.compile(r"(?:(\w+)=)?%(?:%|[-#0 +]*\d*(?:\.\d+)?[a-zA-Z])")
"""A place for an argument in a message, with the key before it."""

CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def configure_logs(form: Form = "text", level: int = logging.INFO) -> None:
    """Send Longweave's own log lines, and warnings of libraries, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines(TEXT, datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("longweave").setLevel(level)


class TextLines(logging.Formatter):
    """Lines for people. A message is one line, whatever a name in it holds; a traceback follows it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The line without a traceback."""
        request = REQUEST.get()
        line = super().formatMessage(record) + (f" request={request}" if request else "")
        return CONTROL.sub(lambda found: repr(found.group())[1:-1], line)


class JsonLines(logging.Formatter):
    """Lines for programs: time (RFC 3339), level, logger, message, request, and a field for each `key=%s` of the message."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request := REQUEST.get()) is not None:
            line["request"] = request
        line |= {key: value for key, value in fields_of(record).items() if key not in line}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The arguments of a record's message by the keys that stand before their places."""
    given = record.args or ()
    if isinstance(given, Mapping):
        return {}
    arguments = iter(given)
    fields: dict[str, Any] = {}
    for place in PLACE.finditer(str(record.msg)):
        if place.group().endswith("%%"):
            continue
        value = next(arguments, None)
        if place.group(1):
            fields[place.group(1)] = value if isinstance(value, int | float | bool | None) else str(value)
    return fields
