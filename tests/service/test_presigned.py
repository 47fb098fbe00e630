"""Downloads that the service sends on to its object store: to who may read them alone, for a minute, and no key goes with them."""

from __future__ import annotations

import hashlib
import urllib.request
from urllib.parse import parse_qs, urlsplit

import pytest

from packing.dataset.reader import check_file, read_manifest
from service.access import Scope
from service.client import Client
from service.serving import ApiThread, listen, url_of
from service.settings import SettingsError
from service.storage.objects import Objects
from tests.service.support import assert_problem, conversations, make_runner, open_api, settings_in, spec_for
from training.source import open_source

pytestmark = pytest.mark.slow


@pytest.fixture
def world(s3, tmp_path):
    """A service with keys that redirects, over a socket, and a dataset of the owner: (settings, url, api, keys, dataset, store)."""
    settings = settings_in(tmp_path, OBJECTS_URL=f"s3://bucket/{tmp_path.name}", PRESIGN="true")
    services, api = open_api(settings)
    keys = {name: services.keys.create(name, [Scope.WRITE])[1].text() for name in ("owner", "other")}
    bearer = {"Authorization": f"Bearer {keys['owner']}"}
    with api:
        upload = api.post("/v1/uploads", content=conversations(30), headers=bearer).json()["id"]
        job = api.post("/v1/jobs", json=spec_for(upload), headers=bearer).json()["id"]
        assert make_runner(services).run_once()
        dataset = api.get(f"/v1/jobs/{job}", headers=bearer).json()["dataset_id"]
        s3.asked.clear()
        yield settings, api, keys, dataset, s3


def test_a_file_is_where_the_address_says_and_an_attachment(world):
    _, api, keys, dataset, store = world
    bearer = {"Authorization": f"Bearer {keys['owner']}"}
    file = api.get(f"/v1/datasets/{dataset}/manifest", headers=bearer).json()["files"][0]
    where = f"/v1/datasets/{dataset}/files/{file['path']}"
    store.asked.clear()
    answer = api.get(where, headers=bearer, follow_redirects=False)
    assert answer.status_code == 307
    assert [asked for asked in store.asked if asked.path.endswith(".parquet")] == []  # signed without asking the store
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    address = answer.headers["location"]
    assert parse_qs(urlsplit(address).query)["X-Amz-Expires"] == ["60"]
    with urllib.request.urlopen(address) as response:
        assert hashlib.sha256(response.read()).hexdigest() == file["sha256"]
        assert response.headers["Content-Disposition"] == "attachment"
    with urllib.request.urlopen(urllib.request.Request(address, headers={"Range": "bytes=3-9"})) as response:
        assert (response.status, len(response.read())) == (206, 7)

    direct = api.get(f"{where}?redirect=false", headers=bearer, follow_redirects=False)
    assert (direct.status_code, hashlib.sha256(direct.content).hexdigest()) == (200, file["sha256"])
    head = api.head(where, headers=bearer, follow_redirects=False)
    assert (head.status_code, head.headers["etag"]) == (200, f'"{file["sha256"]}"')
    unchanged = api.get(where, headers=bearer | {"If-None-Match": head.headers["etag"]}, follow_redirects=False)
    assert unchanged.status_code == 304
    part = {"Range": "bytes=0-9"}
    stale = api.get(where, headers=bearer | part | {"If-Range": '"other"'}, follow_redirects=False)
    assert (stale.status_code, len(stale.content)) == (200, file["bytes"])  # the store would send a range of it
    right = api.get(where, headers=bearer | part | {"If-Range": head.headers["etag"]}, follow_redirects=False)
    assert right.status_code == 307
    behind = api.get(where, headers=bearer | {"Range": f"bytes={file['bytes']}-"}, follow_redirects=False)
    assert_problem(behind, 416, "range_not_satisfiable")


def test_nobody_else_is_given_an_address(world):
    _, api, keys, dataset, _ = world
    where = f"/v1/datasets/{dataset}/files/README.md"
    assert_problem(api.get(where, follow_redirects=False), 401, "key_needed")
    other = {"Authorization": f"Bearer {keys['other']}"}
    assert_problem(api.get(where, headers=other, follow_redirects=False), 404, "not_found")
    mine = {"Authorization": f"Bearer {keys['owner']}"}
    assert_problem(api.get(where.replace("README", "x"), headers=mine, follow_redirects=False), 404, "not_found")


def test_the_client_and_the_worker_follow_without_the_key(world, tmp_path):
    settings, _, keys, dataset, store = world
    thread = ApiThread(settings, sock := listen("127.0.0.1", 0, keys_exist=lambda: True))
    assert thread.start()
    store.asked.clear()
    try:
        with Client(url_of(sock), key=keys["owner"], pause=0.001) as client:
            partial = tmp_path / "out" / "README.md.part"
            partial.parent.mkdir()
            partial.write_bytes(b"--")  # begun: goes on by Range, at the store
            manifest = client.download(dataset, tmp_path / "out")
        for file in (*manifest.files, *manifest.documents):
            check_file(tmp_path / "out", file.path, file.bytes, file.sha256)
        assert read_manifest(tmp_path / "out") == manifest
        signed = [asked for asked in store.asked if "X-Amz-Signature" in asked.query]
        assert len(signed) == len(manifest.files) + len(manifest.documents)
        assert [asked.range for asked in signed if asked.path.endswith("README.md")] == ["bytes=2-"]
        store.asked.clear()
        source = open_source(f"{url_of(sock)}/v1/datasets/{dataset}", key=keys["owner"])
        shard = source.open(manifest.files[0])
        assert shard.read().num_rows == 30
        ranges = [asked for asked in store.asked if "X-Amz-Signature" in asked.query]
        assert len(ranges) > 1
        assert all(asked.range for asked in ranges)
        assert {asked.authorization for asked in [*signed, *ranges]} == {""}
    finally:
        thread.stop()
        thread.join()


def test_local_files_and_services_not_set_up_for_it_send_nobody_away(s3, tmp_path):
    local = Objects.local(tmp_path)
    assert local.presigned("x", seconds=60) is None
    for name, environ in (("a", {"PRESIGN": "true"}), ("b", {"OBJECTS_URL": f"s3://bucket/{tmp_path.name}"})):
        services, api = open_api(settings_in(tmp_path / name, **environ))
        with api:
            upload = api.post("/v1/uploads", content=conversations(3)).json()["id"]
            api.post("/v1/jobs", json=spec_for(upload))
            assert make_runner(services).run_once()
            dataset = api.get("/v1/datasets").json()["data"][0]["id"]
            answer = api.get(f"/v1/datasets/{dataset}/files/README.md?redirect=true", follow_redirects=False)
            assert answer.status_code == 200
        services.close()
    with pytest.raises(SettingsError, match="LONGWEAVE_PRESIGN is false or true, not 'maybe'"):
        settings_in(tmp_path, PRESIGN="maybe")
