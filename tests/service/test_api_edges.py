"""The door: Host, Origin, unknown addresses and methods, pages, OpenAPI, health; and that the API knows nothing of Ray."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from service.app import create_app
from service.routes import health
from service.services import Services
from tests.service.support import assert_problem, make_runner, settings_in

METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "localhost:8000", "LOCALHOST", "[::1]", "[::1]:65535"])
def test_loopback_names_are_let_in(api, host):
    assert api.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.",
        "localhost@evil.example",
        "evil.example@localhost",
        "localhost/x",
        "localhost:port",
        "0.0.0.0",  # noqa: S104
        "[::1",
        "",
    ],
)
def test_foreign_hosts_are_refused_on_every_method(api, method, host):
    response = api.request(method, "/v1/jobs", headers={"Host": host})
    if method == "HEAD":
        assert response.status_code == 421
    else:
        assert_problem(response, 421, "foreign_host")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost.evil.example", "file://", "http://u@localhost", "localhost"],
)
def test_foreign_origins_are_refused_on_every_method(api, method, origin):
    response = api.request(method, "/v1/jobs", headers={"Origin": origin})
    if method == "HEAD":
        assert response.status_code == 403
    else:
        assert_problem(response, 403, "foreign_origin")


def test_our_own_pages_may_call_us(api):
    assert api.get("/v1/jobs", headers={"Origin": "http://localhost:8000"}).status_code == 200


def test_the_operator_may_allow_a_name(tmp_path):
    settings = settings_in(tmp_path, HOSTS="api.example.org")
    with TestClient(create_app(settings), base_url="http://api.example.org") as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/healthz", headers={"Host": "other.example.org"}).status_code == 421


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/jobs/", "/v1/jobs/x/y/z", "/docs/", "/%00", "/v1/../etc/passwd"]
)
def test_unknown_addresses(api, path):
    assert_problem(api.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/jobs", "GET, POST"),
        ("PATCH", "/v1/jobs/job_1", "DELETE, GET"),
        ("GET", "/v1/jobs/job_1/cancel", "POST"),
        ("POST", "/v1/datasets/ds_1/files/a/b", "GET, HEAD"),
        ("DELETE", "/healthz", "GET"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("GET", "/v1/uploads", "POST"),
    ],
)
def test_wrong_methods(api, method, path, allow):
    response = api.request(method, path)
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing(api, path):
    response = api.get(path)
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["content-security-policy"]
    for sign in ("<script", "src=", "@import", "cdn", "https://"):
        assert sign not in response.text


def test_docs_list_every_operation(api):
    text = api.get("/docs").text
    document = api.get("/openapi.json").json()
    operations = [(method.upper(), path) for path, found in document["paths"].items() for method in found]
    assert len(operations) > 20
    for method, path in operations:
        assert f'<td class="m">{method}</td><td><code>{path}</code>' in text


def test_openapi_has_every_address_of_the_contract(api):
    paths = api.get("/openapi.json").json()["paths"]
    job, dataset = "/v1/jobs/{job_id}", "/v1/datasets/{dataset_id}"
    assert {"/v1/jobs", job, f"{job}/cancel", f"{job}/events", "/v1/previews", "/v1/uploads"} <= set(paths)
    parts = ("manifest", "parquet", "rows", "statistics", "size", "croissant", "files/{path}")
    assert {f"{dataset}/{part}" for part in parts} <= set(paths)
    assert {"get", "head"} <= set(paths[f"{dataset}/files/{{path}}"])
    assert {"get", "delete"} <= set(paths["/v1/uploads/{upload_id}"]) & set(paths[dataset]) & set(paths[job])


def test_every_reference_in_openapi_leads_somewhere(api):
    document = api.get("/openapi.json").json()
    found = []

    def walk(value):
        if isinstance(value, dict):
            found.extend([value["$ref"]] if "$ref" in value else [])
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(document)
    assert "#/components/schemas/Spec" in found
    assert {ref.rpartition("/")[2] for ref in found} <= set(document["components"]["schemas"])
    spec = document["components"]["schemas"]["SkipalignSpec"]
    assert "probability" in spec["properties"]


def test_every_answer_forbids_guessing_types(api):
    for path in ("/healthz", "/nothing", "/v1/jobs", "/docs"):
        assert api.get(path).headers["x-content-type-options"] == "nosniff"


def test_health_and_readiness(api, services):
    assert api.get("/healthz").json() == {"status": "alive"}
    answer = api.get("/readyz")
    reasons = answer.json().pop("reasons")
    whole = {"database": True, "objects": True}
    assert answer.json() == {"status": "degraded", **whole, "runners": 0, "reasons": reasons}
    assert (answer.status_code, len(reasons)) == (200, 1)
    assert "no runner" in reasons[0]
    assert api.get("/v1/jobs").status_code == 200
    services.leases.seen(make_runner(services).id)
    assert api.get("/readyz").json() == {"status": "ready", **whole, "runners": 1, "reasons": []}


def test_not_ready_without_a_database_and_still_alive(api, services, monkeypatch):
    def away():
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(services.leases, "alive", away)
    response = api.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (503, "unavailable")
    assert (response.json()["database"], response.json()["objects"]) == (False, True)
    assert api.get("/healthz").status_code == 200
    assert_problem(api.get("/metrics"), 503, "unavailable")


def test_not_ready_without_objects(api, services):
    services.leases.seen("r")
    shutil.rmtree(services.objects.folder)
    response = api.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (503, "unavailable")
    assert (response.json()["database"], response.json()["objects"]) == (True, False)
    assert ["object store" in reason for reason in response.json()["reasons"]] == [True]


@pytest.mark.parametrize(("part", "method"), [("leases", "alive"), ("objects", "size")])
def test_a_part_that_hangs_is_not_there_and_does_not_hold_the_answer(api, services, monkeypatch, part, method):
    done, asked = threading.Event(), threading.Event()

    def hang(*_):
        asked.set()
        done.wait(60)
        return 1

    monkeypatch.setattr(health, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(type(getattr(services, part)), method, hang)
    try:
        response = api.get("/readyz")
        assert asked.is_set()
        assert not done.is_set()
        assert (response.status_code, response.json()["status"]) == (503, "unavailable")
    finally:
        done.set()


def test_the_api_never_imports_ray(tmp_path):
    program = (
        "import sys; from service.app import create_app; from service.settings import Settings; import service.serving\n"
        f"create_app(Settings.from_environment({{}}, data_dir={str(tmp_path)!r})).openapi()\n"
        "assert 'fastapi' in sys.modules and 'ray' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_uploads_cut_short_by_a_crash_are_swept_at_start(tmp_path):
    settings = settings_in(tmp_path)
    services = Services.open(settings)
    (settings.incoming / "up_1").write_bytes(b"half")
    create_app(settings, services)
    assert list(settings.incoming.iterdir()) == []
    services.close()


def test_two_hosts_are_one_too_many(api):
    headers = [("Host", "127.0.0.1"), ("Host", "localhost")]
    assert_problem(api.get("/v1/jobs", headers=headers), 421, "foreign_host")
