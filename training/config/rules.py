"""Rules for the fields of a config: each takes a raw value and returns the one to keep, or refuses it with a sentence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import field
from typing import Any, cast

Rule = Callable[[Any], Any]
"""Takes a field's raw value and returns the one to keep; raises RefusedError with a sentence."""


class RefusedError(ValueError):
    """A value that a rule does not take, with the sentence that says so."""


def whole(least: int, largest: int | None = None) -> Rule:
    """A whole number between two bounds."""

    def rule(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            message = f"must be a whole number, not {value!r}"
            raise RefusedError(message)
        if value < least or (largest is not None and value > largest):
            message = f"must be {f'at least {least}' if value < least else f'at most {largest}'}, not {value}"
            raise RefusedError(message)
        return value

    return rule


def number(*, above: float | None = None, least: float | None = None) -> Rule:
    """A finite number, above or from a bound on."""

    def rule(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            message = f"must be a number, not {value!r}"
            raise RefusedError(message)
        if (above is not None and value <= above) or (least is not None and value < least):
            message = f"must be {f'above {above:g}' if above is not None else f'at least {least:g}'}, not {value:g}"
            raise RefusedError(message)
        return float(value)

    return rule


def one_of(*names: str) -> Rule:
    """One of some names."""

    def rule(value: Any) -> str:
        if value not in names:
            message = f"must be {' or '.join(names)}, not {value!r}"
            raise RefusedError(message)
        return cast("str", value)

    return rule


def text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        message = f"must be a text that is not empty, not {value!r}"
        raise RefusedError(message)
    return value


def optional(rule: Rule) -> Rule:
    """What a rule takes, or null."""
    return lambda value: None if value is None else rule(value)


def list_of(rule: Rule) -> Rule:
    """A list of what a rule takes, kept as a tuple."""

    def each(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            message = f"must be a list, not {value!r}"
            raise RefusedError(message)
        return tuple(rule(item) for item in cast("list[Any]", value))

    return each


def only(default: Any, sentence: str) -> Rule:
    """One value alone; any other is refused with the sentence."""

    def rule(value: Any) -> Any:
        if value != default:
            raise RefusedError(sentence)
        return value

    return rule


def rope_base(value: Any) -> str | float:
    """`auto`, or a base above 1."""
    if value == "auto":
        return "auto"
    try:
        return number(above=1.0)(value)
    except RefusedError as error:
        message = f"must be auto or a number above 1, not {value!r}"
        raise RefusedError(message) from error


def source(value: Any) -> str:
    """A directory, or the URL of a dataset at a service or in S3."""
    found = text(value)
    scheme = found.partition("://")[0] if "://" in found else ""
    if scheme not in {"", "http", "https", "s3"}:
        message = f"must be a directory, the http(s) URL of a dataset, or s3://bucket/prefix; {scheme}:// is not served"
        raise RefusedError(message)
    return found


def directory(value: Any) -> str:
    """A directory on this machine."""
    found = text(value)
    if "://" in found:
        message = f"must be a directory on this machine, not {found!r}"
        raise RefusedError(message)
    return found


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        message = f"must be true or false, not {value!r}"
        raise RefusedError(message)
    return value


def layer_names(value: Any) -> str | tuple[str, ...]:
    """`all-linear`, or a list of names."""
    if value == "all-linear":
        return "all-linear"
    names = cast("list[Any]", value) if isinstance(value, list) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        message = f"must be all-linear or a list of names of layers, not {value!r}"
        raise RefusedError(message)
    return tuple(names)


def checked(rule: Rule, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field whose raw value goes through a rule."""
    return field(default=default, metadata={"rule": rule})
