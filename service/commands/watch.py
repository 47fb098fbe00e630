"""`longweave watch ID`: follow a job until it has ended."""

from __future__ import annotations

import argparse

from service.client import Client
from service.commands.remote import follow, given_key, outcome, url_argument


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `longweave watch`."""
    parser.add_argument("id", help="the job")
    url_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 when it has succeeded, 1 when it has failed or was cancelled."""
    with Client(arguments.url, key=given_key()) as client:
        return outcome(follow(client, arguments.id, quiet=arguments.json), as_json=arguments.json)
