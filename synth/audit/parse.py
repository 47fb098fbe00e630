"""Tables read back out of messages, with the parsers of the standard library and nothing of the code that wrote them."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser


class UnreadableError(ValueError):
    """A message in which a table cannot be found, or a table that is not what its format says."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as text: titles, and rows of as many cells."""

    titles: list[str]
    rows: list[list[str]]

    def column(self, title: str) -> int:
        """The number of a column; raises UnreadableError where no column has that title, or several do."""
        if self.titles.count(title) != 1:
            raise UnreadableError(f"{self.titles.count(title)} columns are called {title!r}")
        return self.titles.index(title)


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
    rows = list(csv.reader(io.StringIO(block, newline=""), delimiter=delimiter, strict=True))
    return Grid(rows[0], rows[1:])


def _json(text: str) -> Grid:
    block = _fenced(text, "json")
    decoder = json.JSONDecoder(parse_float=str, parse_int=str)
    try:
        records = decoder.decode(block) if block.startswith("[") else [decoder.decode(x) for x in block.split("\n")]
    except json.JSONDecodeError as error:
        raise UnreadableError(f"the block is no JSON ({error})") from None
    titles = list(records[0]) if records else []
    if any(list(record) != titles for record in records):
        raise UnreadableError("the objects have different keys")
    return Grid(titles, [list(record.values()) for record in records])


class _Cells(HTMLParser):
    """The cells of every row of a table."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 (the parser's signature)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data


def _html(text: str) -> Grid:
    end = text.find("</table>")
    if not text.startswith("<table>") or end < 0:
        raise UnreadableError("no HTML table stands where the table should")
    parser = _Cells()
    parser.feed(text[:end])
    parser.close()
    return Grid(parser.rows[0], parser.rows[1:])


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
            (cells,) = csv.reader(
                io.StringIO(text, newline=""), delimiter="," if format_ == "csv" else "\t", strict=True
            )
            return cells
        if format_ == "json":
            return list(json.JSONDecoder(parse_float=str, parse_int=str).decode(text.strip()).values())
        if format_ == "html":
            parser = _Cells()
            parser.feed(text)
            parser.close()
            (cells,) = parser.rows
            return cells
        return [line.split(": ", 1)[1] for line in text.split("\n")]
    except (ValueError, IndexError, StopIteration, csv.Error) as error:
        raise UnreadableError(f"a span is no row ({error})") from None
