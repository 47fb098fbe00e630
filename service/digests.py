"""Digest fields of RFC 9530, as far as sha-256 goes. Pure."""

from __future__ import annotations

import base64
import binascii
import re

from service.problems import DigestError, MalformedError

_MEMBER = re.compile(r"\s*([a-z0-9_.*-]+)=:([A-Za-z0-9+/=]*):\s*")
FIELDS = ("Content-Digest", "Repr-Digest")


def sha256_of(field: str, header: str | None) -> str | None:
    """The sha-256 that a digest field announces, in hexadecimal digits; None where it announces none we know.

    Other algorithms are passed over, as the RFC has it. Raises MalformedError for what is no dictionary of byte sequences.
    """
    if header is None:
        return None
    found = None
    for member in header.split(","):
        match = _MEMBER.fullmatch(member)
        if match is None:
            raise _malformed(field)
        if match[1] == "sha-256":
            try:
                value = base64.b64decode(match[2], validate=True)
            except binascii.Error:
                raise _malformed(field) from None
            if len(value) != 32:
                raise _malformed(field)
            found = value.hex()
    return found


def digest_field(sha256: str) -> str:
    """A digest field's value for a sha256 in hexadecimal digits."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def check_digest(field: str, announced: str | None, sha256: str) -> None:
    """Raise DigestError where bytes are not those that were announced."""
    if announced is not None and announced != sha256:
        message = f"the bytes that came are not those of {field}: their sha-256 is {sha256}; they were damaged on the way, send them again"
        raise DigestError(message, param=field)


def _malformed(field: str) -> MalformedError:
    return MalformedError(f"{field} is written sha-256=:<base64 of 32 bytes>: (RFC 9530)", param=field)
