"""POST /v1/datasets/{id}/scores: the same numbers as at the command line, and every bad body a problem."""

from __future__ import annotations

import json

import pytest

from service.routes import scores
from tests.service import needles
from tests.service.support import assert_problem, conversations, make_runner, open_api, settings_in, spec_for, upload

SPEC = needles.FIELDS


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(api, dataset id, its rows, the id of a dataset of another kind)."""
    services, api = open_api(settings_in(tmp_path_factory.mktemp("scores")))
    with api:
        job = api.post("/v1/jobs", json=SPEC).json()
        other = api.post("/v1/jobs", json=spec_for(upload(api, conversations(8))["id"])).json()
        runner = make_runner(services)
        assert runner.run_once()
        assert runner.run_once()
        ids = [api.get(f"/v1/jobs/{j['id']}").json()["dataset_id"] for j in (job, other)]
        rows = []
        while page := api.get(f"/v1/datasets/{ids[0]}/rows?offset={len(rows)}&limit=100").json()["rows"]:
            rows += page
        yield api, ids[0], rows, ids[1]


def post(api, dataset: str, body: bytes, query: str = ""):
    return api.post(
        f"/v1/datasets/{dataset}/scores{query}", content=body, headers={"Content-Type": "application/jsonl"}
    )


def lines(rows, answer=needles.right) -> bytes:
    return b"".join(json.dumps({"id": r["id"], "prediction": answer(r)}).encode() + b"\n" for r in rows)


def test_predictions_become_recall(served):
    api, dataset, rows, _ = served
    assert len(rows) == needles.ROWS
    response = post(api, dataset, lines(rows[1:], lambda r: needles.right(r) if r["length"] == 1024 else ""))
    assert response.status_code == 200, response.text
    report = response.json()
    assert {(c["length"], c["recall"]) for c in report["tasks"]} == {(1024, 1.0), (2048, 0.0)}
    assert report["missing"] == {"count": 1, "first": [rows[0]["id"]]}
    assert sum(sum(errors.values()) for errors in report["errors"].values()) == needles.ROWS // 2
    assert len(report["heat_map"]["data"]["values"]) == len(report["cells"]) == 14


def test_rulers_files_and_thinking_are_understood(served):
    api, dataset, rows, _ = served
    of_ruler = [
        {"index": 0, "pred": needles.right(r), "input": r["input"], "outputs": r["outputs"], "others": {}}
        for r in rows[:3]
    ]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in of_ruler)
    assert {c["recall"] for c in post(api, dataset, body).json()["tasks"]} == {1.0}
    thought = lines(rows[:3], lambda r: f"<think>12?</think>{needles.right(r)}")
    assert {c["recall"] for c in post(api, dataset, thought).json()["tasks"]} == {0.0}
    assert {c["recall"] for c in post(api, dataset, thought, "?without_thinking=true").json()["tasks"]} == {1.0}


@pytest.mark.parametrize(
    ("body", "pointer", "says"),
    [
        (b"", "", "no prediction in the body"),
        (b"\xff\xfe\n", "/1", "line 1: it is not UTF-8 (byte 0)"),
        (b'\n{"id": "x"\n', "/2", "line 2: it is not JSON"),
        (b'{"id": "x", "prediction": "y"}\n', "/1", "1 predictions are for probes that the dataset has not: x"),
        (b'{"prediction": "y"}\n', "/1", "line 1: it names no probe"),
    ],
)
def test_bad_bodies_are_problems(served, body, pointer, says):
    api, dataset, _, _ = served
    problem = assert_problem(post(api, dataset, body), 422, "malformed_request")
    assert says in problem["detail"]
    assert problem["errors"][0]["pointer"] == pointer


def test_bodies_and_lines_are_bounded(served, monkeypatch):
    api, dataset, rows, _ = served
    monkeypatch.setattr(scores, "LONGEST_LINE", 500)
    long = lines(rows[:1]) + lines(rows[1:2], lambda _: "x" * 1000)
    problem = assert_problem(post(api, dataset, long), 422, "malformed_request")
    assert "line 2: it has more than 500 bytes" in problem["detail"]
    monkeypatch.setattr(scores, "LARGEST_BODY", 100)
    assert_problem(post(api, dataset, lines(rows)), 413, "too_large")


def test_other_datasets_have_no_scores(served):
    api, _, _, other = served
    problem = assert_problem(post(api, other, b"{}\n"), 422, "malformed_request")
    assert "only needle probes have scores" in problem["detail"]
    assert_problem(post(api, "ds_0", b"{}\n"), 404, "not_found")
    assert_problem(post(api, "nothing", b"{}\n"), 404, "not_found")


def test_previews_and_estimates_need_no_source(served):
    api, _, _, _ = served
    preview = api.post("/v1/previews", json=SPEC)
    assert preview.status_code == 200, preview.text
    assert preview.json()["rows"][0]["id"] == "passkey-1024-0-0"
    plan = api.post("/v1/jobs?validate_only=true", json=SPEC)
    assert plan.status_code == 200, plan.text
    estimate = plan.json()
    assert (estimate["rows"], estimate["shards"]) == (needles.ROWS, 1)
    whole = sum(row["n_tokens"] for row in served[2])
    assert estimate["tokens"] == pytest.approx(whole, rel=0.02)
    small = api.post("/v1/jobs?validate_only=true", json=SPEC | {"lengths": [512, 4096], "tasks": ["common_words"]})
    problem = assert_problem(small, 422, "invalid_spec")
    assert problem["errors"][0]["pointer"] == "/lengths/0"
    assert "needs at least" in problem["detail"]
    path = api.post("/v1/jobs", json=SPEC | {"haystack": {"path": "/etc"}})
    assert assert_problem(path, 422, "invalid_spec")["errors"][0]["pointer"] == "/haystack/path"
