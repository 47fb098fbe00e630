"""Tables read back out of messages, with the parsers of the standard library (csv, json, expat) and nothing of the code that wrote them."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from xml.parsers import expat


class UnreadableError(ValueError):
    """A message in which a table cannot be found, or a table that is not what its format says."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as text: titles, and rows of as many cells. Its columns are kept as they are asked for."""

    titles: list[str]
    rows: list[list[str]]
    _cells: dict[str, list[str]] = field(default_factory=dict[str, list[str]], compare=False)
    _numbers: dict[str, list[Decimal]] = field(default_factory=dict[str, list[Decimal]], compare=False)

    def column(self, title: str) -> int:
        """The number of a column; raises UnreadableError where no column has that title, or several do."""
        if self.titles.count(title) != 1:
            raise UnreadableError(f"{self.titles.count(title)} columns are called {title!r}")
        return self.titles.index(title)

    def cells(self, title: str) -> list[str]:
        """The cells of a column, row by row."""
        if title not in self._cells:
            place = self.column(title)
            self._cells[title] = [row[place] for row in self.rows]
        return self._cells[title]

    def numbers(self, title: str) -> list[Decimal]:
        """The cells of a column as numbers; raises UnreadableError where one is none."""
        if title not in self._numbers:
            self._numbers[title] = [number(cell) for cell in self.cells(title)]
        return self._numbers[title]


def number(cell: str) -> Decimal:
    """A cell as an exact number; raises UnreadableError where it is none."""
    try:
        return Decimal(cell)
    except InvalidOperation:
        raise UnreadableError(f"{cell!r} is no number") from None


def table_named(content: str, name: str, format_: str) -> Grid:
    """The table that stands under "Table: name" in a message; raises UnreadableError."""
    found = [m.end() for m in re.finditer(rf"^(?:Table: |表：){re.escape(name)}\n\n", content, re.MULTILINE)]
    if len(found) != 1:
        raise UnreadableError(f"the message has {len(found)} tables called {name!r}")
    grid = READERS[format_](content[found[0] :])
    if len(set(grid.titles)) != len(grid.titles) or any(len(row) != len(grid.titles) for row in grid.rows):
        raise UnreadableError(f"the table {name!r} is ragged, or two of its columns share a title")
    return grid


def _fenced(text: str, *languages: str) -> str:
    match = re.match(r"```(\w+)\n(.*?)\n```(?:\n|$)", text, re.DOTALL)
    if match is None or match[1] not in languages:
        raise UnreadableError(f"no block of {' or '.join(languages)} stands where the table should")
    return match[2]


def _markdown(text: str) -> Grid:
    lines: list[str] = []
    for line in text.split("\n"):
        if not line.startswith("|"):
            break
        lines.append(line)
    if len(lines) < 2 or set(lines[1]) - set("|- :"):
        raise UnreadableError("no pipe table stands where the table should")
    cells = [markdown_cells(line) for line in lines]
    return Grid(cells[0], cells[2:])


def markdown_cells(line: str) -> list[str]:
    """The cells of a line of a pipe table: a backslash takes the next character as it is."""
    if "\\" not in line:
        return [cell.strip() for cell in line.strip()[1:].split("|")[:-1]]
    cells: list[str] = []
    cell, characters = "", iter(line.strip())
    next(characters)
    for character in characters:
        if character == "\\":
            cell += next(characters, "")
        elif character == "|":
            cells.append(cell.strip())
            cell = ""
        else:
            cell += character
    return cells


def _separated(delimiter: str, language: str, text: str) -> Grid:
    block = _fenced(text, language)
    try:
        rows = list(csv.reader(io.StringIO(block, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise UnreadableError(f"the block is no {language} ({error})") from None
    return Grid(rows[0], rows[1:])


DECODER = json.JSONDecoder(parse_float=str, parse_int=str)
"""Numbers stay as they are written."""


def _json(text: str) -> Grid:
    block = _fenced(text, "json")
    try:
        records = DECODER.decode(block) if block.startswith("[") else list(map(DECODER.decode, block.split("\n")))
    except json.JSONDecodeError as error:
        raise UnreadableError(f"the block is no JSON ({error})") from None
    titles = list(records[0]) if records else []
    if any(list(record) != titles for record in records):
        raise UnreadableError("the objects have different keys")
    return Grid(titles, [list(record.values()) for record in records])


def _html(text: str) -> Grid:
    end = text.find("</table>")
    if not text.startswith("<table>") or end < 0:
        raise UnreadableError("no HTML table stands where the table should")
    rows = _html_rows(text[: end + len("</table>")])
    return Grid(rows[0], rows[1:])


INSIDE = {"table": "", "thead": "table", "tbody": "table", "td": "tr", "th": "tr"}
"""What an element stands in; a row stands in any of the first three, or by itself."""


class _HtmlRows:
    """The cells of every row, from expat's events: no element of a tree, whose tens of thousands the garbage collector would walk."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self._open = [""]

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        parents = ("", "table", "thead", "tbody") if tag == "tr" else (INSIDE.get(tag),)
        if self._open[-1] not in parents or attributes:
            raise UnreadableError(f"<{tag}> stands in <{self._open[-1]}>: a table holds rows, and a row cells of text")
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def end(self, tag: str) -> None:  # noqa: ARG002 (expat's signature)
        """An element ends: the one that began last, or expat would have said so."""
        self._open.pop()

    def text(self, data: str) -> None:
        """Some text."""
        if self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        elif data.strip():
            raise UnreadableError(f"the text {data.strip()[:20]!r} stands in no cell of the table")


def _html_rows(text: str) -> list[list[str]]:
    """The cells of every row in one element, which is well formed; raises UnreadableError where it is not."""
    found, parser = _HtmlRows(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = found.start, found.end
    parser.CharacterDataHandler = found.text
    try:
        parser.Parse(text, True)  # noqa: FBT003 (expat takes it by position alone: this is all of it)
    except expat.ExpatError as error:
        raise UnreadableError(f"the table is no well-formed HTML ({error})") from None
    if not found.rows:
        raise UnreadableError("the table has no row")
    return found.rows


def _key_value(text: str) -> Grid:
    records = [[line.split(": ", 1) for line in record.split("\n")] for record in _fenced(text, "text").split("\n\n")]
    if any(len(pair) != 2 for record in records for pair in record):
        raise UnreadableError("a line of the block is no `title: value`")
    titles = [title for title, _ in records[0]]
    if any([title for title, _ in record] != titles for record in records):
        raise UnreadableError("the records have different titles")
    return Grid(titles, [[value for _, value in record] for record in records])


READERS = {
    "markdown": _markdown,
    "csv": lambda text: _separated(",", "csv", text),
    "tsv": lambda text: _separated("\t", "tsv", text),
    "json": _json,
    "html": _html,
    "key_value": _key_value,
}


WHOLE = {"markdown": ("| ", " |"), "html": ("<tr>", "</tr>")}
"""What a row of a format begins and ends with, where its parser would not mind."""


def record_cells(text: str, format_: str) -> list[str]:
    """The cells of one row that stands by itself, whole, as an evidence span has it; raises UnreadableError."""
    first, last = WHOLE.get(format_, ("", ""))
    if not (text.startswith(first) and text.endswith(last)):
        raise UnreadableError(f"a span is no whole row ({text[:20]!r}…{text[-20:]!r})")
    try:
        if format_ == "markdown":
            return markdown_cells(text)
        if format_ in ("csv", "tsv"):
            (cells,) = csv.reader([text], delimiter="," if format_ == "csv" else "\t", strict=True)
            return cells
        if format_ == "json":
            return list(DECODER.decode(text.strip()).values())
        if format_ == "html":
            (cells,) = _html_rows(text)
            return cells
        return [line.split(": ", 1)[1] for line in text.split("\n")]
    except (ValueError, IndexError, StopIteration, csv.Error) as error:
        raise UnreadableError(f"a span is no row ({error})") from None
