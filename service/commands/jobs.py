"""`longweave jobs`: the jobs of a service."""

from __future__ import annotations

import argparse

from service.client import Client
from service.commands.remote import given_key, show, url_argument


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `longweave jobs`."""
    states = ["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
    parser.add_argument("--state", choices=states, help="only jobs in this state")
    parser.add_argument("--kind", help="only jobs of this kind")
    parser.add_argument("--limit", type=_limit, default=20, help="how many, newest first (default 20)")
    url_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print them, newest first."""
    with Client(arguments.url, key=given_key()) as client:
        found = client.jobs(state=arguments.state, kind=arguments.kind, limit=arguments.limit)
    lines = [f"{'job':<34} {'state':<10} {'kind':<10} {'shards':>9} {'created':<20} name"]
    for job in found:
        total = job["progress"]["shards_total"]
        shards = "" if total is None else f"{job['progress']['shards_done']}/{total}"
        created = job["created_at"][:19].replace("T", " ")
        lines.append(f"{job['id']:<34} {job['state']:<10} {job['kind']:<10} {shards:>9} {created:<20} {job['name']}")
    show(found, "\n".join(lines) if found else "no jobs", as_json=arguments.json)
    return 0


def _limit(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        message = f"{text!r} is no number of jobs: 1 or more"
        raise argparse.ArgumentTypeError(message)
    return int(text)
