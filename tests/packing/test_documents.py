"""Rows of a source as documents: what every odd line is, under the usual names of columns and under others."""

from __future__ import annotations

import pytest

from packing import records
from packing.records import Document, documents
from packing.sources import lines_table
from packing.spec import Columns

LINES = {
    b'{"text": "plain", "id": "a", "domain": "law"}': ("a", "plain", "law"),
    b'{"text": "a number for an id", "id": 7}': ("7", "a number for an id", ""),
    b'{"text": "true is a number too", "id": true, "domain": 3}': ("True", "true is a number too", "3"),
    b'{"text": "an id of another kind", "id": [1], "domain": [1]}': ("4", "an id of another kind", ""),
    b'{"text": "null for an id", "id": null, "domain": null}': ("5", "null for an id", ""),
    b'{"text": " \\n\\t\\u00a0"}': "its text is empty",
    b'{"text": ""}': "its text is empty",
    b'{"text": 5}': "neither text nor input_ids; it has text",
    b'{"texts": "another name"}': "neither text nor input_ids; it has texts",
    b'{"text": null, "input_ids": [1, 2]}': ("10", [1, 2], ""),
    b'{"input_ids": [3], "id": "t", "domain": "d"}': ("t", [3], "d"),
    b'{"input_ids": [1], "labels": [1, 2]}': "labels and input_ids differ in length",
    b'["text"]': "not a JSON object",
    b'"text"': "not a JSON object",
    b"null": "not a JSON object",
    b'{"text": "cut': "not JSON",
    b"   ": None,
    b"": None,
    '{"text": "é中😀"}'.encode(): ("19", "é中😀", ""),
}


def read(lines, columns):
    count = len(lines)
    table = lines_table(b"\n".join(lines) + b"\n")
    return list(
        documents(
            table, container="lines", name="x", row=range(1, count + 1), index=range(100, 100 + count), columns=columns
        )
    )


def test_every_line_is_a_document_or_says_why_not():
    found = {item.row: item for item in read(list(LINES), Columns())}
    for row, expected in enumerate(LINES.values(), 1):
        if expected is None:
            assert row not in found
        elif isinstance(expected, str):
            assert found[row].reason.startswith(expected)
        else:
            item = found[row]
            text = item.text if item.ids is None else item.ids.tolist()
            assert (item.id, text, item.domain, item.index, item.name) == (*expected, 99 + row, "x")
    assert len(found) == 17


@pytest.mark.parametrize(
    ("columns", "line", "says"),
    [
        (Columns(text="body"), b'{"text": "t"}', "no text in column 'body'; it has text"),
        (Columns(id="key"), b'{"text": "t", "id": "a"}', "no column 'key'; it has id, text"),
        (Columns(domain="field"), b'{"text": "t"}', "no column 'field'; it has text"),
    ],
)
def test_a_column_that_is_named_must_be_there(columns, line, says):
    (item,) = read([line], columns)
    assert item.reason == says


def test_named_columns_are_read():
    (item,) = read([b'{"body": "b", "key": 1, "field": "f"}'], Columns(text="body", id="key", domain="field"))
    assert isinstance(item, Document)
    assert (item.text, item.id, item.domain) == ("b", "1", "f")


def test_usual_lines_are_read_without_the_careful_reader(monkeypatch):
    monkeypatch.setattr(records, "_item", lambda *_: pytest.fail("a usual line was read twice"))
    assert len(read([b'{"text": "t"}', b'{"text": "t", "id": 3, "domain": "d", "more": [1]}'], Columns())) == 2
