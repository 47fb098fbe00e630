"""Every route of the OpenAPI document against every kind of caller: a route that is new and not in the matrix fails here."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import pytest
from fastapi.testclient import TestClient

from service.access import Caller, Scope
from service.app import create_app
from service.door import FOR_ADMINS, OPEN
from service.services import Services
from tests.service.support import BASE, assert_problem, conversations, make_runner, open_api, settings_in, spec_for

JSONL = {"Content-Type": "application/jsonl"}
OTHERS = "ds_0123456789abcdef", "job_0123456789abcdef", "up_0123456789abcdef", "tok_0123456789abcdef"

MATRIX = {
    # What the owner gets: an address that is missing here has nobody's word that it is guarded.
    ("POST", "/v1/uploads"): 201,
    ("GET", "/v1/uploads/{upload_id}"): 200,
    ("HEAD", "/v1/uploads/{upload_id}"): 200,
    ("PATCH", "/v1/uploads/{upload_id}"): 409,  # it is complete
    ("DELETE", "/v1/uploads/{upload_id}"): 204,
    ("POST", "/v1/tokenizers"): 422,  # the body is no tokenizer
    ("GET", "/v1/tokenizers"): 200,
    ("GET", "/v1/tokenizers/{tokenizer}"): 200,
    ("DELETE", "/v1/tokenizers/{tokenizer}"): 204,
    ("POST", "/v1/jobs"): 202,
    ("GET", "/v1/jobs"): 200,
    ("GET", "/v1/jobs/{job_id}"): 200,
    ("DELETE", "/v1/jobs/{job_id}"): 204,
    ("POST", "/v1/jobs/{job_id}/cancel"): 409,  # it has succeeded
    ("GET", "/v1/jobs/{job_id}/events"): 200,
    ("POST", "/v1/previews"): 200,
    ("GET", "/v1/datasets"): 200,
    ("GET", "/v1/datasets/{dataset_id}"): 200,
    ("DELETE", "/v1/datasets/{dataset_id}"): 204,
    ("GET", "/v1/datasets/{dataset_id}/manifest"): 200,
    ("GET", "/v1/datasets/{dataset_id}/parquet"): 200,
    ("GET", "/v1/datasets/{dataset_id}/rows"): 200,
    ("GET", "/v1/datasets/{dataset_id}/statistics"): 200,
    ("GET", "/v1/datasets/{dataset_id}/size"): 200,
    ("GET", "/v1/datasets/{dataset_id}/croissant"): 200,
    ("POST", "/v1/datasets/{dataset_id}/scores"): 422,  # they are no needle probes
    ("GET", "/v1/datasets/{dataset_id}/files/{path}"): 200,
    ("HEAD", "/v1/datasets/{dataset_id}/files/{path}"): 200,
}
READING = [key for key in MATRIX if key[0] in ("GET", "HEAD")]
WRITING = sorted((key for key in MATRIX if key not in READING), key=lambda key: key[0] == "DELETE")
WITH_IDS = [key for key in [*READING, *WRITING] if "{" in key[1]]


@dataclass
class World:
    """A service with keys, and one owner's upload, job and dataset."""

    api: TestClient
    services: Services
    keys: dict[str, str]
    ids: dict[str, str]

    def call(self, method, template, *, key=None, ids=None, **options):
        """A request at an address, as complete as its owner would make it."""
        names = self.ids | {"path": "README.md"} | (ids or {})
        path = template.format(**names)
        headers = {"X-Request-ID": "same"}  # answers are compared to the letter
        headers |= {"Authorization": f"Bearer {self.keys.get(key, key)}"} if key is not None else {}
        if (method, template) in {("POST", "/v1/jobs"), ("POST", "/v1/previews")}:
            options |= {"json": spec_for(names["upload_id"])}
        elif method == "POST" and not template.endswith("/cancel"):
            options |= {"content": conversations(2)}
            headers |= JSONL
        elif method == "PATCH":
            options |= {"content": b"x"}
            headers |= {"Content-Type": "application/partial-upload", "Upload-Offset": "0", "Upload-Complete": "?0"}
        return self.api.request(method, path, headers=headers | options.pop("headers", {}), **options)


@pytest.fixture
def world(tmp_path):
    services, api = open_api(settings_in(tmp_path))
    keys = {}
    for name, scope, of in (
        ("owner", Scope.WRITE, None),
        ("reader", Scope.READ, "owner"),
        ("revoked", Scope.ADMIN, "owner"),
        ("other", Scope.WRITE, None),
        ("admin", Scope.ADMIN, None),
    ):
        made, text = services.keys.create(name, [scope], of=keys[of].split("_")[1] if of else None)
        keys[name] = text.text()
        if name == "revoked":
            services.keys.revoke(made.id)
    with api:
        made = World(api, services, keys, {})
        ids = made.ids
        ids["upload_id"] = made.call("POST", "/v1/uploads", key="owner").json()["id"]
        ids["job_id"] = made.call("POST", "/v1/jobs", key="owner").json()["id"]
        assert make_runner(services).run_once()
        ids["dataset_id"] = made.call("GET", "/v1/jobs/{job_id}", key="owner").json()["dataset_id"]
        assert ids["dataset_id"]
        owner = services.catalog.seen_by(Caller(keys["owner"].split("_")[1], frozenset()))
        told = {"digest": "d", "sha256": "s", "vocab_size": 1, "chat_template": False, "files": {}, "bytes": 1}
        ids["tokenizer"] = owner.tokenizers.add(owner.tokenizers.new_id(), "mine", told).id
        yield made
    services.close()


def wrong_keys(keys):
    """Everything that is sent for a key and opens nothing."""
    id_, secret = keys["owner"][3:15], keys["owner"][16:]
    return {
        "revoked": keys["revoked"],
        "another's secret": f"lw_{id_}_{keys['other'][16:]}",
        "one letter changed": keys["owner"][:-2] + ("A" if secret[-2] != "A" else "B") + secret[-1],
        "unknown id": f"lw_{'0' * 12}_{secret}",
        "no secret": f"lw_{id_}_",
        "no key": "hello",
        "empty": "",
        "case": keys["owner"].upper(),
        "spaces": keys["owner"].replace("_", " "),
    }


def test_the_matrix_has_every_route_of_the_service(world):
    document = world.api.get("/openapi.json").json()
    routes = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert len(routes) > 20
    assert routes == {*MATRIX, *(("GET", path) for path in {"/healthz", "/readyz", "/metrics"})}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert ("security" in operation) is (path not in OPEN)
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_without_a_key_nothing_but_the_open_addresses_answers(world):
    for path in OPEN:
        assert world.api.get(path).status_code == 200, path
    refused = 0
    for method, template in [*MATRIX, ("GET", "/metrics"), ("PUT", "/v1/jobs"), ("GET", "/v1/nothing"), ("GET", "/x")]:
        response = world.call(method, template)
        assert response.status_code == 401, template
        assert response.headers["www-authenticate"] == 'Bearer realm="longweave"'
        refused += 1
        if method != "HEAD":
            assert_problem(response, 401, "key_needed")
    assert refused == len(MATRIX) + 4


@pytest.mark.parametrize(
    "path",
    ["//healthz", "/healthz/", "/healthz/../v1/jobs", "/docs/x", "/healthz;x", "/Healthz", "/%68ealthz", "", "*"],
)
def test_only_the_very_words_of_an_open_address_are_open(world, path):
    # By hand: clients tidy addresses up before they send them.
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1")],
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(world.api.app(scope, receive, send))
    assert sent[0]["status"] == 401


def test_keys_that_do_not_open_are_refused_in_the_same_words(world, caplog):
    caplog.set_level(logging.DEBUG)
    answers = set()
    sent = wrong_keys(world.keys)
    for key in sent.values():
        for method, template in [*MATRIX, ("GET", "/metrics")]:
            response = world.call(method, template, key=key)
            assert response.status_code == 401, (template, key)
            if method != "HEAD":
                answers.add(response.text)
    assert len(answers) == 1
    assert len(sent) == 9
    for scheme in ("Basic", "bearer2", ""):
        header = {"Authorization": f"{scheme} {world.keys['owner']}"}
        assert world.api.get("/v1/jobs", headers=header).status_code == 401
    twice = [("Authorization", f"Bearer {world.keys[name]}") for name in ("owner", "admin")]
    assert world.api.get("/v1/jobs", headers=twice).status_code == 401
    for secret in {key[16:] for key in [*sent.values(), *world.keys.values()] if len(key) > 30}:
        assert secret not in caplog.text + "".join(answers)
    assert all(world.call(*key, key="owner").status_code == 200 for key in READING)


def test_the_word_bearer_is_read_in_any_case(world):
    header = {"Authorization": f"bEARER {world.keys['owner']}"}
    assert world.api.get("/v1/jobs", headers=header).status_code == 200


def test_a_key_that_reads_reads_and_changes_nothing(world):
    for method, template in READING:
        assert world.call(method, template, key="reader").status_code == MATRIX[method, template], template
    for method, template in [*WRITING, ("PUT", "/v1/jobs"), ("OPTIONS", "/v1/jobs")]:
        response = world.call(method, template, key="reader")
        assert_problem(response, 403, "missing_scope")
        assert 'scope="write"' in response.headers["www-authenticate"]
    assert len(WRITING) == 11
    assert all(world.call(*key, key="owner").status_code == 200 for key in READING)


def test_what_belongs_to_another_is_not_there(world):
    unknown = dict(zip(("dataset_id", "job_id", "upload_id", "tokenizer"), OTHERS, strict=True))
    assert len(WITH_IDS) > 15
    for method, template in WITH_IDS:
        seen = world.call(method, template, key="other")
        never = world.call(method, template, key="other", ids=unknown)
        assert seen.status_code == never.status_code == 404, template
        if method == "HEAD":
            continue
        text = never.text
        for name, value in unknown.items():
            text = text.replace(value, world.ids[name])
        assert seen.text == text, template
    for listing in ("/v1/jobs", "/v1/datasets"):
        assert world.call("GET", listing, key="other").json() == {"data": [], "has_more": False}
        cursor = {"params": {"after": f"{'job' if 'jobs' in listing else 'ds'}_{'f' * 30}"}}
        assert world.call("GET", listing, key="other", **cursor).json()["data"] == []
        assert len(world.call("GET", listing, key="owner", **cursor).json()["data"]) == 1
    events = {"headers": {"Accept": "text/event-stream"}}
    assert world.call("GET", "/v1/jobs/{job_id}/events", key="other", **events).status_code == 404
    assert all(world.call(*key, key="owner").status_code == 200 for key in READING)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs?validate_only=true", "/v1/previews"])
def test_what_belongs_to_another_is_no_source(world, path):
    header = {"Authorization": f"Bearer {world.keys['other']}"}
    for kind, id_ in (("upload", world.ids["upload_id"]), ("dataset", world.ids["dataset_id"])):
        whole = {"kind": "mixture", "total": 1000, "max_length": 4096}
        alone = {"kind": "skipalign", "strategy": "outer", "source": {kind: id_}}
        specs = [
            alone,
            whole | {"parts": [{"name": "a", "source": {kind: id_}, "weight": 1}]},
            whole | {"parts": [{"name": "a", "spec": alone, "weight": 1}]},
        ]
        for spec in specs:
            response = world.api.post(path, json=spec, headers=header)
            errors = assert_problem(response, 422, "invalid_spec")["errors"]
            assert [error["pointer"].endswith(f"/source/{kind}") for error in errors] == [True]
            assert "there is no" in errors[0]["message"]
            mine = world.api.post("/v1/previews", json=spec, headers={"Authorization": f"Bearer {world.keys['owner']}"})
            assert "there is no" not in mine.text


@pytest.mark.parametrize("who", ["owner", "admin"])
def test_the_owner_and_admins_reach_everything(world, who):
    for method, template in [*READING, *WRITING]:
        response = world.call(method, template, key=who)
        assert response.status_code == MATRIX[method, template], (method, template, response.text)
        if (method, template) == ("POST", "/v1/jobs"):
            world.api.post(
                f"/v1/jobs/{response.json()['id']}/cancel", headers={"Authorization": f"Bearer {world.keys[who]}"}
            )
    for method, template in READING:
        expected = 404 if "{" in template else 200
        assert world.call(method, template, key=who).status_code == expected


def test_only_admins_see_what_counts_over_all_owners(world):
    assert {"/metrics"} == FOR_ADMINS
    for who in ("owner", "reader", "other"):
        assert_problem(world.call("GET", "/metrics", key=who), 403, "missing_scope")
    assert world.call("GET", "/metrics", key="admin").status_code == 200


def test_an_upload_that_an_admins_job_reads_is_kept_without_a_word_about_whose(world):
    job = world.call("POST", "/v1/jobs", key="admin").json()
    response = world.call("DELETE", "/v1/uploads/{upload_id}", key="owner")
    body = assert_problem(response, 409, "conflict")
    assert job["id"] not in response.text
    assert "another owner" in body["detail"]


def test_a_dataset_belongs_to_whose_job_made_it(world):
    job = world.call("POST", "/v1/jobs", key="admin").json()
    assert make_runner(world.services).run_once()
    dataset = world.services.jobs.get(job["id"]).dataset_id
    assert world.call("GET", "/v1/datasets/{dataset_id}", key="admin", ids={"dataset_id": dataset}).status_code == 200
    assert world.call("GET", "/v1/datasets/{dataset_id}", key="owner", ids={"dataset_id": dataset}).status_code == 404


def test_what_was_made_before_the_first_key_is_the_admins(tmp_path):
    services, api = open_api(settings_in(tmp_path))
    with api:
        upload = api.post("/v1/uploads", content=conversations(3), headers=JSONL).json()
        keys = {scope: services.keys.create("k", [scope])[1].text() for scope in (Scope.WRITE, Scope.ADMIN)}
        for scope, status in ((Scope.WRITE, 404), (Scope.ADMIN, 200)):
            header = {"Authorization": f"Bearer {keys[scope]}"}
            assert api.get(f"/v1/uploads/{upload['id']}", headers=header).status_code == status
        assert api.get(f"/v1/uploads/{upload['id']}").status_code == 401
    services.close()


def test_revoking_the_last_key_does_not_open_the_service(tmp_path):
    services, api = open_api(settings_in(tmp_path))
    with api:
        assert api.get("/v1/jobs").status_code == 200
        assert api.get("/v1/jobs", headers={"Authorization": "Bearer x"}).status_code == 200
        made, key = services.keys.create("only", [Scope.READ])
        header = {"Authorization": f"Bearer {key.text()}"}
        assert api.get("/v1/jobs", headers=header).status_code == 200
        services.keys.revoke(made.id)
        assert api.get("/v1/jobs", headers=header).status_code == 401
        assert api.get("/v1/jobs").status_code == 401
    services.close()


def test_where_others_can_reach_it_nothing_is_open_without_keys(tmp_path):
    settings = settings_in(tmp_path)
    services = Services.open(settings)
    with TestClient(create_app(settings, services, keys_only=True), base_url=BASE) as api:
        assert api.get("/healthz").status_code == 200
        assert api.get("/v1/jobs").status_code == 401
        _, key = services.keys.create("k", [Scope.READ])
        assert api.get("/v1/jobs", headers={"Authorization": f"Bearer {key.text()}"}).status_code == 200
    services.close()


def test_foreign_hosts_and_origins_are_refused_before_keys_are_looked_at(world):
    header = {"Authorization": f"Bearer {world.keys['admin']}"}
    assert_problem(world.api.get("/v1/jobs", headers=header | {"Host": "evil.example"}), 421, "foreign_host")
    assert_problem(world.api.get("/v1/jobs", headers=header | {"Origin": "http://evil.example"}), 403, "foreign_origin")
