"""`longweave api`: the API alone; runners work on its jobs from processes of their own."""

from __future__ import annotations

import argparse

from service.commands.serve import arguments, serve_from

__all__ = ["arguments", "run"]


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    return serve_from(arguments, with_runner=False)
