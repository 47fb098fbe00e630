"""Every schema there is, by name."""

from __future__ import annotations

from synth.tables.schema import Schema
from synth.tables.schemas.business import BUSINESS
from synth.tables.schemas.leisure import LEISURE
from synth.tables.schemas.science import SCIENCE

SCHEMAS: dict[str, Schema] = {schema.id: schema for schema in (*BUSINESS, *SCIENCE, *LEISURE)}
