"""Queries evaluated on parsed tables: the closed language of docs/synl.md, in exact decimal arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

from synth.audit.parse import Grid, UnreadableError, number


class UnknownQueryError(ValueError):
    """A query that is not of the language."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a query gives: `values`, or None where no row is left to give something of; and the rows it needs, by table and number."""

    values: list[str] | None
    evidence: list[tuple[str, int]]


class _Evaluation:
    """One query on its tables: `rows` are the numbers of those that are left, `joined` the row of the joined table that belongs to each."""

    def __init__(self, query: Mapping[str, Any], tables: Mapping[str, Grid]) -> None:
        self.query, self.tables = query, tables
        self.grid = tables[query["table"]]
        self.rows = list(range(len(self.grid.rows)))
        self.joined: dict[int, int] = {}
        self.missing = False
        self.passed: list[int] = []

    def cells(self, where: Mapping[str, Any]) -> list[str]:
        """A cell of every row that is left, in a column of the main table, or of the joined one where `table` names that."""
        if where.get("table", self.query["table"]) == self.query["table"]:
            cells = self.grid.cells(where["column"])
            return [cells[row] for row in self.rows]
        cells = self.tables[where["table"]].cells(where["column"])
        return [cells[self.joined[row]] for row in self.rows]

    def numbers(self, where: Mapping[str, Any]) -> list[Decimal]:
        """The same, as numbers."""
        if where.get("table", self.query["table"]) == self.query["table"]:
            numbers = self.grid.numbers(where["column"])
            return [numbers[row] for row in self.rows]
        return list(map(number, self.cells(where)))

    def values(self, where: Mapping[str, Any]) -> Sequence[Any]:
        """The same, as what they are compared as."""
        return self.numbers(where) if _numeric(where) else self.cells(where)

    def join(self, join: Mapping[str, str]) -> None:
        """Keep the rows whose cell is a key of the other table, with that row."""
        other = self.tables[join["table"]]
        found = {key: i for i, key in enumerate(other.cells(join["key"]))}
        if len(found) != len(other.rows):
            raise UnreadableError(f"a key of {join['table']!r} stands in two rows")
        links = self.grid.cells(join["column"])
        self.rows = [row for row in self.rows if links[row] in found]
        self.joined = {row: found[links[row]] for row in self.rows}

    def where(self, conditions: Sequence[Mapping[str, Any]]) -> None:
        """Keep the rows that meet every condition; `in` needs each of its values to be there."""
        for condition in conditions:
            holds = _holding(self.values(condition), condition)
            kept = [row for row, held in zip(self.rows, holds, strict=True) if held]
            if condition["is"] == "in":
                met = {cell for cell, held in zip(self.cells(condition), holds, strict=True) if held}
                self.missing |= met != set(condition["value"])
            self.rows = kept

    def order(self, order: Mapping[str, str]) -> None:
        """Sort; rows that are equal keep their order, whichever the direction."""
        descending = {"ascending": False, "descending": True}[order["direction"]]
        values = dict(zip(self.rows, self.values(order), strict=True))
        self.rows.sort(key=values.__getitem__, reverse=descending)

    def row(self, number: int) -> None:
        """Keep the row with a number, counted from 1."""
        self.rows = [row for row in self.rows if row == number - 1]

    def limit(self, count: int) -> None:
        """Keep the first rows; rows that the question named by their keys stay evidence."""
        if any(condition["is"] == "in" for condition in self.query.get("where", [])):
            self.passed = list(self.rows)
        self.rows = self.rows[:count]

    def after(self, count: int) -> None:
        """Take the row that stands so many rows below each row."""
        self.passed = list(self.rows)
        self.rows = [row + count for row in self.rows if row + count < len(self.grid.rows)]
        self.joined = {}

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
            columns = [self.cells({**give, "column": title}) for title in give["columns"]]
            return [cell for cells in zip(*columns, strict=True) for cell in cells]
        if what == "row_number":
            return [str(row + 1) for row in self.rows]
        if what in ("sum", "mean"):
            return [_measure(give, self.numbers(give))]
        if what == "difference":
            values = self.numbers(give)
            return [str(max(values) - min(values))]
        if what == "groups":
            return self._groups(give["pick"], self.query["group"])
        raise UnknownQueryError(f"a query gives no {what!r}")

    def _groups(self, pick: str, group: Mapping[str, Any]) -> list[str]:
        measure = group["measure"]
        numbers = [Decimal(0)] * len(self.rows) if measure["what"] == "count" else self.numbers(measure)
        members: dict[str, list[int]] = {}
        measured: dict[str, list[Decimal]] = {}
        for name, row, value in zip(self.cells({"column": group["by"]}), self.rows, numbers, strict=True):
            members.setdefault(name, []).append(row)
            measured.setdefault(name, []).append(value)
        if pick == "all":
            return [f"{name}: {_of_group(measure, values)}" for name, values in measured.items()]
        sizes = {name: _size_of_group(measure, values) for name, values in measured.items()}
        best = max(sizes.values()) if pick == "largest" else min(sizes.values())
        name = next(name for name, size in sizes.items() if size == best)
        self.rows = members[name]
        return [name]


def _of_group(measure: Mapping[str, Any], values: Sequence[Decimal]) -> str:
    return str(len(values)) if measure["what"] == "count" else _measure(measure, values)


def _size_of_group(measure: Mapping[str, Any], values: Sequence[Decimal]) -> Fraction:
    """What groups are compared by: exact, never rounded."""
    if measure["what"] == "count":
        return Fraction(len(values))
    total = Fraction(sum(values, Decimal(0)))
    return total / len(values) if measure["what"] == "mean" else total


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
    evidence = [(str(query["table"]), row) for row in sorted({*evaluation.passed, *evaluation.rows})]
    if "join" in query:
        name = query["join"]["table"]
        other = evaluation.tables[name]
        chosen = [condition for condition in query.get("where", []) if condition.get("table") == name]
        if chosen:
            held = [_holding(_values(other, condition), condition) for condition in chosen]
            joined = [row for row, of in enumerate(zip(*held, strict=True)) if all(of)]
        else:
            joined = sorted({evaluation.joined[row] for row in evaluation.rows if row in evaluation.joined})
        evidence += [(name, row) for row in joined]
    return evidence


def _values(grid: Grid, condition: Mapping[str, Any]) -> Sequence[Any]:
    title = condition["column"]
    return grid.numbers(title) if _numeric(condition) else grid.cells(title)


def _numeric(condition: Mapping[str, Any]) -> bool:
    """Whether cells compare as numbers: those that are to be equal compare as text, and so do ISO dates."""
    return condition["as"] == "number" and condition.get("is") not in ("=", "in")


def _holding(values: Sequence[Any], condition: Mapping[str, Any]) -> list[bool]:
    """Which values meet a condition."""
    sign, wanted = condition["is"], condition["value"]
    if sign == "in":
        return [value in wanted for value in values]
    if sign == "=":
        return [value == wanted for value in values]
    limit = number(wanted) if _numeric(condition) else wanted
    if sign == ">=":
        return [value >= limit for value in values]
    if sign == "<=":
        return [value <= limit for value in values]
    raise UnknownQueryError(f"a condition knows no {sign!r}")


def _measure(measure: Mapping[str, Any], values: Sequence[Decimal]) -> str:
    """A sum with the digits of its column, or a mean with `decimals` digits, halves away from zero."""
    total = sum(values, Decimal(0))
    if measure["what"] == "sum":
        return str(total)
    mean = total / len(values)
    return str(mean.quantize(Decimal(1).scaleb(-measure["decimals"]), rounding=ROUND_HALF_UP))
