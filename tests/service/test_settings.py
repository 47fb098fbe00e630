"""Settings out of the environment."""

from __future__ import annotations

import pytest

from service.settings import Settings, SettingsError


def test_defaults_live_in_the_data_directory(tmp_path):
    settings = Settings.from_environment({}, data_dir=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path}/longweave.db"
    assert settings.objects_url == (tmp_path / "objects").as_uri()
    assert (settings.lease_seconds, settings.heartbeat_seconds, settings.attempts) == (20.0, 5.0, 3)
    assert settings.limits.body_bytes == 1024 * 1024


def test_the_command_line_goes_before_the_variable(tmp_path):
    environ = {"LONGWEAVE_DATA_DIR": "/elsewhere"}
    assert Settings.from_environment(environ, data_dir=tmp_path).data_dir == tmp_path
    assert str(Settings.from_environment(environ).data_dir) == "/elsewhere"


def test_variables_are_read(tmp_path):
    environ = {
        "LONGWEAVE_DATABASE_URL": "postgresql+psycopg://u:secret@db/x",
        "LONGWEAVE_WORKERS": "0",
        "LONGWEAVE_LEASE_SECONDS": "2",
        "LONGWEAVE_HOSTS": "api.example.org, Other",
        "LONGWEAVE_MAX_UPLOAD_BYTES": "10",
    }
    settings = Settings.from_environment(environ, data_dir=tmp_path)
    assert (settings.workers, settings.heartbeat_seconds, settings.limits.upload_bytes) == (0, 0.5, 10)
    assert settings.hosts == {"api.example.org", "other"}
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKERS", "many"),
        ("WORKERS", "-1"),
        ("LEASE_SECONDS", "0"),
        ("LEASE_SECONDS", "nan"),
        ("MAX_BODY_BYTES", "1.5"),
        ("MAX_ATTEMPTS", "0"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, name, value):
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({f"LONGWEAVE_{name}": value}, data_dir=tmp_path)
    assert caught.value.param == f"LONGWEAVE_{name}"
    assert value in caught.value.message


def test_a_data_directory_that_is_a_file(tmp_path):
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(SettingsError, match="cannot be used"):
        Settings.from_environment({}, data_dir=place).prepare()


def test_the_operators_tokenizers_go_by_their_folders(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    settings = Settings.from_environment({"LONGWEAVE_TOKENIZERS": str(tmp_path)}, data_dir=tmp_path)
    assert settings.registered_tokenizers() == {"a": tmp_path / "a", "b": tmp_path / "b"}
    assert Settings.from_environment({}, data_dir=tmp_path).registered_tokenizers() == {}
