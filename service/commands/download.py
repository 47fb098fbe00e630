"""`longweave download ID DIR`: fetch a dataset, checked against its manifest; started again, it goes on where it stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

from packing.dataset.errors import DatasetError
from service.client import Client
from service.commands.remote import fetch, given_key, show, url_argument


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `longweave download`."""
    parser.add_argument("id", help="the dataset, or the job that made it")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where it goes")
    url_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Fetch what is not there yet."""
    with Client(arguments.url, key=given_key()) as client:
        dataset_id: str = arguments.id
        if dataset_id.startswith("job_"):
            job = client.job(dataset_id)
            if job["dataset_id"] is None:
                message = f"{job['id']} is {job['state']}: it has no dataset"
                raise DatasetError(message, param="id")
            dataset_id = job["dataset_id"]
        found = fetch(client, dataset_id, arguments.folder, quiet=arguments.json)
    lines = f"{found['folder']}: {found['rows']:,} rows, {found['tokens']:,} tokens"
    show(found, lines, as_json=arguments.json)
    return 0
