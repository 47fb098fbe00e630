"""Questions as data: the small closed language of docs/synl.md, built here and evaluated by synth.audit, which shares no code with this."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from synth.tables.table import Column, Table

Query = dict[str, Any]
ENCODER = json.JSONEncoder(ensure_ascii=False)
AS = {"number": "number", "date": "date"}


def as_of(column: Column) -> str:
    """How a column's cells compare: as numbers, as dates, or as text."""
    return AS.get(column.sort, "text")


def equal(column: Column, value: str) -> dict[str, Any]:
    """The condition that a cell is exactly `value`."""
    return {"column": column.title, "is": "=", "value": value, "as": "text"}


def compared(column: Column, sign: str, value: str) -> dict[str, Any]:
    """The condition that a number or date is `>=` or `<=` a value."""
    return {"column": column.title, "is": sign, "value": value, "as": as_of(column)}


def query(task: str, table: Table, *, give: dict[str, Any], **steps: Any) -> Query:
    """A query: `where`, `order`, `limit`, … in the order in which they are carried out, and what is given of the rows left."""
    return {"task": task, "table": table.name, **steps, "give": give}


def cells_of(columns: Sequence[Column]) -> dict[str, Any]:
    """Give the cells of some columns, row by row."""
    return {"what": "cells", "columns": [column.title for column in columns]}


def order_by(column: Column, *, descending: bool) -> dict[str, Any]:
    """Sort by a column; rows with equal cells keep the table's order."""
    return {"column": column.title, "as": as_of(column), "direction": "descending" if descending else "ascending"}


def to_json(value: Query) -> str:
    """The query as the `queries` column holds it."""
    return ENCODER.encode(value)
