"""Queries evaluated on parsed tables: the closed language of docs/synl.md, in exact decimal arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from synth.audit.parse import Grid, UnreadableError


class UnknownQueryError(ValueError):
    """A query that is not of the language."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a query gives: `values`, or None where no row is left to give something of; and the rows it needs, by table and number."""

    values: list[str] | None
    evidence: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class _Row:
    """A row on its way through a query, with the row of the joined table that belongs to it."""

    number: int
    cells: list[str]
    joined: int | None = None


class _Evaluation:
    """One query on its tables."""

    def __init__(self, query: Mapping[str, Any], tables: Mapping[str, Grid]) -> None:
        self.query, self.tables = query, tables
        self.grid = tables[query["table"]]
        self.rows = [_Row(i, cells) for i, cells in enumerate(self.grid.rows)]
        self.missing = False
        self.passed: list[int] = []

    def cell(self, row: _Row, where: Mapping[str, Any]) -> str:
        """A row's cell in a column of the main table, or of the joined one where `table` names that."""
        if where.get("table", self.query["table"]) == self.query["table"]:
            return row.cells[self.grid.column(where["column"])]
        other = self.tables[where["table"]]
        assert row.joined is not None
        return other.rows[row.joined][other.column(where["column"])]

    def join(self, join: Mapping[str, str]) -> None:
        """Keep the rows whose cell is a key of the other table, with that row."""
        other = self.tables[join["table"]]
        key, link = other.column(join["key"]), self.grid.column(join["column"])
        found = {cells[key]: i for i, cells in enumerate(other.rows)}
        if len(found) != len(other.rows):
            raise UnreadableError(f"a key of {join['table']!r} stands in two rows")
        self.rows = [
            _Row(row.number, row.cells, found[row.cells[link]]) for row in self.rows if row.cells[link] in found
        ]

    def where(self, conditions: Sequence[Mapping[str, Any]]) -> None:
        """Keep the rows that meet every condition; `in` needs each of its values to be there."""
        for condition in conditions:
            kept = [row for row in self.rows if _holds(self.cell(row, condition), condition)]
            if condition["is"] == "in":
                self.missing |= {self.cell(row, condition) for row in kept} != set(condition["value"])
            self.rows = kept

    def order(self, order: Mapping[str, str]) -> None:
        """Sort; rows that are equal keep their order, whichever the direction."""
        column, kind = self.grid.column(order["column"]), order["as"]
        ranks = {value: i for i, value in enumerate(sorted({_value(r.cells[column], kind) for r in self.rows}))}
        sign = {"ascending": 1, "descending": -1}[order["direction"]]
        self.rows.sort(key=lambda row: sign * ranks[_value(row.cells[column], kind)])

    def row(self, number: int) -> None:
        """Keep the row with a number, counted from 1."""
        self.rows = [row for row in self.rows if row.number == number - 1]

    def limit(self, count: int) -> None:
        """Keep the first rows; rows that the question named by their keys stay evidence."""
        if any(condition["is"] == "in" for condition in self.query.get("where", [])):
            self.passed = [row.number for row in self.rows]
        self.rows = self.rows[:count]

    def after(self, count: int) -> None:
        """Take the row that stands so many rows below each row."""
        self.passed = [row.number for row in self.rows]
        numbers = [row.number + count for row in self.rows]
        self.rows = [_Row(n, self.grid.rows[n]) for n in numbers if n < len(self.grid.rows)]

    def give(self, give: Mapping[str, Any]) -> list[str] | None:
        """What the rows that are left come to; None where there is nothing to give."""
        what = give["what"]
        if what == "count":
            return [str(len(self.rows))]
        if what == "exists":
            return ["yes" if self.rows else "no"]
        if not self.rows or self.missing:
            return None
        if what == "cells":
            return [self.cell(row, {**give, "column": title}) for row in self.rows for title in give["columns"]]
        if what == "row_number":
            return [str(row.number + 1) for row in self.rows]
        if what in ("sum", "mean"):
            return [_measure(give, [self.cell(row, give) for row in self.rows])]
        if what == "difference":
            values = [_number(self.cell(row, give)) for row in self.rows]
            return [str(max(values) - min(values))]
        if what == "groups":
            return self._groups(give["pick"], self.query["group"])
        raise UnknownQueryError(f"a query gives no {what!r}")

    def _groups(self, pick: str, group: Mapping[str, Any]) -> list[str]:
        by, measure = self.grid.column(group["by"]), group["measure"]
        members: dict[str, list[_Row]] = {}
        for row in self.rows:
            members.setdefault(row.cells[by], []).append(row)
        if pick == "all":
            return [f"{name}: {self._of_group(measure, rows)}" for name, rows in members.items()]
        sizes = {name: self._size_of_group(measure, rows) for name, rows in members.items()}
        best = max(sizes.values()) if pick == "largest" else min(sizes.values())
        name = next(name for name, size in sizes.items() if size == best)
        self.rows = members[name]
        return [name]

    def _of_group(self, measure: Mapping[str, Any], rows: Sequence[_Row]) -> str:
        if measure["what"] == "count":
            return str(len(rows))
        return _measure(measure, [self.cell(row, measure) for row in rows])

    def _size_of_group(self, measure: Mapping[str, Any], rows: Sequence[_Row]) -> Fraction:
        """What groups are compared by: exact, never rounded."""
        if measure["what"] == "count":
            return Fraction(len(rows))
        total = sum((Fraction(_number(self.cell(row, measure))) for row in rows), Fraction(0))
        return total / len(rows) if measure["what"] == "mean" else total


STEPS = ("row", "join", "where", "order", "limit", "after")


def evaluate(query: Mapping[str, Any], tables: Mapping[str, Grid]) -> Result:
    """Carry out a query's steps in their order; raises UnknownQueryError or UnreadableError."""
    unknown = set(query) - {"task", "table", "give", "group", *STEPS}
    if unknown:
        raise UnknownQueryError(f"a query has no {', '.join(sorted(unknown))}")
    evaluation = _Evaluation(query, tables)
    for step in STEPS:
        if step in query:
            getattr(evaluation, step)(query[step])
    values = evaluation.give(query["give"])
    return Result(values, [] if values is None else _evidence(evaluation))


def _evidence(evaluation: _Evaluation) -> list[tuple[str, int]]:
    """The rows that are left at the end, in the table's order, those that `after` set out from or that were compared, and the joined
    rows they lead to or that a condition chose."""
    query = evaluation.query
    numbers = sorted({*evaluation.passed, *(row.number for row in evaluation.rows)})
    evidence = [(str(query["table"]), number) for number in numbers]
    if "join" in query:
        name = query["join"]["table"]
        other = evaluation.tables[name]
        chosen = [condition for condition in query.get("where", []) if condition.get("table") == name]
        if chosen:
            joined = [
                i
                for i, cells in enumerate(other.rows)
                if all(_holds(cells[other.column(c["column"])], c) for c in chosen)
            ]
        else:
            joined = sorted({row.joined for row in evaluation.rows if row.joined is not None})
        evidence += [(name, number) for number in joined]
    return evidence


def _holds(cell: str, condition: Mapping[str, Any]) -> bool:
    sign, value = condition["is"], condition["value"]
    if sign == "in":
        return cell in value
    if sign == "=":
        return cell == value
    left, right = _value(cell, condition["as"]), _value(value, condition["as"])
    if sign == ">=":
        return left >= right
    if sign == "<=":
        return left <= right
    raise UnknownQueryError(f"a condition knows no {sign!r}")


def _value(cell: str, kind: str) -> Any:
    """A cell as what it is compared as; ISO dates compare as text."""
    return _number(cell) if kind == "number" else cell


def _number(cell: str) -> Decimal:
    try:
        return Decimal(cell)
    except InvalidOperation:
        raise UnreadableError(f"{cell!r} is no number") from None


def _measure(measure: Mapping[str, Any], cells: Sequence[str]) -> str:
    """A sum with the digits of its column, or a mean with `decimals` digits, halves away from zero."""
    total = sum((_number(cell) for cell in cells), Decimal(0))
    if measure["what"] == "sum":
        return str(total)
    mean = total / len(cells)
    return str(mean.quantize(Decimal(1).scaleb(-measure["decimals"]), rounding=ROUND_HALF_UP))
