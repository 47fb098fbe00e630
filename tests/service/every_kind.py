"""A small job of every kind, over REST: what the same service must make on any store and database."""

from __future__ import annotations

import json

from service.kinds import KINDS
from tests.service.support import conversations


def documents(count=12):
    words = [
        "the",
        "river",
        "runs",
        "past",
        "an",
        "engine",
        "house",
        "and",
        "1,024",
        "sensors",
        "report",
        "on",
        "it",
        "all",
        "night",
        "long",
    ]
    texts = [" ".join(words[(number + step) % len(words)] for step in range(180)) for number in range(count)]
    return "".join(json.dumps({"id": f"d{n}", "text": f"{n}. {text}"}) + "\n" for n, text in enumerate(texts)).encode()


def post(http, data):
    response = http.post("/v1/uploads", content=data, headers={"Content-Type": "application/jsonl"})
    assert response.status_code == 201, response.text
    return response.json()["id"]


def specs(http):
    """A spec of every kind, by kind; their sources are uploaded. The last is of datasets and is completed by `mixture_of`."""
    talks, texts = post(http, conversations(40)), post(http, documents())
    return {
        "skipalign": {"strategy": "outer", "shard_rows": 15, "source": {"upload": talks}},
        "cip": {"source": {"upload": texts}, "sequence_length": 512, "chunks": 2},
        "synl": {"samples": 3, "length": [2048]},
        "needle": {"lengths": [2048], "depths": 1, "repeats": 1, "license": "CC0-1.0"},
    }


def mixture_of(datasets):
    """A spec of a mixture of committed datasets: two by id, and a cip built with it."""
    return {
        "parts": [
            {"name": "talks", "weight": 0.5, "source": {"dataset": datasets["skipalign"]}},
            {"name": "texts", "weight": 0.5, "source": {"dataset": datasets["cip"]}},
        ],
        "unit": "tokens",
        "total": 4000,
        "max_epochs": 50,
        "max_length": 1024,
    }


def build_every_kind(http, work):
    """Submit a job of every kind and have `work(job_id)` see it to its end; returns the ids of the datasets by kind."""
    made = {}
    for kind, fields in [*specs(http).items(), ("mixture", None)]:
        spec = {"kind": kind, "name": kind, **(fields if fields is not None else mixture_of(made))}
        response = http.post("/v1/jobs", json=spec)
        assert response.status_code == 202, response.text
        work(response.json()["id"])
        job = http.get(f"/v1/jobs/{response.json()['id']}").json()
        assert job["state"] == "succeeded", job
        made[kind] = job["dataset_id"]
    assert set(made) == set(KINDS)
    return made


def digests(http, datasets):
    """(path, sha256) of every file of the datasets, by kind."""
    return {
        kind: [(f["path"], f["sha256"]) for f in http.get(f"/v1/datasets/{ident}/manifest").json()["files"]]
        for kind, ident in datasets.items()
    }
