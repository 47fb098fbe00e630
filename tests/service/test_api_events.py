"""The event log as pages and as a stream."""

from __future__ import annotations

import json
import threading

import pytest
from sqlalchemy.exc import OperationalError

from service.jobs.store import JobStore
from tests.service.support import assert_problem, conversations, make_runner, spec_for, upload

STREAM = {"Accept": "text/event-stream"}


def parse(text):
    """The events of an SSE body, as a browser reads them."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if "data" in fields:
            found.append(fields)
    return found


@pytest.fixture
def events(built):
    api, _, job = built
    return api, f"/v1/jobs/{job['id']}/events"


def test_a_page_tells_the_story(built, events):
    api, address = events
    page = api.get(address).json()
    states = [event["data"]["state"] for event in page["data"] if event["type"] == "state"]
    assert states == ["queued", "running", "succeeded"]
    assert page["has_more"] is False
    last = [event for event in page["data"] if event["type"] == "progress"][-1]
    assert (last["data"]["shards_done"], last["data"]["rows"]) == (3, 120)
    assert page["data"][-1]["data"]["dataset_id"] == built[2]["dataset_id"]
    assert set(last) == {"id", "job_id", "type", "level", "message", "data", "created_at"}


def test_pages_follow_each_other(events):
    api, address = events
    whole = api.get(address).json()["data"]
    seen, after = [], 0
    while True:
        page = api.get(f"{address}?after={after}&limit=2").json()
        seen += page["data"]
        if not page["has_more"]:
            break
        after = page["data"][-1]["id"]
    assert seen == whole
    assert len(whole) > 3


def test_a_stream_tells_the_same_and_ends_with_the_job(events):
    api, address = events
    response = api.get(address, headers=STREAM)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    told = parse(response.text)
    whole = api.get(address).json()["data"]
    assert [json.loads(event["data"]) for event in told] == whole
    assert [event["id"] for event in told] == [str(event["id"]) for event in whole]
    assert [event["event"] for event in told] == [event["type"] for event in whole]
    assert "retry: 1000" in response.text


def test_a_stream_resumes_behind_the_last_event_seen(events):
    api, address = events
    whole = api.get(address).json()["data"]
    for number, event in enumerate(whole):
        headers = {**STREAM, "Last-Event-ID": str(event["id"])}
        told = parse(api.get(address, headers=headers).text)
        assert [json.loads(t["data"])["id"] for t in told] == [e["id"] for e in whole[number + 1 :]]


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "٣", "9" * 30])
def test_a_last_event_id_that_is_none(events, value):
    api, address = events
    headers = {**STREAM, "Last-Event-ID": value.encode()}
    assert_problem(api.get(address, headers=headers), 422, "malformed_request")


@pytest.mark.parametrize("query", ["after=-1", "limit=0", "limit=101", "after=x", f"after={2**63}"])
def test_bad_queries(events, query):
    api, address = events
    assert_problem(api.get(f"{address}?{query}"), 422, "invalid_request")


def test_a_stream_waits_for_what_comes(api, services):
    source = upload(api, conversations(5))["id"]
    job = api.post("/v1/jobs", json=spec_for(source)).json()["id"]
    timer = threading.Timer(0.5, lambda: api.post(f"/v1/jobs/{job}/cancel"))
    timer.start()
    told = parse(api.get(f"/v1/jobs/{job}/events", headers=STREAM).text)
    timer.join()
    assert [json.loads(event["data"])["data"]["state"] for event in told] == ["queued", "cancelled"]


def test_a_stream_says_goodbye_when_the_server_stops(api, services):
    source = upload(api, conversations(5))["id"]
    job = api.post("/v1/jobs", json=spec_for(source)).json()["id"]
    timer = threading.Timer(0.4, services.stopping.set)
    timer.start()
    told = parse(api.get(f"/v1/jobs/{job}/events", headers=STREAM).text)
    timer.join()
    assert [event["event"] for event in told] == ["state", "bye"]
    assert "id" not in told[-1]


def test_a_stream_says_goodbye_when_the_database_goes_away(api, services, monkeypatch, caplog):
    source = upload(api, conversations(5))["id"]
    job = api.post("/v1/jobs", json=spec_for(source)).json()["id"]
    real, asked = JobStore.get, []

    def get(store, job_id):
        asked.append(job_id)
        if len(asked) > 2:  # the request itself, and the stream's first look
            raise OperationalError("SELECT", {}, Exception("server closed the connection unexpectedly"))
        return real(store, job_id)

    monkeypatch.setattr(JobStore, "get", get)
    told = parse(api.get(f"/v1/jobs/{job}/events", headers=STREAM).text)
    assert [event["event"] for event in told] == ["state", "bye"]
    assert "the database cannot be reached" in told[-1]["data"]
    assert "Traceback" not in caplog.text


def test_a_stream_of_a_job_that_is_deleted_ends(api, services):
    source = upload(api, conversations(5))["id"]
    job = api.post("/v1/jobs", json=spec_for(source)).json()["id"]

    def forget():
        services.jobs.cancel(job)
        services.jobs.delete(job)

    timer = threading.Timer(0.4, forget)
    timer.start()
    told = parse(api.get(f"/v1/jobs/{job}/events", headers=STREAM).text)
    timer.join()
    assert told[0]["event"] == "state"


def test_the_first_runner_line_of_a_silent_stream_is_a_comment(events):
    api, address = events
    assert api.get(address, headers=STREAM).text.startswith(": events of job_")


def test_a_running_job_reports_progress_while_it_runs(api, services):
    source = upload(api, conversations(60))["id"]
    job = api.post("/v1/jobs", json=spec_for(source, shard_rows=20)).json()["id"]
    worker = threading.Thread(target=make_runner(services).run_once)
    worker.start()
    told = parse(api.get(f"/v1/jobs/{job}/events", headers=STREAM).text)
    worker.join()
    assert [event["event"] for event in told][:2] == ["state", "state"]
    assert "progress" in {event["event"] for event in told}
    assert json.loads(told[-1]["data"])["data"]["state"] == "succeeded"
