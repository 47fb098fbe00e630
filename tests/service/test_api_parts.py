"""Datasets as sources of other datasets, and specs with parts, over REST."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.service.support import assert_problem, conversations, make_runner, upload

WORDS = [
    "rivers",
    "engines",
    "and",
    "sensors",
    "report",
    "on",
    "long",
    "days",
    "of",
    "quiet",
    "work",
    "in",
    "the",
    "city",
]


def texts(count):
    draws = np.random.default_rng(0)
    lines = [
        json.dumps({"id": f"d{i}", "text": " ".join(draws.choice(WORDS, size=int(draws.integers(5, 300))))})
        for i in range(count)
    ]
    return ("\n".join(lines) + "\n").encode()


def build(api, services, spec):
    job = api.post("/v1/jobs", json=spec)
    assert job.status_code == 202, job.text
    assert make_runner(services).run_once()
    return api.get(f"/v1/jobs/{job.json()['id']}").json()


def rows(api, dataset):
    found = []
    for file in api.get(f"/v1/datasets/{dataset}/parquet").json()["parquet_files"]:
        data = api.get(f"/v1/datasets/{dataset}/files/{file['path']}").content
        found += pq.read_table(io.BytesIO(data)).to_pylist()
    return found


@pytest.fixture
def parts(api, services):
    """(talk upload, corpus upload, a cip dataset of it)."""
    talk, corpus = upload(api, conversations(60))["id"], upload(api, texts(60))["id"]
    spec = {"kind": "cip", "source": {"upload": corpus}, "sequence_length": 128, "shard_rows": 9}
    job = build(api, services, spec)
    assert job["state"] == "succeeded", job
    return talk, corpus, job["dataset_id"]


def test_a_dataset_is_a_source_of_the_same_rows_as_its_spec_in_place(api, services, parts):
    talk, corpus, chunks = parts
    part = {"name": "talk", "source": {"upload": talk}, "weight": 1}
    by_id = {"name": "docs", "source": {"dataset": chunks}, "weight": 3}
    spec = {"kind": "cip", "source": {"upload": corpus}, "sequence_length": 128, "shard_rows": 9}
    inline = {"name": "docs", "spec": spec, "weight": 3}
    made = [build(api, services, {"kind": "mixture", "parts": [part, one], "total": 3000}) for one in (by_id, inline)]
    assert [job["state"] for job in made] == ["succeeded"] * 2, made
    one, two = (rows(api, job["dataset_id"]) for job in made)
    assert one == two
    assert {row["part"] for row in one} == {"talk", "docs"}
    manifest = api.get(f"/v1/datasets/{made[1]['dataset_id']}/manifest").json()
    assert [i["field"] for i in manifest["inputs"]] == ["/parts/0/source", "/parts/1/spec/source"]
    assert manifest["counts"]["part_docs_tokens"] > 2000
    assert not services.objects.list(f"work/{made[1]['id']}"), "what parts left is cleared"


def test_positions_of_a_dataset_of_chunks_are_stretched(api, services, parts):
    spec = {
        "kind": "skipalign",
        "source": {"dataset": parts[2]},
        "strategy": "pose",
        "max_position": 100_000,
        "probability": 1.0,
    }
    job = build(api, services, spec)
    assert job["state"] == "succeeded", job
    chunks = {tuple(row["input_ids"]) for row in rows(api, parts[2])}
    found = rows(api, job["dataset_id"])
    assert {tuple(row["input_ids"]) for row in found} == chunks
    assert max(row["position_ids"][-1] for row in found) > 50_000


def test_a_dataset_in_use_stays(api, services, parts):
    source = {"kind": "cip", "source": {"dataset": parts[2]}, "sequence_length": 64}
    job = api.post(
        "/v1/jobs", json={"kind": "mixture", "parts": [{"name": "a", "spec": source, "weight": 1}], "total": 100}
    ).json()
    assert_problem(api.delete(f"/v1/datasets/{parts[2]}"), 409, "conflict")
    assert make_runner(services).run_once()
    assert api.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"
    assert api.delete(f"/v1/datasets/{parts[2]}").status_code == 204


@pytest.mark.parametrize(
    ("source", "pointer", "words"),
    [
        ({"dataset": "ds_0"}, "/parts/0/source/dataset", "there is no dataset"),
        ({"upload": "up_0"}, "/parts/0/source/upload", "there is no upload"),
        ({"path": "/etc/passwd"}, "/parts/0/source/path", "a path means nothing"),
    ],
)
def test_every_source_that_is_not_there_is_named(api, source, pointer, words):
    bad = {"name": "a", "source": source, "weight": 1}
    inner = {"kind": "cip", "source": source}
    body = assert_problem(
        api.post("/v1/jobs", json={"kind": "mixture", "parts": [bad, {"name": "b", "spec": inner, "weight": 1}]}),
        422,
        "invalid_spec",
    )
    found = {e["pointer"]: e["message"] for e in body["errors"]}
    assert words in found[pointer]
    assert words in found[pointer.replace("/parts/0/source", "/parts/1/spec/source")]


def test_a_split_that_is_not_there_is_named(api, parts):
    source = {"dataset": parts[2], "split": "test"}
    body = assert_problem(api.post("/v1/jobs", json={"kind": "cip", "source": source}), 422, "invalid_spec")
    assert body["errors"][0]["pointer"] == "/source/split"
    assert "it has train" in body["errors"][0]["message"]


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({"kind": "synl", "length": [64]}, "/length/0"),
        ({"kind": "synl", "length": {"min": 100, "max": 8000}}, "/length/min"),
        ({"kind": "needle", "lengths": [4096, 512], "tasks": ["common_words"]}, "/lengths/1"),
    ],
)
def test_a_length_that_is_too_small_is_refused_before_a_job_is_made(api, spec, pointer):
    body = assert_problem(api.post("/v1/jobs", json=spec), 422, "invalid_spec")
    assert [e["pointer"] for e in body["errors"]] == [pointer]
    assert api.get("/v1/jobs").json()["data"] == []


def test_previews_and_estimates_of_parts(api, services, parts):
    talk, corpus, chunks = parts
    spec = {
        "kind": "mixture",
        "parts": [
            {"name": "talk", "source": {"upload": talk}, "weight": 1},
            {
                "name": "docs",
                "spec": {"kind": "cip", "source": {"upload": corpus}, "sequence_length": 128},
                "weight": 1,
            },
        ],
        "total": 3000,
    }
    shown = api.post("/v1/previews?count=20", json=spec).json()["rows"]
    assert {row["part"] for row in shown} == {"talk", "docs"}
    assert all(row["reading"] for row in shown)
    guess = api.post("/v1/jobs?validate_only=true", json=spec).json()
    assert guess["valid"]
    assert guess["sampled"]
    assert guess["tokens"] == 3000
    preview = api.post(
        "/v1/previews", json={"kind": "cip", "source": {"upload": corpus}, "sequence_length": 128}
    ).json()
    first = rows(api, chunks)[0]
    assert preview["rows"][0]["input_ids"] == first["input_ids"], "a source under 2 MB: the very first rows"
    assert [r["document"] for r in preview["rows"][0]["reading"]] == [s["document"] for s in first["segments"]]
    again = api.post("/v1/previews", json={"kind": "cip", "source": {"dataset": chunks}, "sequence_length": 64})
    assert again.status_code == 200, again.text
