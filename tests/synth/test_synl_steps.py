"""Worked steps are true line by line: every line is parsed, and checked against the table as it stands in the message."""

from __future__ import annotations

import json
import re
from decimal import ROUND_HALF_UP, Decimal

import pytest

from synth.audit.parse import table_named
from synth.tables.tasks.catalogue import TASKS
from tests.synth.support import LOCALES, row_of

NUMBER = r"-?\d+(?:\.\d+)?"
DATE = r"\d{4}-\d\d-\d\d"
SEPARATOR = {"en_US": "; ", "zh_CN": "；"}


class Steps:
    """Checks the lines of one response; `kinds` are the kinds of line it has seen."""

    def __init__(self, row, number):
        self.query, self.locale = json.loads(row["queries"][number]), row["locale"]
        names = {self.query["table"], self.query.get("join", self.query)["table"]}
        content = row["messages"][0]["content"]
        self.tables = {name: table_named(content, name, row["format"]) for name in names}
        self.evidence = [span for span in row["evidence"] if span["question"] == number]
        self.answer, self.facts, self.kinds = row["answers"][number], [], []

    def check(self, line):
        for kind, pattern in (
            ("fact", r"(?:(?P<t>.*), row|Row) (?P<n>\d+): (?P<cells>.*)|(?P<u>.*)第(?P<m>\d+)行：(?P<zellen>.*)"),
            ("absent", r"(?:No row has |没有一行的)(?P<title>.*?) = (?P<value>.*)"),
            ("matches", r"(?:Matching rows: |符合条件的行数：)(?P<n>\d+)"),
            ("order", r"(?:In order: |排序：)(?P<items>.*)"),
            ("difference", rf"(?P<a>{NUMBER}) - (?P<b>{NUMBER}) = (?P<c>{NUMBER})"),
            ("greater", rf"(?P<a>{NUMBER}|{DATE})(?: > |晚于| is later than | = )(?P<b>{NUMBER}|{DATE})"),
            ("quotient", rf"(?:(?P<name>.*): )?(?P<a>{NUMBER}) / (?P<n>\d+) (?P<sign>[=≈]) (?P<b>{NUMBER})"),
            ("sum", rf"(?P<terms>{NUMBER}(?: \+ {NUMBER})*) = (?P<total>{NUMBER})"),
            ("group", rf"(?P<name>.*?): (?P<n>\d+)(?:(?: rows?, total |行，合计)(?P<total>{NUMBER}))?"),
        ):
            match = re.fullmatch(pattern, line)
            if match:
                self.kinds.append(kind)
                getattr(self, kind)(line, match)
                return
        pytest.fail(f"a line of no known form: {line!r}")

    def fact(self, line, match):
        name = match["t"] or match["u"] or self.query["table"]
        grid = self.tables[name]
        cells = grid.rows[int(match["n"] or match["m"]) - 1]
        self.facts.append(cells)
        said = match["cells"] or match["zellen"]
        # every "title = cell" that is said must be the row's, and nothing else may be said
        titles = [t for t in grid.titles if re.search(rf"(?:^|{SEPARATOR[self.locale]}){re.escape(t)} = ", said)]
        parts = {f"{t} = {cells[grid.titles.index(t)]}" for t in titles}
        assert parts
        rest = said
        for part in sorted(parts, key=len, reverse=True):
            assert part in rest, (part, line)
            rest = rest.replace(part, "", 1)
        assert set(rest) <= set(SEPARATOR[self.locale]), rest

    def absent(self, line, match):
        grid = self.tables[self.query["table"]]
        assert match["value"] not in [cells[grid.titles.index(match["title"])] for cells in grid.rows]

    def matches(self, line, match):
        seconds = [c for c in self.query.get("where", []) if "table" in c]
        shown = len(self.evidence)
        if seconds:
            other = self.tables[seconds[0]["table"]]
            place = other.titles.index(seconds[0]["column"])
            shown -= sum(cells[place] == seconds[0]["value"] for cells in other.rows)
        assert int(match["n"]) == shown

    def order(self, line, match):
        pairs = re.findall(r"([A-Z]+-\d+)(?: \(|（)(.*?)[)）]", match["items"])
        assert ", ".join(key for key, _ in pairs) == self.answer
        grid, order = self.tables[self.query["table"]], self.query["order"]
        place = grid.titles.index(order["column"])
        value = Decimal if order["as"] == "number" else str
        assert all(any(key in cells and cells[place] == cell for cells in grid.rows) for key, cell in pairs)
        values = [value(cell) for _, cell in pairs]
        assert values == sorted(values, reverse=order["direction"] == "descending")

    def difference(self, line, match):
        assert Decimal(match["a"]) - Decimal(match["b"]) == Decimal(match["c"]) >= 0

    def greater(self, line, match):
        a, b = match["a"], match["b"]
        value = str if re.fullmatch(DATE, a) else Decimal
        assert value(a) == value(b) if " = " in line else value(a) > value(b)
        assert {a, b} <= {cell for cells in self.facts for cell in cells}

    def quotient(self, line, match):
        exact = Decimal(match["a"]) / int(match["n"])
        rounded = exact.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)
        assert rounded == Decimal(match["b"])
        assert (match["sign"] == "=") == (rounded == exact)
        if match["name"]:
            self._group(match["name"], int(match["n"]), Decimal(match["a"]))

    def sum(self, line, match):
        terms = [Decimal(term) for term in match["terms"].split(" + ")]
        grid = self.tables[self.query["table"]]
        place = grid.titles.index(self.query["give"]["column"])
        assert terms == [Decimal(cells[place]) for cells in self.facts]
        assert sum(terms) == Decimal(match["total"])

    def group(self, line, match):
        self._group(match["name"], int(match["n"]), Decimal(match["total"]) if match["total"] else None)

    def _group(self, name, count, total):
        grid, group = self.tables[self.query["table"]], self.query["group"]
        rows = [cells for cells in grid.rows if cells[grid.titles.index(group["by"])] == name]
        assert len(rows) == count
        if total is not None:
            place = grid.titles.index(group["measure"]["column"])
            assert sum(Decimal(cells[place]) for cells in rows) == total


@pytest.mark.parametrize("locale", LOCALES)
def test_every_line_of_every_step_is_true(locale):
    seen, lines = {}, 0
    for number in range(220):
        task = list(TASKS)[number % len(TASKS)]
        row = row_of(
            number, seed=5, tasks={task: 1.0}, locales={locale: 1.0}, turns=(2, 2), reasoning=1.0, unanswerable=0.2
        )
        for question, response in enumerate(row["messages"][1::2]):
            steps = Steps(row, question)
            *worked, last = response["content"].split("\n")
            assert last == {"en_US": "Answer: ", "zh_CN": "答案："}[locale] + row["answers"][question]
            assert worked
            for line in worked:
                steps.check(line)
                lines += 1
            seen.setdefault(task, set()).update(steps.kinds)
    assert lines > 1000
    assert set(seen) == set(TASKS)
    everything = {"fact", "absent", "matches", "order", "difference", "greater", "quotient", "sum", "group"}
    assert set.union(*seen.values()) == everything
