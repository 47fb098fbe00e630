"""What the commands that talk to a service share: where it is, and how a job or a transfer is shown while it goes on.

Bars where stderr is a terminal, plain lines where it is none, and nothing but the result with --json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.client import DEFAULT_URL, Client

LINE_SECONDS = 2.0


def url_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --url."""
    default = os.environ.get("LONGWEAVE_URL") or DEFAULT_URL
    parser.add_argument("--url", default=default, help=f"the service (LONGWEAVE_URL; default {DEFAULT_URL})")


def given_key() -> str | None:
    """The API key to send: LONGWEAVE_KEY. No option takes one, for other users of a machine see command lines."""
    return os.environ.get("LONGWEAVE_KEY") or None


def show(value: Any, lines: str, *, as_json: bool) -> None:
    """Print a result: JSON for programs, lines for people."""
    print(json.dumps(value) if as_json else lines)


def follow(client: Client, job_id: str, *, quiet: bool) -> dict[str, Any]:
    """Show a job's progress until it has ended, and return it."""
    with _job_display(quiet=quiet) as display:
        for event in client.events(job_id):
            display(event)
    return client.job(job_id)


def outcome(job: Mapping[str, Any], *, as_json: bool) -> int:
    """Say how a job has ended; the exit code is 0 for one that succeeded."""
    if as_json:
        print(json.dumps(job))
    elif job["state"] == "succeeded":
        done = job["progress"]
        print(f"{job['id']} succeeded: dataset {job['dataset_id']}, {done['rows']:,} rows, {done['tokens']:,} tokens")
    if job["state"] == "succeeded":
        return 0
    error = job["error"]
    why = f": {' '.join(error['message'].split())}" if error else ""
    print(f"error: {job['id']} {job['state']}{why}", file=sys.stderr)
    return 1


def fetch(client: Client, dataset_id: str, folder: Path, *, quiet: bool) -> dict[str, Any]:
    """Download a dataset with a bar, and return what there is to say about it."""
    with transfer(f"downloading {dataset_id}", None, quiet=quiet) as (plan, report):
        manifest = client.download(dataset_id, folder, plan=plan, report=report)
    counts = manifest.counts
    return {"dataset_id": dataset_id, "folder": str(folder), "rows": counts["rows"], "tokens": counts["tokens"]}


@contextmanager
def transfer(title: str, total: int | None, *, quiet: bool) -> Generator[tuple[Any, Any]]:
    """Show bytes as they pass: gives a function for how many there are to be, and one for how many more have passed."""
    if quiet or not sys.stderr.isatty():

        def tell(count: int) -> None:
            if not quiet:
                print(f"{title}, {count:,} bytes", file=sys.stderr, flush=True)

        if total is not None:
            tell(total)
        yield tell, (lambda _count: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title.partition(" ")[0], total=total)  # names are long and terminals are not
        yield (lambda count: bar.update(task, total=count)), (lambda count: bar.update(task, advance=count))


@contextmanager
def _job_display(*, quiet: bool) -> Generator[Any]:
    if quiet:
        yield lambda _event: None
    elif sys.stderr.isatty():
        yield from _bar()
    else:
        yield _Lines()


def _bar() -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("queued", total=None)

        def display(event: Mapping[str, Any]) -> None:
            data = event["data"]
            if event["type"] == "progress":
                text = f"{data['rows']:,} rows, {data['tokens']:,} tokens"
                bar.update(task, completed=data["shards_done"], total=data["shards_total"], description=text)
            else:
                bar.update(task, description=event["message"])
                if event["level"] != "info":
                    bar.console.print(event["message"], markup=False)

        yield display


class _Lines:
    """A line for every change of state, and one for progress every two seconds."""

    def __init__(self) -> None:
        self._shown_at = 0.0

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["type"] == "progress":
            if time.monotonic() - self._shown_at < LINE_SECONDS:
                return
            self._shown_at = time.monotonic()
        print(f"{event['job_id']} {event['message']}", file=sys.stderr, flush=True)
