"""Who calls, and what they may do. Pure: keys as text, scopes, and what a caller gets to see.

A key is `lw_<id>_<secret>`: the id (12 hexadecimal digits) finds its row and stands for the owner of what is made with it, the secret
is 256 random bits in base64url. Only the secret's SHA-256 is kept: with that much randomness a slow hash adds nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from packing.dataset.errors import LongweaveError

KEY = re.compile(r"lw_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
READS = frozenset({"GET", "HEAD"})


class KeyFormError(LongweaveError):
    """Something that was given as a key and is none. What it was is not repeated."""

    code = "malformed_key"


class Scope(StrEnum):
    """What a key allows: each scope implies those before it."""

    READ = "read"  # GET and HEAD of one's own
    WRITE = "write"  # every method, on one's own
    ADMIN = "admin"  # everything, of all owners


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request. `owner` is whose things they see and make: the id of an owner's first key, "" where the
    service has no keys. `key_id` is the key they sent."""

    owner: str
    scopes: frozenset[Scope]
    key_id: str = ""

    @property
    def sees_all(self) -> bool:
        """Things of every owner are theirs to see."""
        return Scope.ADMIN in self.scopes

    def may(self, scope: Scope) -> bool:
        """Whether the key allows it."""
        return scope in self.scopes


@dataclass(frozen=True, slots=True)
class KeyText:
    """A key as its two parts; the secret stays out of `repr`."""

    id: str
    secret: str = field(repr=False)

    @property
    def digest(self) -> str:
        """What is kept of the secret: its SHA-256 in hexadecimal digits."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def text(self) -> str:
        """The key as it is sent."""
        return f"lw_{self.id}_{self.secret}"


HOUSE = Caller("", frozenset(Scope))
"""The service itself, and everybody on this machine while there are no keys."""

STRANGER = Caller("", frozenset())
"""Somebody without a key, at an address that needs none."""


def new_key() -> KeyText:
    """A key that nobody has."""
    return KeyText(secrets.token_hex(6), secrets.token_urlsafe(32))


def read_key(text: str) -> KeyText:
    """The parts of a key; raises KeyFormError, which does not repeat the text."""
    match = KEY.fullmatch(text)
    if match is None:
        message = (
            "this is no key: one looks like lw_<12 digits>_<43 characters>, as `longweave keys create` has shown it"
        )
        raise KeyFormError(message)
    return KeyText(match[1], match[2])


def implied(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """The scopes with those they imply."""
    ranks = list(Scope)
    highest = max((ranks.index(scope) for scope in scopes), default=-1)
    return frozenset(ranks[: highest + 1])


def needed(method: str) -> Scope:
    """The scope that a request's method needs; what is not known to read is taken to write."""
    return Scope.READ if method in READS else Scope.WRITE
