"""`longweave tokenizers add | list | remove`: those of a service's user over REST, or with --operator those in the operator's folder."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from packing.dataset.errors import InputError
from packing.tokenizers import FILES, Tokenizer
from service.commands.remote import given_key, show, url_argument
from service.settings import Settings

NAME = "a name is 1 to 64 letters, digits, dots, dashes and underscores"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `longweave tokenizers`."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print machine-readable JSON")
    where = shared.add_mutually_exclusive_group()
    url_argument(shared)
    where.add_argument(
        "--operator",
        action="store_true",
        help="the folder LONGWEAVE_TOKENIZERS of this machine, whose tokenizers all users have, in the place of a service",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="add | list | remove")
    add = actions.add_parser("add", parents=[shared], help="add a tokenizer")
    add.add_argument("name", metavar="NAME", help="what specs call it")
    add.add_argument("folder", metavar="DIR", type=Path, help="a directory with tokenizer.json")
    actions.add_parser("list", parents=[shared], help="list them")
    remove = actions.add_parser("remove", parents=[shared], help="remove one")
    remove.add_argument("name", metavar="NAME")


def run(arguments: argparse.Namespace) -> int:
    """Add, list or remove."""
    return _in_folder(arguments) if arguments.operator else _at_service(arguments)


def _files(folder: Path) -> dict[str, bytes]:
    """A tokenizer's files in a directory, by name; raises InputError where there is no tokenizer.json."""
    found = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
    if "tokenizer.json" not in found:
        message = f"{folder} holds no tokenizer.json"
        raise InputError(message, param=str(folder))
    return found


def _at_service(arguments: argparse.Namespace) -> int:
    from service.client import Client

    with Client(arguments.url, key=given_key()) as client:
        if arguments.action == "add":
            made = client.add_tokenizer(arguments.name, _files(arguments.folder))
            show(made, f"{made['id']}: {made['name']}, {made['vocab_size']:,} tokens", as_json=arguments.json)
        elif arguments.action == "list":
            found = client.tokenizers()
            show(found, "\n".join(f"{t['name']:<24} {t['origin']}" for t in found), as_json=arguments.json)
        else:
            client.remove_tokenizer(arguments.name)
            show({"removed": arguments.name}, f"{arguments.name} is removed", as_json=arguments.json)
    return 0


def _in_folder(arguments: argparse.Namespace) -> int:
    settings = Settings.from_environment(os.environ)
    if settings.tokenizers is None:
        message = "LONGWEAVE_TOKENIZERS names no folder: set it to where the operator's tokenizers are kept"
        raise InputError(message, param="LONGWEAVE_TOKENIZERS")
    registered = settings.registered_tokenizers()
    if arguments.action == "list":
        found: list[dict[str, Any]] = [{"name": name, "folder": str(place)} for name, place in registered.items()]
        lines = "\n".join(f"{t['name']:<24} {t['folder']}" for t in found) or "no tokenizers"
        show(found, lines, as_json=arguments.json)
        return 0
    if arguments.action == "add":
        made = _add(arguments.name, arguments.folder, settings.tokenizers, known=arguments.name in registered)
        show(made, f"{made['name']}: {made['vocab_size']:,} tokens", as_json=arguments.json)
        return 0
    if arguments.name not in registered:
        message = f"there is no tokenizer {arguments.name!r} in {settings.tokenizers}"
        raise InputError(message, param="NAME")
    shutil.rmtree(settings.tokenizers / arguments.name)
    show({"removed": arguments.name}, f"{arguments.name} is removed", as_json=arguments.json)
    return 0


def _add(name: str, folder: Path, place: Path, *, known: bool) -> dict[str, Any]:
    """Copy a tokenizer that can be loaded into the operator's folder, whole or not at all; raises LongweaveError."""
    import re

    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) is None or name == "builtin":
        raise InputError(f"{NAME}, and not builtin", param="NAME")
    if known or (place / name).exists():
        message = f"there is {place / name} already: remove it first, or take another name"
        raise InputError(message, param="NAME")
    files = _files(folder)
    tokenizer = Tokenizer.load(folder, name=name)
    place.mkdir(parents=True, exist_ok=True)
    # Hidden while it is copied: the service looks for */tokenizer.json, which does not find names with a dot in front.
    partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=place))
    for file, data in files.items():
        (partial / file).write_bytes(data)
    partial.chmod(0o755)
    partial.rename(place / name)
    return tokenizer.describe()
