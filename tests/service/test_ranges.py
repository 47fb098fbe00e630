"""Byte ranges, by a table."""

from __future__ import annotations

import pytest

from service.problems import RangeError
from service.routes.ranges import byte_range, matches


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("bytes=0-0", (0, 1)),
        ("bytes=0-9", (0, 10)),
        ("bytes=2-5", (2, 6)),
        ("bytes=9-", (9, 10)),
        ("bytes=0-", (0, 10)),
        ("bytes=5-99", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("BYTES=1-2", (1, 3)),
        ("bytes= 1 - 2 ", (1, 3)),
        # unknown units, nonsense and lists count as absent
        ("lines=0-1", None),
        ("bytes", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1-2-3", None),
        ("bytes=5-2", None),
        ("bytes=0-1,3-4", None),
        ("bytes=0x1-2", None),
        ("bytes=٣-٤", None),
        ("bytes=" + "9" * 5000 + "-", None),
    ],
)
def test_ranges(header, expected):
    assert byte_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-11", "bytes=999999-", "bytes=-0"])
def test_ranges_behind_the_end(header):
    with pytest.raises(RangeError) as caught:
        byte_range(header, 10)
    assert caught.value.headers == {"Content-Range": "bytes */10"}


def test_an_empty_file_has_no_ranges():
    with pytest.raises(RangeError):
        byte_range("bytes=0-", 0)
    with pytest.raises(RangeError):
        byte_range("bytes=-5", 0)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ("*", True),
        ('"b"', False),
        ("a", False),
        ("", False),
    ],
)
def test_if_none_match(header, expected):
    assert matches(header, '"a"') is expected
