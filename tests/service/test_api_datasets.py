"""Datasets over REST: what there is, what is in them, and the end of them."""

from __future__ import annotations

import hashlib
import io
import json

import pyarrow.parquet as pq
import pytest

from tests.service.support import BASE, assert_problem, conversations, make_runner, spec_for, upload


@pytest.fixture
def dataset(built):
    return f"/v1/datasets/{built[2]['dataset_id']}"


@pytest.fixture
def got(built):
    return built[0].get


def all_rows(got, dataset):
    files = got(f"{dataset}/parquet").json()["parquet_files"]
    tables = [pq.read_table(io.BytesIO(got(file["url"].removeprefix(BASE)).content)) for file in files]
    return [row for table in tables for row in table.to_pylist()]


def test_a_dataset_and_the_list(built, got, dataset):
    one = got(dataset).json()
    assert (one["kind"], one["name"], one["rows"], one["files"]) == ("skipalign", "built", 120, 3)
    assert one["job_id"] == built[2]["id"]
    assert got("/v1/datasets").json() == {"data": [one], "has_more": False}
    assert got("/v1/datasets?kind=cip").json()["data"] == []
    assert got(f"/v1/datasets?after={one['id']}").json()["data"] == []


def test_the_manifest_is_byte_for_byte(got, dataset):
    response = got(f"{dataset}/manifest")
    digest = hashlib.sha256(response.content).hexdigest()
    assert response.headers["etag"] == f'"{digest}"'
    assert got(dataset).json()["manifest_sha256"] == digest
    assert got(f"{dataset}/files/manifest.json").content == response.content


def test_the_parquet_files_are_what_the_manifest_says(got, dataset):
    files = got(f"{dataset}/manifest").json()["files"]
    listed = got(f"{dataset}/parquet").json()
    assert (listed["pending"], listed["failed"], listed["partial"]) == ([], [], False)
    assert [f["path"] for f in listed["parquet_files"]] == [f["path"] for f in files]
    assert len(files) == 3
    for file in listed["parquet_files"]:
        data = got(file["url"].removeprefix(BASE)).content
        assert len(data) == file["size"]
        assert hashlib.sha256(data).hexdigest() == file["sha256"]


@pytest.mark.parametrize(
    ("offset", "limit"), [(0, 3), (38, 4), (39, 1), (40, 1), (0, 100), (79, 41), (119, 5), (120, 5), (10**9, 1)]
)
def test_rows_go_through_all_files_in_order(got, dataset, offset, limit):
    expected = all_rows(got, dataset)
    assert len(expected) == 120
    page = got(f"{dataset}/rows?offset={offset}&limit={limit}").json()
    assert page["rows"] == expected[offset : offset + limit]
    assert (page["total"], page["offset"], page["partial"]) == (120, offset, False)
    if page["rows"]:
        assert page["columns"] == list(expected[0])


def test_long_rows_come_in_smaller_pages(got, dataset, monkeypatch):
    monkeypatch.setattr("service.library.ROW_TOKENS", 100)
    page = got(f"{dataset}/rows?limit=50").json()
    assert page["partial"] is True
    assert 1 <= len(page["rows"]) < 50
    monkeypatch.setattr("service.library.ROW_TOKENS", 1)
    assert len(got(f"{dataset}/rows?limit=50").json()["rows"]) == 1


@pytest.mark.parametrize("query", ["offset=-1", "limit=0", "limit=101", "offset=x", f"offset={10**30}"])
def test_bad_row_queries(got, dataset, query):
    body = assert_problem(got(f"{dataset}/rows?{query}"), 422, "invalid_request")
    assert body["errors"][0]["pointer"] == "/" + query.partition("=")[0]


def test_statistics_and_size(got, dataset):
    statistics = got(f"{dataset}/statistics").json()
    assert statistics["counts"]["rows"] == 120
    size = got(f"{dataset}/size").json()
    manifest = got(f"{dataset}/manifest").json()
    assert size["bytes"] == sum(f["bytes"] for f in manifest["files"])
    assert size["tokens"] == sum(f["tokens"] for f in manifest["files"]) > 0
    assert [s["split"] for s in size["splits"]] == ["train"]
    assert {**size["splits"][0]} == {"split": "train", **{k: size[k] for k in ("rows", "tokens", "bytes", "files")}}


def test_croissant_describes_every_file_and_column(got, dataset):
    response = got(f"{dataset}/croissant")
    assert response.headers["content-type"] == "application/ld+json"
    document = response.json()
    files = got(f"{dataset}/manifest").json()["files"]
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert (document["@type"], document["license"]) == ("sc:Dataset", "CC0-1.0")
    assert {d["@id"]: d["sha256"] for d in document["distribution"]} == {f["path"]: f["sha256"] for f in files}
    assert all(d["contentUrl"].startswith(BASE) for d in document["distribution"])
    record = document["recordSet"][0]
    columns = {field["source"]["extract"]["column"]: field for field in record["field"]}
    assert {"input_ids", "position_ids", "n_tokens"} <= set(columns)
    assert columns["input_ids"]["repeated"] is True
    assert columns["n_tokens"]["dataType"] == "sc:Integer"
    assert columns["skipped"]["dataType"] == "sc:Boolean"
    names = [d["@id"] for d in document["distribution"]] + [f["@id"] for r in document["recordSet"] for f in r["field"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["ds_0", "x", "job_1", "ds_" + "e" * 500])
def test_unknown_datasets_are_404(built, name):
    api = built[0]
    for part in ("", "/manifest", "/parquet", "/rows", "/statistics", "/size", "/croissant", "/files/manifest.json"):
        assert_problem(api.get(f"/v1/datasets/{name}{part}"), 404, "not_found")
    assert_problem(api.delete(f"/v1/datasets/{name}"), 404, "not_found")


def test_a_dataset_that_is_deleted_is_gone_with_its_files(api, services):
    source = upload(api, conversations(5))["id"]
    api.post("/v1/jobs", json=spec_for(source))
    make_runner(services).run_once()
    name = api.get("/v1/jobs").json()["data"][0]["dataset_id"]
    assert services.objects.list(f"datasets/{name}") != []
    assert api.delete(f"/v1/datasets/{name}").status_code == 204
    assert services.objects.list(f"datasets/{name}") == []
    for part in ("", "/manifest", "/files/manifest.json", "/rows"):
        assert_problem(api.get(f"/v1/datasets/{name}{part}"), 404, "not_found")


def test_a_job_that_is_not_done_has_no_dataset(api, services):
    source = upload(api, conversations(5))["id"]
    job = api.post("/v1/jobs", json=spec_for(source)).json()["id"]
    target = services.jobs.get(job).target
    assert_problem(api.get(f"/v1/datasets/{target}"), 404, "not_found")


def test_a_damaged_file_is_an_error_and_no_wrong_rows(api, services):
    source = upload(api, conversations(5))["id"]
    api.post("/v1/jobs", json=spec_for(source))
    make_runner(services).run_once()
    name = api.get("/v1/jobs").json()["data"][0]["dataset_id"]
    path = f"datasets/{name}/data/train-00000-of-00001.parquet"
    data = bytearray(services.objects.read(path))
    data[60] ^= 255
    services.objects.write(path, bytes(data))
    assert_problem(api.get(f"/v1/datasets/{name}/rows"), 500, "invalid_dataset")


def test_errors_are_json_even_so(got, dataset):
    assert json.loads(got(f"{dataset}/rows?limit=x").text)["title"]


def test_rows_go_through_row_groups_too(api, services, monkeypatch):
    monkeypatch.setattr("packing.dataset.writer.GROUP_ROWS", 7)
    source = upload(api, conversations(30))["id"]
    api.post("/v1/jobs", json=spec_for(source))
    make_runner(services).run_once()
    dataset = f"/v1/datasets/{api.get('/v1/jobs').json()['data'][0]['dataset_id']}"
    expected = all_rows(api.get, dataset)
    assert len(expected) == 30
    for offset in range(30):
        assert api.get(f"{dataset}/rows?offset={offset}&limit=16").json()["rows"] == expected[offset : offset + 16]
