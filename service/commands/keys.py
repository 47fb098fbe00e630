"""`longweave keys create | list | revoke`: the API keys of a service, by its database."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from service.access import Scope
from service.commands.remote import show
from service.settings import Settings

if TYPE_CHECKING:
    from service.jobs.keys import ApiKey, KeyStore

NAME_LENGTH = 100


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `longweave keys`."""
    shared = argparse.ArgumentParser(add_help=False)
    # Both may stand before or behind the action: what is not given behind it must not undo what stands before.
    shared.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print machine-readable JSON")
    shared.add_argument("--data-dir", default=argparse.SUPPRESS, help="where the database is (LONGWEAVE_DATA_DIR)")
    parser.add_argument("--data-dir", help="where the database is (LONGWEAVE_DATA_DIR)")
    actions = parser.add_subparsers(dest="action", required=True, metavar="create | list | revoke")
    create = actions.add_parser("create", parents=[shared], help="make a key; it is shown this once")
    create.add_argument("name", type=_name, metavar="NAME", help="whose it is, or what for")
    create.add_argument(
        "--scopes",
        type=_scopes,
        default=frozenset({Scope.WRITE}),
        help="of read, write and admin, with commas; each implies those before it (default write)",
    )
    create.add_argument(
        "--of", metavar="ID", help="share what the key ID owns: to read it only, or to take the place of that key"
    )
    actions.add_parser("list", parents=[shared], help="every key there was, without its secret")
    revoke = actions.add_parser("revoke", parents=[shared], help="end a key, at once and for ever")
    revoke.add_argument("id", metavar="ID", help="the key's id, as `list` shows it")


def run(arguments: argparse.Namespace) -> int:
    """Create, list or revoke."""
    settings = Settings.from_environment(os.environ, data_dir=arguments.data_dir)
    with _store(settings) as store:
        if arguments.action == "create":
            made, key = store.create(arguments.name, arguments.scopes, of=arguments.of)
            show(_value(made) | {"key": key.text()}, key.text(), as_json=arguments.json)
            if not arguments.json:
                print(f"key {made.id} of {made.name}: keep it now, it is not shown again", file=sys.stderr)
        elif arguments.action == "list":
            found = store.list()
            lines = [f"{'id':<12} {'owner':<12} {'scopes':<16} {'created':<19} {'last used':<19} {'revoked':<19} name"]
            lines += [_line(key) for key in found]
            show([_value(key) for key in found], "\n".join(lines) if found else "no keys", as_json=arguments.json)
        else:
            ended = store.revoke(arguments.id)
            show(_value(ended), f"key {ended.id} of {ended.name} is revoked", as_json=arguments.json)
    return 0


@contextmanager
def _store(settings: Settings) -> Generator[KeyStore]:
    from service.jobs.database import open_database  # SQLAlchemy: late, so that --help is quick
    from service.jobs.keys import KeyStore

    settings.prepare()
    engine = open_database(settings.database_url)
    try:
        yield KeyStore(engine)
    finally:
        engine.dispose()


def _value(key: ApiKey) -> dict[str, Any]:
    from service.routes.bodies import when_known  # pydantic: late as well

    times = {"created_at": key.created_at, "last_used_at": key.last_used_at, "revoked_at": key.revoked_at}
    told = {name: when_known(seconds) for name, seconds in times.items()}
    scopes = [str(scope) for scope in Scope if scope in key.scopes]
    return {"id": key.id, "owner": key.owner, "name": key.name, "scopes": scopes, **told}


def _line(key: ApiKey) -> str:
    value = _value(key)
    times = ("created_at", "last_used_at", "revoked_at")
    created, used, revoked = ((value[name] or "")[:19].replace("T", " ") for name in times)
    return f"{key.id:<12} {key.owner:<12} {','.join(value['scopes']):<16} {created:<19} {used:<19} {revoked:<19} {key.name}"


def _name(text: str) -> str:
    if not (text.strip() and text.isprintable() and len(text) <= NAME_LENGTH):
        message = f"a name is 1 to {NAME_LENGTH} printable characters"
        raise argparse.ArgumentTypeError(message)
    return text


def _scopes(text: str) -> frozenset[Scope]:
    try:
        return frozenset(Scope(name.strip()) for name in text.split(","))
    except ValueError:
        message = f"{text!r} is not of read, write and admin, with commas"
        raise argparse.ArgumentTypeError(message) from None
