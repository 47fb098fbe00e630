"""Secrets by file."""

from __future__ import annotations

import pytest

from service.cli import main
from service.secret_files import read_secrets, take_secrets
from service.settings import SettingsError


def test_a_value_is_read_from_its_file_without_the_lines_end(tmp_path):
    place = tmp_path / "url"
    place.write_text("postgresql+psycopg://u:p@h/d\n")
    assert read_secrets({"LONGWEAVE_DATABASE_URL_FILE": str(place), "AWS_ACCESS_KEY_ID_FILE": ""}) == {
        "LONGWEAVE_DATABASE_URL": "postgresql+psycopg://u:p@h/d"
    }
    assert read_secrets({}) == {}


def test_a_process_started_with_what_was_taken_takes_nothing_more(tmp_path):
    (tmp_path / "key").write_text("value")
    environ = {"AWS_ACCESS_KEY_ID_FILE": str(tmp_path / "key"), "OTHER": "1"}
    take_secrets(environ)
    assert environ == {"AWS_ACCESS_KEY_ID": "value", "OTHER": "1"}
    take_secrets(environ)
    assert environ == {"AWS_ACCESS_KEY_ID": "value", "OTHER": "1"}


def test_what_cannot_be_meant_is_named_and_no_secret_is_repeated(tmp_path):
    empty, good = tmp_path / "empty", tmp_path / "good"
    empty.write_text("\n")
    good.write_text("hidden")
    for environ in (
        {"AWS_SECRET_ACCESS_KEY_FILE": str(tmp_path / "absent")},
        {"AWS_SECRET_ACCESS_KEY_FILE": str(empty)},
        {"AWS_SECRET_ACCESS_KEY_FILE": str(good), "AWS_SECRET_ACCESS_KEY": "hidden"},
    ):
        with pytest.raises(SettingsError) as caught:
            read_secrets(environ)
        assert caught.value.param == "AWS_SECRET_ACCESS_KEY_FILE"
        assert "hidden" not in caught.value.message


def test_the_command_line_reads_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LONGWEAVE_DATABASE_URL_FILE", str(tmp_path / "absent"))
    assert main(["jobs"]) == 1
    assert capsys.readouterr().err.startswith("error: LONGWEAVE_DATABASE_URL_FILE: ")
