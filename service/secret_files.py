"""Secrets by file: NAME_FILE says where the value of NAME stands, as containers are given them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path

from service.settings import SettingsError

NAMES = ("LONGWEAVE_DATABASE_URL", "LONGWEAVE_RAY_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def take_secrets(environ: MutableMapping[str, str]) -> None:
    """Put the values into `environ` in place of the names of their files, so that processes of ours find each of them once."""
    for name, value in read_secrets(environ).items():
        environ[name] = value
        del environ[f"{name}_FILE"]


def read_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The values that `environ` names files for, without the line's end.

    Raises SettingsError for a file that cannot be read or is empty, and for a value that is given in both ways; no message
    repeats one.
    """
    found: dict[str, str] = {}
    for name in NAMES:
        variable = f"{name}_FILE"
        place = environ.get(variable)
        if not place:
            continue
        if environ.get(name):
            message = f"{name} and {variable} are both set: take one away"
            raise SettingsError(message, param=variable)
        try:
            value = Path(place).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            message = f"{variable}: {place} cannot be read ({reason})"
            raise SettingsError(message, param=variable) from error
        if not value:
            message = f"{variable}: {place} is empty"
            raise SettingsError(message, param=variable)
        found[name] = value
    return found
