"""Jobs, previews and their bad input over REST."""

from __future__ import annotations

import json

import pytest

from service.routes import jobs as job_routes
from tests.service.support import assert_problem, conversations, make_runner, spec_for, upload

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def source(api):
    return upload(api, conversations(20))["id"]


def pointers(body):
    return {error["pointer"] for error in body["errors"]}


def test_a_job_from_post_to_success(api, services, source):
    response = api.post("/v1/jobs", json=spec_for(source, name="first", shard_rows=10, metadata={"a": "b"}))
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert set(job) == {
        *("id", "kind", "name", "state", "spec", "progress", "dataset_id", "error", "attempt", "priority"),
        *("created_at", "started_at", "finished_at", "metadata"),
    }
    assert (job["state"], job["attempt"], job["dataset_id"], job["metadata"]) == ("queued", 0, None, {"a": "b"})
    assert set(job["progress"]) == {"shards_done", "shards_total", "rows", "tokens", "bytes", "eta_seconds"}
    make_runner(services).run_once()
    done = api.get(f"/v1/jobs/{job['id']}").json()
    assert (done["state"], done["progress"]["shards_done"], done["progress"]["rows"]) == ("succeeded", 2, 20)
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    assert done["created_at"].endswith("Z")
    assert api.get(f"/v1/datasets/{done['dataset_id']}").status_code == 200


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"colour": "red"}, "/colour"),
        ({"probability": 1.5}, "/probability"),
        ({"probability": "0.5"}, "/probability"),
        ({"max_length": -1}, "/max_length"),
        ({"max_length": 4096.5}, "/max_length"),
        ({"seed": True}, "/seed"),
        ({"strategy": "sideways"}, "/strategy"),
        ({"kind": "nonsense"}, "/kind"),
        ({"kind": None}, "/kind"),
        ({"kind": ["skipalign"]}, "/kind"),
        ({"source": {}}, "/source"),
        ({"source": {"upload": "up_0000"}}, "/source/upload"),
        ({"source": {"dataset": "ds_0000"}}, "/source/dataset"),
        ({"source": {"upload": "../../etc/passwd"}}, "/source/upload"),
        ({"source": {"path": "/etc/passwd"}}, "/source/path"),
        ({"source": {"upload": "a", "path": "b"}}, "/source"),
        ({"source": "x"}, "/source"),
        ({"tokenizer": "/etc"}, "/tokenizer"),
        ({"tokenizer": "../x"}, "/tokenizer"),
        ({"tokenizer": "gpt2"}, "/tokenizer"),
        ({"metadata": {"a": 1}}, "/metadata/a"),
        ({"name": "x" * 1000}, "/name"),
    ],
)
def test_bad_specs_name_the_field(api, source, change, pointer):
    spec = {**spec_for(source), **change}
    for address in ("/v1/jobs", "/v1/jobs?validate_only=true", "/v1/previews"):
        response = api.post(address, json=spec)
        code = "invalid_tokenizer" if change.get("tokenizer") == "gpt2" else "invalid_spec"
        body = assert_problem(response, 422, code)
        assert pointer in pointers(body), body
    assert api.get("/v1/jobs").json()["data"] == []
    assert api.get("/healthz").status_code == 200


def test_every_offending_field_is_named_at_once(api):
    spec = {"kind": "skipalign", "source": {"path": "x"}, "colour": 1, "probability": 7, "seed": "one"}
    body = assert_problem(api.post("/v1/jobs", json=spec), 422, "invalid_spec")
    assert {"/colour", "/probability", "/seed"} <= pointers(body)


def test_a_missing_source_is_named(api):
    body = assert_problem(api.post("/v1/jobs", json={"kind": "skipalign"}), 422, "invalid_spec")
    assert "/source" in pointers(body)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"kind": NaN}',
        b'{"kind": "skipalign", "kind": "cip"}',
        b'{"kind": "\\ud800"}',
        b'{"kind": "skipalign", "name": "a\\u0000b"}',
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b"kind: skipalign",
    ],
)
@pytest.mark.parametrize("address", ["/v1/jobs", "/v1/previews"])
def test_bodies_that_are_no_json_object(api, address, data):
    assert_problem(api.post(address, content=data, headers=JSON), 422, "malformed_request")


def test_a_backslash_is_no_nul(api, source):
    assert api.post("/v1/jobs", json=spec_for(source, name="a\\u0000b")).status_code == 202


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "application/yaml", None])
def test_other_media_types_are_refused(api, source, media_type):
    headers = {} if media_type is None else {"Content-Type": media_type}
    response = api.post("/v1/jobs", content=json.dumps(spec_for(source)).encode(), headers=headers)
    assert_problem(response, 415, "unsupported_media_type")


def test_a_body_over_the_limit(api, services):
    body = b'{"kind": "' + b"x" * services.settings.limits.body_bytes + b'"}'
    assert_problem(api.post("/v1/jobs", content=body, headers=JSON), 413, "too_large")

    def chunks():  # with no Content-Length to go by
        for _ in range(20):
            yield b" " * 100_000

    assert_problem(api.post("/v1/jobs", content=chunks(), headers=JSON), 413, "too_large")


@pytest.mark.parametrize(
    "name", ["job_0", "job_", "x", "JOB_1", "ds_1", "job_zz", "job_1'--", "%F0%9F%92%A9", "job_" + "1" * 500]
)
def test_unknown_and_malformed_job_ids_are_404(api, name):
    assert_problem(api.get(f"/v1/jobs/{name}"), 404, "not_found")
    assert_problem(api.get(f"/v1/jobs/{name}/events"), 404, "not_found")
    assert_problem(api.post(f"/v1/jobs/{name}/cancel"), 404, "not_found")
    assert_problem(api.delete(f"/v1/jobs/{name}"), 404, "not_found")


def test_validate_only_estimates_and_makes_no_job(api, source):
    response = api.post("/v1/jobs?validate_only=true", json=spec_for(source, shard_rows=7))
    assert response.status_code == 200
    body = response.json()
    assert (body["valid"], body["kind"], body["shards"], body["sampled"]) == (True, "skipalign", 3, False)
    assert body["rows"] == 20
    assert api.get("/v1/jobs").json()["data"] == []


def test_a_preview_gives_the_datasets_first_rows_at_once(api, services, source):
    spec = spec_for(source, seed=5)
    preview = api.post("/v1/previews?count=2", json=spec).json()
    assert len(preview["rows"]) == 2
    api.post("/v1/jobs", json=spec)
    make_runner(services).run_once()
    dataset = api.get("/v1/jobs").json()["data"][0]["dataset_id"]
    rows = api.get(f"/v1/datasets/{dataset}/rows?limit=2").json()["rows"]
    assert [row["position_ids"] for row in preview["rows"]] == [row["position_ids"] for row in rows]
    assert_problem(api.post("/v1/previews?count=0", json=spec), 422, "invalid_request")


@pytest.mark.parametrize("path", ["/v1/previews", "/v1/jobs?validate_only=true"])
def test_only_so_many_previews_and_estimates_at_once(api, source, monkeypatch, path):
    monkeypatch.setattr(job_routes, "WAIT_SECONDS", 0.01)
    for _ in range(job_routes.AT_ONCE):
        assert job_routes.PLACES.acquire(blocking=False)
    try:
        response = api.post(path, json=spec_for(source))
        assert_problem(response, 429, "busy")
        assert response.headers["retry-after"]
        assert api.post("/v1/jobs", json=spec_for(source)).status_code == 202  # all else is served
    finally:
        for _ in range(job_routes.AT_ONCE):
            job_routes.PLACES.release()
    assert api.post(path, json=spec_for(source)).status_code == 200
    assert api.post(path, json=spec_for(source, strategy="nonsense")).status_code == 422
    assert_problem(api.post(path, json={"kind": "synl", "length": [100]}), 422, "invalid_spec")  # fails at its place
    assert all(job_routes.PLACES.acquire(blocking=False) for _ in range(job_routes.AT_ONCE))  # and gives it back
    for _ in range(job_routes.AT_ONCE):
        job_routes.PLACES.release()


def test_a_preview_of_rows_that_cannot_be_used_says_why(api):
    source = upload(api, b'{"messages": []}\n')["id"]
    body = assert_problem(api.post("/v1/previews", json=spec_for(source)), 422, "bad_row")
    assert "row 1" in body["detail"]


def test_idempotency_keys(api, source):
    spec = spec_for(source)
    headers = {"Idempotency-Key": "k1"}
    first = api.post("/v1/jobs", json=spec, headers=headers)
    again = api.post("/v1/jobs", json=dict(reversed(spec.items())), headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    other = api.post("/v1/jobs", json={**spec, "seed": 1}, headers=headers)
    assert_problem(other, 422, "idempotency_key_reused")
    assert api.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k2"}).json()["id"] != first.json()["id"]
    assert len(api.get("/v1/jobs").json()["data"]) == 2
    too_long = api.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k" * 256})
    assert_problem(too_long, 422, "malformed_request")


def test_a_request_is_replayed_after_its_source_has_gone(api, services, source):
    """Its client may not have heard the answer, and all that the job needed may have been cleared away since."""
    spec, headers = spec_for(source), {"Idempotency-Key": "k1"}
    first = api.post("/v1/jobs", json=spec, headers=headers).json()
    make_runner(services).run_once()
    assert api.delete(f"/v1/uploads/{source}").status_code == 204
    again = api.post("/v1/jobs", json=spec, headers=headers)
    assert (again.status_code, again.json()["id"], again.json()["state"]) == (202, first["id"], "succeeded")
    assert_problem(api.post("/v1/jobs", json={**spec, "seed": 1}, headers=headers), 422, "idempotency_key_reused")
    assert_problem(api.post("/v1/jobs", json=spec), 422, "invalid_spec")
    endless = api.post("/v1/jobs", content='{"kind": "cip", "seed": 1e999}', headers=headers | JSON)
    assert pointers(assert_problem(endless, 422, "invalid_spec")) == {"/seed"}


def test_priorities_decide_what_is_built_first_and_change_nothing_in_it(api, services, source):
    spec = spec_for(source)
    first = api.post("/v1/jobs", json=spec).json()
    urgent = api.post("/v1/jobs?priority=10", json=spec, headers={"Idempotency-Key": "k"}).json()
    assert (first["priority"], urgent["priority"]) == (0, 10)
    again = api.post("/v1/jobs?priority=3", json=spec, headers={"Idempotency-Key": "k"}).json()
    assert (again["id"], again["priority"]) == (urgent["id"], 10)
    runner = make_runner(services)
    assert runner.run_once()
    assert [api.get(f"/v1/jobs/{job['id']}").json()["state"] for job in (first, urgent)] == ["queued", "succeeded"]
    assert runner.run_once()
    one, other = api.get("/v1/datasets").json()["data"]
    assert one["fingerprint"] == other["fingerprint"]


@pytest.mark.parametrize("priority", ["11", "-11", "1.5", "high", ""])
def test_a_priority_that_is_none(api, source, priority):
    body = assert_problem(api.post(f"/v1/jobs?priority={priority}", json=spec_for(source)), 422, "invalid_request")
    assert [error["pointer"] for error in body["errors"]] == ["/priority"]
    assert api.get("/v1/jobs").json()["data"] == []


def test_lists_page_and_filter(api, services, source):
    made = [api.post("/v1/jobs", json=spec_for(source, seed=n)).json()["id"] for n in range(5)]
    api.post(f"/v1/jobs/{made[0]}/cancel")
    seen, after = [], None
    while True:
        page = api.get("/v1/jobs", params={"limit": 2} | ({"after": after} if after else {})).json()
        seen += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            break
        after = page["data"][-1]["id"]
    assert seen == sorted(made, reverse=True)
    assert [job["id"] for job in api.get("/v1/jobs?state=cancelled").json()["data"]] == [made[0]]
    assert len(api.get("/v1/jobs?state=queued&kind=skipalign").json()["data"]) == 4
    assert api.get("/v1/jobs?kind=cip").json() == {"data": [], "has_more": False}


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "state=done", "after=../x", "after="])
def test_bad_list_queries_name_the_parameter(api, query):
    response = api.get(f"/v1/jobs?{query}")
    body = assert_problem(response, 422, "malformed_request" if query.startswith("after") else "invalid_request")
    assert pointers(body) == {"/" + query.partition("=")[0]}


def test_cancel_and_delete(api, services, source):
    job = api.post("/v1/jobs", json=spec_for(source)).json()["id"]
    assert_problem(api.delete(f"/v1/jobs/{job}"), 409, "conflict")
    assert api.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert make_runner(services).run_once() is False
    assert api.delete(f"/v1/jobs/{job}").status_code == 204
    assert_problem(api.get(f"/v1/jobs/{job}"), 404, "not_found")

    done = api.post("/v1/jobs", json=spec_for(source)).json()["id"]
    make_runner(services).run_once()
    assert_problem(api.post(f"/v1/jobs/{done}/cancel"), 409, "conflict")
    dataset = api.get(f"/v1/jobs/{done}").json()["dataset_id"]
    assert api.delete(f"/v1/jobs/{done}").status_code == 204
    assert api.get(f"/v1/datasets/{dataset}").status_code == 200


def test_a_failed_job_says_why_and_the_next_one_goes_on(api, services, source):
    bad = upload(api, conversations(3) + b"not json\n" + conversations(1))["id"]
    failed = api.post("/v1/jobs", json=spec_for(bad)).json()["id"]
    fine = api.post("/v1/jobs", json=spec_for(source)).json()["id"]
    skipping = api.post("/v1/jobs", json=spec_for(bad, on_bad_row="skip")).json()["id"]
    runner = make_runner(services)
    while runner.run_once():
        pass
    job = api.get(f"/v1/jobs/{failed}").json()
    assert (job["state"], job["error"]["code"], job["attempt"], job["dataset_id"]) == ("failed", "bad_row", 1, None)
    assert "row 4" in job["error"]["message"]
    assert api.get(f"/v1/jobs/{fine}").json()["state"] == "succeeded"
    done = api.get(f"/v1/jobs/{skipping}").json()
    assert (done["state"], done["progress"]["rows"]) == ("succeeded", 4)
    skipped = api.get(f"/v1/datasets/{done['dataset_id']}/manifest").json()["skipped_inputs"]
    assert (skipped["count"], skipped["first"][0]["row"]) == (1, 4)


def test_a_full_queue_is_429_with_retry_after(tmp_path):
    from tests.service.support import open_api, settings_in

    services, client = open_api(settings_in(tmp_path, MAX_QUEUED_JOBS="1"))
    with client:
        source = upload(client, conversations(2))["id"]
        assert client.post("/v1/jobs", json=spec_for(source)).status_code == 202
        response = client.post("/v1/jobs", json=spec_for(source))
        assert_problem(response, 429, "queue_full")
        assert int(response.headers["retry-after"]) > 0
    services.close()


def test_what_a_build_warns_of_is_an_event_of_the_job(api, services):
    source = upload(api, conversations(20))
    spec = spec_for(source["id"], max_position=30, strategy="all")
    job = api.post("/v1/jobs", json=spec).json()
    assert make_runner(services).run_once()
    events = api.get(f"/v1/jobs/{job['id']}/events").json()["data"]
    warnings = [event["message"] for event in events if event["level"] == "warn"]
    assert len(warnings) == 1
    assert "max_position (30)" in warnings[0]
