"""Loaded by schemathesis: how bodies of media types that it does not know are made of what it has drawn."""

from __future__ import annotations

import schemathesis

schemathesis.serializer.alias("application/jsonl", "application/octet-stream")
schemathesis.serializer.alias("application/partial-upload", "application/octet-stream")
