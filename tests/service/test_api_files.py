"""Files of a dataset: ranges, conditions, digests, and that nothing else can be had."""

from __future__ import annotations

import base64
import hashlib

import pytest

from service.problems import NotFoundError
from tests.service.support import assert_problem


@pytest.fixture
def file(built):
    """(api, address, bytes) of the first Parquet file."""
    api, services, job = built
    dataset = job["dataset_id"]
    path = api.get(f"/v1/datasets/{dataset}/manifest").json()["files"][0]["path"]
    return api, f"/v1/datasets/{dataset}/files/{path}", services.objects.read(f"datasets/{dataset}/{path}")


def etag_of(data):
    return f'"{hashlib.sha256(data).hexdigest()}"'


def digest_of(data):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def test_the_whole_file(file):
    api, address, data = file
    response = api.get(address)
    assert (response.status_code, response.content) == (200, data)
    headers = response.headers
    assert headers["etag"] == etag_of(data)
    assert headers["content-digest"] == headers["repr-digest"] == digest_of(data)
    assert headers["content-length"] == str(len(data))
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-type"] == "application/vnd.apache.parquet"


def test_head_says_the_same_without_the_bytes(file):
    api, address, data = file
    head, get = api.head(address), api.get(address)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "content-digest", "content-type", "accept-ranges", "content-disposition"):
        assert head.headers[name] == get.headers[name]
    assert api.head(address, headers={"If-None-Match": etag_of(data)}).status_code == 304


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=4-", 4, None),
        ("bytes=-8", -8, None),
        ("bytes=-99999999", 0, None),
        ("bytes=10-99999999", 10, None),
    ],
)
def test_ranges(file, header, start, end):
    api, address, data = file
    response = api.get(address, headers={"Range": header})
    expected = data[start:end]
    first = start if start >= 0 else len(data) + start
    assert (response.status_code, response.content) == (206, expected)
    assert response.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{len(data)}"
    assert response.headers["content-length"] == str(len(expected))
    assert response.headers["etag"] == etag_of(data)
    assert response.headers["repr-digest"] == digest_of(data)
    assert "content-digest" not in response.headers


@pytest.mark.parametrize("header", ["lines=0-9", "bytes=a-b", "bytes=9-1", "bytes=0-1,5-6", "nonsense", ""])
def test_ranges_that_are_ignored(file, header):
    api, address, data = file
    response = api.get(address, headers={"Range": header})
    assert (response.status_code, response.content) == (200, data)


def test_a_range_behind_the_end(file):
    api, address, data = file
    response = api.get(address, headers={"Range": f"bytes={len(data)}-"})
    assert_problem(response, 416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{len(data)}"


def test_if_range(file):
    api, address, data = file
    asked = {"Range": "bytes=0-9"}
    assert api.get(address, headers={**asked, "If-Range": etag_of(data)}).content == data[:10]
    for other in ('"other"', f"W/{etag_of(data)}", "Sun, 22 Nov 2026 00:00:00 GMT"):
        response = api.get(address, headers={**asked, "If-Range": other})
        assert (response.status_code, response.content) == (200, data)
    response = api.get(address, headers={"Range": "bytes=99999999-", "If-Range": '"other"'})
    assert response.status_code == 200


def test_if_none_match(file):
    api, address, data = file
    for condition in (etag_of(data), f'"x", {etag_of(data)}', "*", f"W/{etag_of(data)}"):
        response = api.get(address, headers={"If-None-Match": condition})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == etag_of(data)
    assert api.get(address, headers={"If-None-Match": '"x"'}).status_code == 200


def test_parts_make_the_whole(file):
    api, address, data = file
    step = len(data) // 7 + 1
    parts = [api.get(address, headers={"Range": f"bytes={n}-{n + step - 1}"}) for n in range(0, len(data), step)]
    assert len(parts) == 7
    assert all(part.status_code == 206 for part in parts)
    assert b"".join(part.content for part in parts) == data


def test_documents_are_files_too(built):
    api, _, job = built
    base = f"/v1/datasets/{job['dataset_id']}"
    documents = api.get(f"{base}/manifest").json()["documents"]
    assert {"README.md", "statistics.json", "charts/positions.vl.json"} < {d["path"] for d in documents}
    for document in documents:
        response = api.get(f"{base}/files/{document['path']}")
        assert hashlib.sha256(response.content).hexdigest() == document["sha256"]
        assert response.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "data",
        "data/",
        "nothing",
        "../manifest.json",
        "%2e%2e/%2e%2e/longweave.db",
        "data%2F..%2Fmanifest.json",
        "/etc/passwd",
        "//etc/passwd",
        "manifest.json%00",
        "manifest.json/",
        "MANIFEST.JSON",
        "data\\..\\manifest.json",
        "%F0%9F%92%A9",
        "%ff",
    ],
)
def test_only_what_the_manifest_names(built, path):
    api, services, job = built
    services.objects.write(f"datasets/{job['dataset_id']}/nothing", b"not named")
    assert_problem(api.get(f"/v1/datasets/{job['dataset_id']}/files/{path}"), 404, "not_found")


@pytest.mark.parametrize(
    "path", ["data/../manifest.json", "./manifest.json", "../../longweave.db", "data//x", "..", "."]
)
def test_dots_are_followed_nowhere(built, path):
    """Below HTTP, where no client tidies them away."""
    _, services, job = built
    with pytest.raises(NotFoundError):
        services.library.item(services.catalog.dataset(job["dataset_id"]), path)
