"""`longweave cancel ID`: ask for a job's end."""

from __future__ import annotations

import argparse

from service.client import Client
from service.commands.remote import given_key, show, url_argument


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `longweave cancel`."""
    parser.add_argument("id", help="the job")
    url_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Say what state it is in now."""
    with Client(arguments.url, key=given_key()) as client:
        job = client.cancel(arguments.id)
    show(job, f"{job['id']} {job['state']}", as_json=arguments.json)
    return 0
