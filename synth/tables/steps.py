"""Worked steps: lines that are true one by one, each of a fixed form, so that a test can parse every one and check it."""

from __future__ import annotations

from collections.abc import Sequence

from synth.tables.schema import Language
from synth.tables.table import Column, Indices, Table
from synth.values.columns import number_text


def fact(table: Table, row: int, columns: Sequence[Column], *, named: bool = False) -> str:
    """What stands in a row: "Row 17: Employee ID = EMP-482913; Department = Sales". `named` says of which table."""
    if table.language == "zh":
        cells = "；".join(f"{column.title} = {column.cell(row)}" for column in columns)
        return f"{table.name if named else ''}第{row + 1}行：{cells}"
    cells = "; ".join(f"{column.title} = {column.cell(row)}" for column in columns)
    return f"{table.name + ', row' if named else 'Row'} {row + 1}: {cells}"


def facts(table: Table, rows: Indices, columns: Sequence[Column]) -> list[str]:
    """What stands in some rows, row by row: `fact` of each."""
    cells = [[f"{column.title} = {cell}" for cell in column.cells_at(rows)] for column in columns]
    before, behind, between = ("第", "行：", "；") if table.language == "zh" else ("Row ", ": ", "; ")
    return [
        f"{before}{row + 1}{behind}{between.join(told)}"
        for row, told in zip(rows.tolist(), zip(*cells, strict=True), strict=True)
    ]


def absent(column: Column, value: str, language: Language) -> str:
    """No cell of a column is `value`."""
    return f"没有一行的{column.title} = {value}" if language == "zh" else f"No row has {column.title} = {value}"


def matches(count: int, language: Language) -> str:
    """How many rows meet the conditions."""
    if language == "zh":
        return f"符合条件的行数：{count}"
    return f"Matching rows: {count}"


def total(column: Column, values: Sequence[int]) -> str:
    """A sum spelled out: "12.50 + 3.10 = 15.60"."""
    spelled = " + ".join(number_text(value, column.decimals) for value in values)
    return f"{spelled} = {number_text(sum(values), column.decimals)}"


def quotient(column: Column, dividend: int, divisor: int) -> str:
    """A mean spelled out: "15.60 / 2 = 7.80", or with ≈ where it was rounded to two decimals."""
    mean = mean_of(dividend, divisor, column.decimals)
    exact = mean * 10**column.decimals * divisor == dividend * 100
    sign = "=" if exact else "≈"
    return f"{number_text(dividend, column.decimals)} / {divisor} {sign} {number_text(mean, 2)}"


def mean_of(dividend: int, divisor: int, decimals: int) -> int:
    """dividend / 10**decimals / divisor in hundredths, halves rounded away from zero."""
    numerator, denominator = abs(dividend) * 100, divisor * 10**decimals
    rounded = (2 * numerator + denominator) // (2 * denominator)
    return -rounded if dividend < 0 else rounded


def greater(column: Column, first: int, second: int, language: Language) -> str:
    """That the first of two numbers or dates is the larger one, or that they are equal."""
    a, b = column.text(first), column.text(second)
    if first == second:
        return f"{a} = {b}"
    if column.sort == "date":
        return f"{a}晚于{b}" if language == "zh" else f"{a} is later than {b}"
    return f"{a} > {b}"


def difference(column: Column, first: int, second: int) -> str:
    """A difference spelled out: "12.50 - 3.10 = 9.40"."""
    return f"{column.text(first)} - {column.text(second)} = {number_text(first - second, column.decimals)}"


def in_order(table: Table, column: Column, rows: Indices) -> str:
    """Keys in the order that the answer has, each with the cell it was sorted by."""
    keys, cells = table.key_column.cells_at(rows), column.cells_at(rows)
    if table.language == "zh":
        return "排序：" + "、".join(f"{key}（{cell}）" for key, cell in zip(keys, cells, strict=True))
    return "In order: " + ", ".join(f"{key} ({cell})" for key, cell in zip(keys, cells, strict=True))
