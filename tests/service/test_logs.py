"""Log lines: readable or JSON, one line an event, fields from arguments, the request's id, and a form that is refused."""

from __future__ import annotations

import json
import logging

import pytest

from service.logs import REQUEST, JsonLines, TextLines, fields_of
from service.settings import SettingsError
from tests.service.support import settings_in


def record(message, *args, error=None):
    info = None if error is None else (type(error), error, None)
    return logging.LogRecord("longweave.x", logging.WARNING, __file__, 1, message, args, info)


def test_json_lines_have_a_field_for_each_key():
    line = json.loads(
        JsonLines().format(record("job=%s attempt=%d claimed in %.1f s kind=%s 100%%", "job_1", 2, 0.5, None))
    )
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "longweave.x",
        "message": "job=job_1 attempt=2 claimed in 0.5 s kind=None 100%",
        "job": "job_1",
        "attempt": 2,
        "kind": None,
    }


def test_fields_come_from_arguments_and_never_from_what_stands_in_them():
    line = JsonLines().format(record("job=%s %s", 'x" level=info job=other', "level=info"))
    assert len(line.splitlines()) == 1
    assert json.loads(line)["job"] == 'x" level=info job=other'
    assert json.loads(line)["level"] == "warning"
    assert json.loads(JsonLines().format(record("level=%s logger=%s", "none", "other")))["logger"] == "longweave.x"
    assert fields_of(record("a plain line of 5 %")) == {}


@pytest.mark.parametrize("end", ["\n", "\r", "\x1b", "\u2028", "\x00"])
def test_a_name_begins_no_line_of_its_own(end):
    line = TextLines("%(levelname)s %(message)s").format(record("file=%s", f"a{end}ERROR forged"))
    assert line == f"WARNING file=a{repr(end)[1:-1]}ERROR forged"


def test_lines_name_the_request_that_is_answered():
    token = REQUEST.set("r1")
    try:
        assert json.loads(JsonLines().format(record("x")))["request"] == "r1"
        assert TextLines("%(message)s").format(record("x")) == "x request=r1"
    finally:
        REQUEST.reset(token)
    assert "request" not in json.loads(JsonLines().format(record("x")))
    assert TextLines("%(message)s").format(record("x")) == "x"


def test_json_keeps_a_traceback_in_its_line():
    line = JsonLines().format(record("broken", error=ValueError("why")))
    assert len(line.splitlines()) == 1
    assert "ValueError: why" in json.loads(line)["traceback"]


def test_the_form_is_a_setting(tmp_path):
    assert settings_in(tmp_path).log == "text"
    assert settings_in(tmp_path, LOG="json").log == "json"
    with pytest.raises(SettingsError, match="text or json"):
        settings_in(tmp_path, LOG="yaml")
