"""docker-compose.yml and Dockerfile without an engine: the schema, and everything that one place says of another."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import sys

import pytest
import yaml

from service.cli import COMMANDS
from service.secret_files import NAMES
from service.settings import Settings
from tests.stack.compose import COMPOSE, ROOT, compose, named_volumes, services

OURS = ("api", "runner", "worker")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def check_schema(path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_is_a_compose_file(tmp_path):
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    found = check_schema(COMPOSE)
    assert found.returncode == 0, found.stdout + found.stderr
    broken = compose()
    broken["services"]["api"]["ports"] = 8000
    (tmp_path / "broken.yml").write_text(yaml.safe_dump(broken))
    assert check_schema(tmp_path / "broken.yml").returncode == 1


def test_what_depends_on_another_can_be_served():
    named = services()
    waits = [(name, on, how["condition"]) for name, s in named.items() for on, how in s.get("depends_on", {}).items()]
    assert len(waits) >= 6
    for name, on, condition in waits:
        assert on in named, name
        if condition == "service_healthy":
            assert "healthcheck" in named[on], f"{name} waits for the health of {on}, which has no check"
        elif condition == "service_started":
            assert (name, on) == ("worker", "runner")  # a worker waits for the head by itself
        else:
            assert condition == "service_completed_successfully"
            assert "restart" not in named[on], f"{on} would never complete"


def test_volumes_and_secrets_are_declared_and_used():
    whole = compose()
    used = {volume for service in services().values() for volume in named_volumes(service)}
    assert used == set(whole["volumes"])
    secrets = {secret for service in services().values() for secret in service.get("secrets", [])}
    assert secrets == set(whole["secrets"])
    for name, service in services().items():
        text = json.dumps(service)
        assert set(re.findall(r"/run/secrets/(\w+)", text)) == set(service.get("secrets", [])), name


def test_only_the_api_is_published_and_to_this_machine_alone():
    ports = {name: service["ports"] for name, service in services().items() if service.get("ports")}
    assert ports == {"api": ["127.0.0.1:8000:8000"]}
    assert not any(service.get("network_mode") or service.get("privileged") for service in services().values())
    command = services()["api"]["command"]
    assert command[command.index("--port") + 1] == "8000"


def test_no_secret_stands_in_the_file():
    text = COMPOSE.read_text()
    assert re.findall(r"(?i)(?:password|secret|key)\w*: *[\"']?[A-Za-z0-9+][A-Za-z0-9+/]{11,}", text) == []
    settings = services()["worker"]["environment"]
    assert not set(settings) & set(NAMES), "a secret belongs into a file"
    assert {name.removesuffix("_FILE") for name in settings if name.endswith("_FILE")} == set(NAMES)


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_locked_down_and_run_commands_that_exist(name):
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["command"][0] in COMMANDS
    written = {place.partition(":")[2] or place for place in [*service.get("volumes", []), *service["tmpfs"]]}
    assert written == {"/tmp", "/data"}  # noqa: S108 (a mount)
    assert name == "api" or service["shm_size"] == "512m"


def test_the_settings_are_ones_we_read(tmp_path):
    settings = services()["worker"]["environment"]
    assert settings == services()["runner"]["environment"]
    assert services()["api"]["environment"] == {k: v for k, v in settings.items() if not k.startswith("LONGWEAVE_RAY_")}
    assert settings["LONGWEAVE_RAY_ADDRESS"].partition(":")[0] == "runner" in services()
    read = Settings.from_environment(settings, data_dir=tmp_path)
    assert read.objects_url == "s3://longweave"
    bucket = " ".join(services()["bucket"]["command"])
    assert "-name longweave " in bucket
    assert f":{services()['objects']['command'][6].partition('=')[2]}" == ":8333"
    assert settings["AWS_ENDPOINT_URL"] == "http://objects:8333"


def test_what_the_dockerfile_copies_is_there_and_sent_to_the_engine():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        copied |= set(line.split()[:-1])
    assert copied == allowed
    assert [name for name in sorted(copied) if not (ROOT / name).exists()] == []
    stages = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert {s["build"]["target"] for s in services().values() if "build" in s} == {"service", "trainer"} <= set(stages)
    assert set(re.findall(r"COPY --from=(\S+)", DOCKERFILE)) <= set(stages)
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)


def test_the_secrets_script_makes_what_the_file_names(tmp_path):
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts" / "secrets.sh", tmp_path / "scripts")
    subprocess.run([script], check=True)
    folder = tmp_path / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    made = {place.name: place.read_text() for place in folder.iterdir()}
    assert {f"./secrets/{name}" for name in made} == {secret["file"] for secret in compose()["secrets"].values()}
    assert len(made["database_password"]) == len(made["ray_token"]) == 48
    assert len(set(made.values())) == len(made)
    assert f":{made['database_password']}@database/" in made["database_url"]
    credentials = json.loads(made["s3_config"])["identities"][0]["credentials"][0]
    assert credentials == {"accessKey": made["s3_access_key"], "secretKey": made["s3_secret_key"]}
    assert subprocess.run([script], capture_output=True, check=False).returncode == 1
    assert {place.name: place.read_text() for place in folder.iterdir()} == made
