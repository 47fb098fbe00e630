"""Log lines.

Short, one an event, key=value, on stderr. No request bodies, no headers, no URLs that may hold a password.
"""

from __future__ import annotations

import logging
import sys

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def configure_logs(level: int = logging.INFO) -> None:
    """Send Longweave's own log lines, and warnings of libraries, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT, datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("longweave").setLevel(level)
