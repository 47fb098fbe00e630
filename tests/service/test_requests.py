"""What is done with every request: ids, log lines without secrets, metrics, spans, and an answer whatever happens."""

from __future__ import annotations

import json
import logging
import re

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from service.access import Scope
from service.app import create_app
from service.jobs.database import jobs, now
from service.logs import JsonLines
from tests.service.support import BASE, assert_problem, conversations, make_runner, spec_for, upload


@pytest.fixture
def lines():
    """The JSON lines that longweave's loggers write."""
    found: list[dict] = []

    class Kept(logging.Handler):
        def emit(self, record):
            found.append(json.loads(self.format(record)))

    handler = Kept()
    handler.setFormatter(JsonLines())
    log = logging.getLogger("longweave")
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield found
    log.removeHandler(handler)
    log.setLevel(before)


def samples_of(api):
    response = api.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(response.text))
    assert len({family.name for family in families}) == len(families)
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_every_answer_has_an_id_and_a_problem_repeats_it(api):
    names = {api.get(path).headers["x-request-id"] for path in ("/healthz", "/v1/jobs", "/nothing", "/docs")}
    assert len(names) == 4
    for response in (
        api.get("/v1/jobs/job_1", headers={"X-Request-ID": "mine-1.2_3"}),
        api.get("/healthz", headers={"X-Request-ID": "mine-1.2_3", "Host": "evil.example"}),
        api.put("/healthz", headers={"X-Request-ID": "mine-1.2_3"}),
        api.post("/v1/jobs", headers={"X-Request-ID": "mine-1.2_3"}, json={}),
    ):
        assert response.status_code >= 400
        assert (response.headers["x-request-id"], response.json()["request_id"]) == ("mine-1.2_3", "mine-1.2_3")


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, 'a"b', "a\tb", "é".encode(), "../x"])
def test_an_id_that_cannot_stand_in_a_log_is_replaced(api, name):
    assert re.fullmatch(r"[0-9a-f]{16}", api.get("/healthz", headers={"X-Request-ID": name}).headers["x-request-id"])


def test_two_ids_are_none(api):
    response = api.get("/healthz", headers=[("X-Request-ID", "a"), ("X-Request-ID", "b")])
    assert re.fullmatch(r"[0-9a-f]{16}", response.headers["x-request-id"])


def test_a_line_for_each_request(api, lines):
    api.get("/v1/jobs/job_1?x=1", headers={"X-Request-ID": "r1"})
    api.get("/nothing/there")
    api.get("/healthz")
    shown = [{key: line[key] for key in ("method", "route", "status", "key")} for line in lines]
    assert shown == [
        {"method": "GET", "route": "/v1/jobs/{job_id}", "status": 404, "key": "none"},
        {"method": "GET", "route": "none", "status": 404, "key": "none"},
    ]
    assert lines[0]["request"] == "r1"
    assert lines[0]["seconds"] >= 0


def test_lines_hold_no_key_no_spec_and_no_query(api, services, lines):
    key = services.keys.create("k", [Scope.ADMIN])[1].text()
    headers = {"Authorization": f"Bearer {key}"}
    source = api.post("/v1/uploads?name=hidden-name", content=conversations(4), headers=headers)
    spec = spec_for(source.json()["id"], name="hidden-name", metadata={"a": "hidden-value"})
    assert api.post("/v1/jobs?priority=7", json=spec, headers=headers).status_code == 202
    assert api.post("/v1/jobs", json={**spec, "hidden": 1}, headers=headers).status_code == 422
    assert api.get("/v1/jobs", headers={"Authorization": f"Bearer {key[:-1]}_"}).status_code == 401
    assert make_runner(services).run_once()
    assert len(lines) >= 6
    text = json.dumps(lines)
    assert "hidden" not in text
    assert key.rpartition("_")[2] not in text
    assert {line["key"] for line in lines if "key" in line} == {"none", key.split("_")[1]}
    assert {line["job"] for line in lines if line["logger"] == "longweave.runner"} == {services.jobs.list()[0].id}


def test_an_unexpected_error_tells_nothing_and_the_log_tells_all(api, services, monkeypatch, lines):
    def broken(*_, **__):
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(services.jobs, "get", broken)
    response = api.get("/v1/jobs/job_1", headers={"X-Request-ID": "r9"})
    assert assert_problem(response, 500, "internal_error")["request_id"] == "r9"
    assert "secret" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
    failed = [line for line in lines if "traceback" in line]
    assert [(line["request"], line["error"], line["level"]) for line in failed] == [("r9", "RuntimeError", "error")]
    assert "in broken" in failed[0]["traceback"]
    assert (
        samples_of(api)[
            "longweave_http_requests_total", ("method", "GET"), ("route", "/v1/jobs/{job_id}"), ("status", "500")
        ]
        == 1
    )


def test_metrics_count_requests_by_route(api):
    for _ in range(3):
        api.get("/v1/jobs")
    api.get("/v1/jobs/job_1")
    api.get("/v1/jobs/job_2")
    api.get("/made/up")
    api.request("BREW", "/v1/jobs")
    found = samples_of(api)
    count = "longweave_http_requests_total"
    assert found[count, ("method", "GET"), ("route", "/v1/jobs"), ("status", "200")] == 3
    assert found[count, ("method", "GET"), ("route", "/v1/jobs/{job_id}"), ("status", "404")] == 2
    assert found[count, ("method", "GET"), ("route", "none"), ("status", "404")] == 1
    assert not [key for key in found if "made" in str(key) or "BREW" in str(key)]
    seconds = "longweave_http_request_seconds"
    assert found[f"{seconds}_count", ("method", "GET"), ("route", "/v1/jobs")] == 3
    assert found[f"{seconds}_bucket", ("le", "+Inf"), ("method", "GET"), ("route", "/v1/jobs")] == 3
    assert found[f"{seconds}_sum", ("method", "GET"), ("route", "/v1/jobs")] > 0


def test_metrics_tell_what_waits_runs_and_is_there(api, services):
    found = samples_of(api)
    assert found["longweave_jobs", ("state", "queued")] == found[("longweave_runners",)] == 0
    assert ("longweave_runner_heartbeat_age_seconds",) not in found
    source = upload(api, conversations(8))["id"]
    waiting, paused, running = (
        api.post("/v1/jobs", json=spec_for(source), params={"priority": p}).json()["id"] for p in (0, 0, 9)
    )
    assert services.leases.claim("r").job.id == running
    services.leases.seen("r")
    with services.engine.begin() as connection:
        for job, values in (
            (waiting, {"created_at": now() - 100}),
            (paused, {"created_at": now() - 900, "not_before": now() + 900}),
            (running, {"started_at": now() - 500}),
        ):
            connection.execute(update(jobs).where(jobs.c.id == job).values(values))
    found = samples_of(api)
    assert (found["longweave_jobs", ("state", "queued")], found["longweave_jobs", ("state", "running")]) == (2, 1)
    assert 100 <= found[("longweave_queue_wait_seconds",)] < 500 <= found[("longweave_claim_age_seconds",)] < 900
    assert 0 <= found[("longweave_runner_heartbeat_age_seconds",)] < 100
    assert found[("longweave_uploads",)] == found[("longweave_runners",)] == 1


def test_metrics_tell_how_much_is_built(built):
    api, _, job = built
    found = samples_of(api)
    progress = job["progress"]
    for name in ("rows", "tokens", "bytes"):
        assert found[(f"longweave_dataset_{name}",)] == progress[name] > 0
    assert found[("longweave_dataset_files",)] == 3
    kind = ("kind", "skipalign")
    assert (
        found["longweave_shard_seconds_count", kind]
        == found["longweave_shard_seconds_bucket", kind, ("le", "+Inf")]
        == 3
    )
    assert found["longweave_shard_seconds_sum", kind] > 0
    assert found["longweave_shard_tokens_total", kind] == progress["tokens"]


def test_spans_and_metrics_go_where_opentelemetry_is_set_up(services):
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer = TracerProvider(shutdown_on_exit=False)
    tracer.add_span_processor(SimpleSpanProcessor(spans))
    meter = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    app = create_app(services.settings, services, telemetry={"tracer_provider": tracer, "meter_provider": meter})
    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as api:
        api.get(
            "/v1/jobs/job_1", headers={"Authorization": "Bearer lw_none", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        )
    found = {span.name: span for span in spans.get_finished_spans()}
    root = found["GET /v1/jobs/{job_id}"]
    assert root.attributes["http.response.status_code"] == 404
    assert format(root.context.trace_id, "032x") == "a" * 32
    assert "lw_none" not in "".join(span.to_json() for span in found.values())
    assert "http.server.request.duration" in reader.get_metrics_data().to_json()
    tracer.shutdown()
    meter.shutdown()


def test_what_clients_send_does_not_leave_in_opentelemetrys_logs(services):
    kept = InMemoryLogRecordExporter()
    logger = LoggerProvider(shutdown_on_exit=False)
    logger.add_log_record_processor(SimpleLogRecordProcessor(kept))
    app = create_app(services.settings, services, telemetry={"logger_provider": logger})
    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as api:
        assert api.get("/v1/jobs?limit=hidden").status_code == 422
    assert kept.get_finished_logs() == ()
    logger.shutdown()


def test_opentelemetry_is_off_unless_it_is_set_up(api):
    from opentelemetry import trace

    assert api.get("/healthz").status_code == 200
    assert type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider"
