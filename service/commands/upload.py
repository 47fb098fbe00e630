"""`longweave upload FILE`: upload a source file and see what is in it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from packing.dataset.errors import SourceError
from service.client import Client
from service.commands.remote import given_key, show, transfer, url_argument


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `longweave upload`."""
    parser.add_argument("file", type=Path, help="JSONL (plain, .gz, .zst) or Parquet")
    url_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Upload it, and print its id, its rows, and those that cannot be used."""
    path: Path = arguments.file
    if not path.is_file():
        message = f"{path} is no file"
        raise SourceError(message, param=str(path))
    title = f"uploading {path.name}"
    with (
        Client(arguments.url, key=given_key()) as client,
        transfer(title, path.stat().st_size, quiet=arguments.json) as (_, report),
    ):
        found = client.upload(path, report=report)
    show(found, f"{found['id']}: {found['rows']:,} rows, {found['bytes']:,} bytes", as_json=arguments.json)
    problems = found["problems"]
    if problems["count"] and not arguments.json:
        first = problems["first"][0]
        rest = f"{problems['count']:,} rows are no conversation by the usual column names"
        print(f"warning: {rest}; the first is row {first['row']}: {first['reason']}", file=sys.stderr)
    return 0
