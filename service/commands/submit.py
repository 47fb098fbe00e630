"""`longweave submit SPEC`: send a spec to a service; its local files are uploaded first."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packing.dataset.errors import FieldProblem, SourceError, SpecError
from service.client import Client, new_key
from service.commands.remote import fetch, follow, given_key, outcome, show, transfer, url_argument
from service.places import place_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `longweave submit`."""
    parser.add_argument("spec", type=Path, help="the spec, YAML or JSON")
    parser.add_argument(
        "--priority", type=int, default=0, help="-10 to 10: of jobs that wait the highest is built first (default 0)"
    )
    parser.add_argument("--wait", action="store_true", help="show its progress until it has ended")
    parser.add_argument("--out", type=Path, help="download the dataset there (implies --wait)")
    url_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Upload, submit, and with --wait or --out follow."""
    from service.commands.specs import read_spec  # pydantic and pyarrow: late, so that --help is quick
    from service.kinds import read_object, sources_of

    spec = read_spec(arguments.spec)
    value = read_object(arguments.spec.read_bytes())
    paths = {pointer: place_of(s.path) for pointer, s in sources_of(spec).items() if s.path is not None}
    _check_files(paths)
    with Client(arguments.url, key=given_key()) as client:
        for pointer, path in paths.items():
            place(value, pointer, {"upload": _upload(client, path, quiet=arguments.json)})
        job = client.submit(value, key=new_key(), priority=arguments.priority)
        if not (arguments.wait or arguments.out):
            show(
                job, f"{job['id']} {job['state']}; follow it with `longweave watch {job['id']}`", as_json=arguments.json
            )
            return 0
        job = follow(client, job["id"], quiet=arguments.json)
        code = outcome(job, as_json=arguments.json)
        if code == 0 and arguments.out:
            found = fetch(client, job["dataset_id"], arguments.out, quiet=arguments.json)
            if not arguments.json:
                print(f"{found['folder']}: {found['rows']:,} rows, {found['tokens']:,} tokens")
        return code


def place(value: dict[str, Any], pointer: str, new: Mapping[str, Any]) -> None:
    """Put `new` where a JSON pointer points in `value`."""
    inner: Any = value
    *steps, last = [step.replace("~1", "/").replace("~0", "~") for step in pointer.removeprefix("/").split("/")]
    for step in steps:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    inner[int(last) if isinstance(inner, list) else last] = new


def _check_files(paths: Mapping[str, Path]) -> None:
    """Every path is a file, before the first of them is sent."""
    for pointer, path in paths.items():
        if path.is_dir():
            message = f"{path} is a folder, and an upload is one file: name the file, or join the files first"
            raise SpecError([FieldProblem(pointer=f"{pointer}/path", message=message)])
        if not path.is_file():
            message = f"{path} does not exist"
            raise SourceError(message, param=str(path))


def _upload(client: Client, path: Path, *, quiet: bool) -> str:
    with transfer(f"uploading {path.name}", path.stat().st_size, quiet=quiet) as (_, report):
        return client.upload(path, report=report)["id"]
