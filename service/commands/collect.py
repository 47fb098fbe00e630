"""`longweave collect`: what killed jobs and uploads left in the store and on this machine, shown or removed."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict

from service.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `longweave collect`."""
    parser.add_argument("--delete", action="store_true", help="remove what is found; without it nothing is touched")
    parser.add_argument(
        "--older-than", type=_hours, default=24.0, metavar="HOURS", help="how long it must have been left alone (24)"
    )
    parser.add_argument("--data-dir", help="where the database and the objects are (LONGWEAVE_DATA_DIR)")


def _hours(text: str) -> float:
    hours = float(text)
    if not hours >= 1:
        message = "at least 1 hour: what is younger may be at work"
        raise argparse.ArgumentTypeError(message)
    return hours


def run(options: argparse.Namespace) -> int:
    """Find what is left over, and remove it where that is asked for."""
    # Imported here so that `--help` is quick.
    from service.jobs.database import open_database
    from service.jobs.leases import LeaseStore
    from service.storage.collect import Scope, collect
    from service.storage.objects import Objects

    settings = Settings.from_environment(os.environ, data_dir=options.data_dir)
    settings.prepare()
    engine = open_database(settings.database_url)
    store = LeaseStore(engine, lease_seconds=settings.lease_seconds, attempts=settings.attempts)
    try:
        found = collect(
            store,
            Objects.open(settings.objects_url),
            settings.incoming,
            scope=Scope.ALL,
            delete=options.delete,
            age=options.older_than * 3600,
        )
    finally:
        engine.dispose()
    total = sum(item.bytes for item in found)
    if options.json:
        print(json.dumps({"deleted": options.delete, "bytes": total, "found": [asdict(item) for item in found]}))
        return 0
    for item in found:
        print(f"{item.bytes:>15,}  {item.path}  ({item.why})")
    done = "removed" if options.delete else "would go; --delete removes them"
    print(f"{len(found)} leftovers, {total:,} bytes: {done}" if found else "nothing is left over")
    return 0
