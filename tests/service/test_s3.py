"""The service on an S3 store by settings alone: the same bytes, read by range, and nothing left behind."""

from __future__ import annotations

import hashlib

import pytest

from service.services import Services
from service.storage.objects import Objects, StorageError
from service.storage.probe import check_store
from tests.service.every_kind import build_every_kind, digests, post
from tests.service.support import assert_problem, conversations, make_runner, open_api, settings_in, spec_for

pytestmark = pytest.mark.slow


@pytest.fixture
def served(s3, tmp_path):
    """The API and its services, the objects below a prefix of the bucket."""
    services, api = open_api(settings_in(tmp_path, OBJECTS_URL=f"s3://bucket/{tmp_path.name}"))
    s3.asked.clear()
    with api:
        yield api, services, s3


def run_all(services):
    runner = make_runner(services)
    return lambda _job: runner.run_once()


def test_every_kind_has_the_bytes_it_has_on_local_files(served, tmp_path):
    api, services, store = served
    made = build_every_kind(api, run_all(services))
    local_services, local_api = open_api(settings_in(tmp_path / "local"))
    with local_api:
        local = digests(local_api, build_every_kind(local_api, run_all(local_services)))
    assert digests(api, made) == local
    assert services.objects.list("work") == []
    assert services.objects.list("probe") == []

    # what a survey kept and the row groups of datasets are fetched in part; whole are only what is small or needed whole
    gets = [asked for asked in store.asked if asked.method == "GET"]
    kept = [asked for asked in gets if "/kept/" in asked.path]
    shards = [asked for asked in gets if "/datasets/" in asked.path and asked.path.endswith(".parquet")]
    assert len(kept) > 0
    assert len(shards) > 0
    assert [asked for asked in kept + shards if not asked.range.startswith("bytes=")] == []


def test_files_are_downloaded_whole_and_in_part_and_deleted(served):
    api, services, store = served
    source = post(api, conversations(30))
    job = api.post("/v1/jobs", json=spec_for(source)).json()
    assert make_runner(services).run_once()
    dataset = api.get(f"/v1/jobs/{job['id']}").json()["dataset_id"]
    file = api.get(f"/v1/datasets/{dataset}/manifest").json()["files"][0]
    where = f"/v1/datasets/{dataset}/files/{file['path']}"
    whole = api.get(where).content
    assert hashlib.sha256(whole).hexdigest() == file["sha256"]
    store.asked.clear()
    part = api.get(where, headers={"Range": "bytes=10-29"})
    assert (part.status_code, part.content) == (206, whole[10:30])
    assert part.headers["content-range"] == f"bytes 10-29/{len(whole)}"
    assert [asked.range for asked in store.asked if asked.path.endswith(".parquet")] == ["bytes=10-29"]
    assert api.head(where).headers["content-length"] == str(len(whole))
    assert api.get(where, headers={"If-None-Match": api.head(where).headers["etag"]}).status_code == 304
    assert api.get(f"/v1/datasets/{dataset}/rows?offset=28&limit=5").json()["rows"][1] is not None

    assert api.delete(f"/v1/datasets/{dataset}").status_code == 204
    assert services.objects.list("datasets") == []
    assert api.delete(f"/v1/uploads/{source}").status_code == 204
    assert services.objects.list("") == []


def test_a_job_that_fails_leaves_nothing(served):
    api, services, _ = served
    source = post(api, conversations(20) + b'{"id": "bad", "messages": 7}\n')
    job = api.post("/v1/jobs", json=spec_for(source, shard_rows=5)).json()
    make_runner(services).run_once()
    assert api.get(f"/v1/jobs/{job['id']}").json()["state"] == "failed"
    assert services.objects.list("work") == services.objects.list("datasets") == []
    assert services.objects.list("uploads") != []


def test_a_store_that_is_away_is_503_and_costs_no_job(served):
    api, services, store = served
    job = api.post("/v1/jobs", json=spec_for(post(api, conversations(20)))).json()
    store.away = True
    assert_problem(api.post("/v1/uploads", content=conversations(3)), 503, "unavailable")
    assert api.get("/readyz").json()["objects"] is False
    assert make_runner(services).run_once()
    waiting = api.get(f"/v1/jobs/{job['id']}").json()
    assert (waiting["state"], waiting["attempt"]) == ("queued", 1)
    store.away = False
    with services.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET not_before = 0")
    assert make_runner(services).run_once()
    assert api.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"


def test_the_next_runner_finds_the_shards_that_stand(served):
    api, services, store = served
    job = api.post("/v1/jobs", json=spec_for(post(api, conversations(40)), shard_rows=10)).json()
    runner = make_runner(services)
    built = []

    class Twice:
        """Stops after two shards, as a runner that dies does."""

        def run(self, payloads, check):
            for payload in payloads:
                if len(built) == 2:
                    raise ConnectionError("gone")
                built.append(payload)
                from service.engine.shard_task import run_task

                yield run_task(payload)

    object.__setattr__(runner._parts, "executor", Twice())
    runner.run_once()
    assert len(built) == 2
    assert api.get(f"/v1/jobs/{job['id']}").json()["state"] == "queued"
    with services.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET not_before = 0")
    store.asked.clear()
    make_runner(services).run_once()
    assert api.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"
    written = {
        asked.path.rpartition("/")[2] for asked in store.asked if asked.method == "PUT" and "/data/" in asked.path
    }
    assert len(written) == 2


def test_a_large_file_goes_up_in_parts(s3):
    objects = Objects.open("s3://bucket/large")
    with objects.writing("big", staging="partial") as stream:
        for number in range(13):
            stream.write(bytes([number]) * 1024 * 1024)
    assert objects.size("big") == 13 * 1024 * 1024
    assert objects.read_range("big", 12 * 1024 * 1024 - 1, 12 * 1024 * 1024 + 1) == b"\x0b\x0c"
    assert len([asked for asked in s3.asked if asked.method == "PUT"]) > 1
    objects.delete_prefix("")


def test_a_store_with_conditional_puts_is_taken_and_nothing_of_the_probe_stays(s3):
    objects = Objects.open("s3://bucket/probed")
    check_store(objects)
    assert len([asked for asked in s3.asked if asked.method == "PUT"]) == 32
    assert objects.list("") == []


def test_a_store_without_conditional_puts_is_refused_in_one_sentence(s3, tmp_path):
    s3.ignores_conditions = True
    with pytest.raises(StorageError, match="does not honour conditional puts") as caught:
        Services.open(settings_in(tmp_path, OBJECTS_URL="s3://bucket/blind"))
    assert caught.value.param == "LONGWEAVE_OBJECTS_URL"
    assert "32" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_bucket_that_is_not_there_is_named(s3, tmp_path):
    with pytest.raises(StorageError, match=r"s3://nowhere/x cannot be used") as caught:
        Services.open(settings_in(tmp_path, OBJECTS_URL="s3://nowhere/x"))
    assert "\n" not in caught.value.message


def test_local_files_are_not_probed(tmp_path):
    objects = Objects.local(tmp_path)
    check_store(objects)
    assert list(tmp_path.iterdir()) == []


def test_an_upload_in_parts_goes_through_the_store(served):
    api, services, store = served
    data = conversations(30)
    begun = api.post("/v1/uploads", headers={"Upload-Complete": "?0"}).headers["location"]
    for start, end in ((0, 900), (900, len(data))):
        fields = {"Content-Type": "application/partial-upload", "Upload-Offset": str(start)}
        fields["Upload-Complete"] = "?1" if end == len(data) else "?0"
        answer = api.patch(begun, content=data[start:end], headers=fields)
    assert answer.json()["sha256"] == hashlib.sha256(data).hexdigest()
    assert services.objects.list("arriving") == []
    assert len([asked for asked in store.asked if asked.method == "PUT" and "/arriving/" in asked.path]) == 2
