"""Uploads over REST."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import itertools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packing.dataset.errors import SourceError
from service.storage.intake import take_in
from service.storage.objects import Objects
from service.storage.source_record import piece_path
from service.uploads import file_name
from tests.service.support import assert_problem, conversations, make_runner, open_api, settings_in, spec_for, upload

JSONL = {"Content-Type": "application/jsonl"}


def parquet_bytes(rows=5):
    column = [[{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}] for n in range(rows)]
    sink = io.BytesIO()
    pq.write_table(pa.table({"messages": column}), sink)
    return sink.getvalue()


def test_a_raw_upload_is_counted_and_checked(api, services):
    data = conversations(10) + b'{"messages": []}\n'
    response = api.post("/v1/uploads?name=mine.jsonl", content=data, headers=JSONL)
    assert response.status_code == 201
    found = response.json()
    assert response.headers["location"] == f"/v1/uploads/{found['id']}"
    assert found["sha256"] == hashlib.sha256(data).hexdigest()
    assert (found["name"], found["rows"], found["bytes"]) == ("mine.jsonl", 11, len(data))
    assert (found["problems"]["count"], found["problems"]["first"][0]["row"]) == (1, 11)
    assert api.get(f"/v1/uploads/{found['id']}").json() == found
    assert list(services.settings.incoming.iterdir()) == []


def test_a_multipart_upload_is_the_same(api):
    data = conversations(4)
    files = {"file": ("four.jsonl", data, "application/jsonl")}
    found = api.post("/v1/uploads", files=files).json()
    assert (found["name"], found["rows"]) == ("four.jsonl", 4)
    assert found["sha256"] == upload(api, data)["sha256"]


@pytest.mark.parametrize(
    ("data", "media_type", "rows"),
    [
        (gzip.compress(conversations(3)), "application/gzip", 3),
        (parquet_bytes(), "application/vnd.apache.parquet", 5),
        (conversations(2), "application/octet-stream", 2),
        (conversations(2), None, 2),
    ],
)
def test_containers(api, data, media_type, rows):
    headers = {} if media_type is None else {"Content-Type": media_type}
    response = api.post("/v1/uploads", content=data, headers=headers)
    assert response.status_code == 201, response.text
    assert response.json()["rows"] == rows


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.jsonl", b""),
        ("cut.parquet", parquet_bytes()[:-20]),
        ("no.parquet", b"PAR1 nothing"),
        ("cut.jsonl.gz", gzip.compress(conversations(50))[:-30]),
        ("cut.jsonl.zst", pa.compress(conversations(50), codec="zstd", asbytes=True)[:-30]),
    ],
)
def test_what_cannot_be_decoded_is_refused_and_nothing_is_left(api, services, name, data):
    response = api.post(f"/v1/uploads?name={name}", content=data, headers=JSONL)
    body = assert_problem(response, 422, "invalid_source")
    assert name in body["detail"]
    assert list(services.settings.incoming.iterdir()) == []
    assert services.objects.list("uploads") == []
    assert services.catalog.counts()["uploads"] == 0


def test_lines_that_are_no_json_or_no_utf8_are_reported_not_refused(api):
    data = conversations(2) + b"{oops\n" + b'{"messages": "\xff"}\n'
    found = api.post("/v1/uploads", content=data, headers=JSONL).json()
    assert (found["rows"], found["problems"]["count"]) == (4, 2)
    assert [problem["row"] for problem in found["problems"]["first"]] == [3, 4]


def digest(data):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


@pytest.mark.parametrize("field", ["Content-Digest", "Repr-Digest"])
def test_a_digest_sent_with_an_upload_is_held_against_it(api, services, field):
    data = conversations(4)
    for value in (digest(data), f"sha-512=:AAAA:, {digest(data)}", "md5=:AAAA:"):
        assert api.post("/v1/uploads", content=data, headers=JSONL | {field: value}).status_code == 201, value
    there = services.objects.list("uploads")
    damaged = data[:-10] + b"X" + data[-9:]
    body = assert_problem(
        api.post("/v1/uploads", content=damaged, headers=JSONL | {field: digest(data)}), 422, "digest_mismatch"
    )
    assert body["errors"][0]["pointer"] == field
    for value in ("sha-256=abc", "sha-256=:AAAA:", "sha-256=:A:", "", "nonsense"):
        response = api.post("/v1/uploads", content=data, headers=JSONL | {field: value})
        assert_problem(response, 422, "malformed_request")
    form = api.post("/v1/uploads", files={"file": ("a.jsonl", data)}, headers={field: digest(data)})
    assert_problem(form, 422, "malformed_request")
    assert services.objects.list("uploads") == there
    assert list(services.settings.incoming.iterdir()) == []


def test_an_upload_over_the_limit(tmp_path):
    services, client = open_api(settings_in(tmp_path, MAX_UPLOAD_BYTES="10000"))
    data = conversations(200)
    assert len(data) > 10000
    with client:
        assert_problem(client.post("/v1/uploads", content=data, headers=JSONL), 413, "too_large")
        chunked = (data[n : n + 1000] for n in range(0, len(data), 1000))
        assert_problem(client.post("/v1/uploads", content=chunked, headers=JSONL), 413, "too_large")
        assert_problem(client.post("/v1/uploads", files={"file": ("x.jsonl", data)}), 413, "too_large")
        assert list(services.settings.incoming.iterdir()) == []
        assert upload(client, conversations(5))["rows"] == 5
    services.close()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"nonsense", "multipart/form-data; boundary=x"),
        (b"nonsense", "multipart/form-data"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n', "multipart/form-data; boundary=x"),
    ],
)
def test_multipart_without_one_file(api, body, content_type):
    assert_problem(
        api.post("/v1/uploads", content=body, headers={"Content-Type": content_type}), 422, "malformed_request"
    )


def test_two_files_are_one_too_many(api):
    files = [("a", ("a.jsonl", conversations(1))), ("b", ("b.jsonl", conversations(1)))]
    assert_problem(api.post("/v1/uploads", files=files), 422, "malformed_request")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a.jsonl", "a.jsonl"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\x.jsonl", "x.jsonl"),
        ("a/b\n\x00c.jsonl", "bc.jsonl"),
        ("..", "upload.jsonl"),
        ("", "upload.jsonl"),
        ("长.jsonl", "长.jsonl"),
        ("x" * 500 + ".parquet", ("x" * 500 + ".parquet")[-200:]),
    ],
)
def test_names_of_clients_are_plain(given, name):
    assert file_name(given) == name


def test_unknown_uploads_are_404(api):
    for name in ("up_0", "x", "up_" + "f" * 500, "job_1"):
        assert_problem(api.get(f"/v1/uploads/{name}"), 404, "not_found")
        assert_problem(api.delete(f"/v1/uploads/{name}"), 404, "not_found")


def test_an_upload_is_deleted_when_no_job_needs_it(api, services):
    source = upload(api, conversations(5))["id"]
    api.post("/v1/jobs", json=spec_for(source))
    assert_problem(api.delete(f"/v1/uploads/{source}"), 409, "conflict")
    make_runner(services).run_once()
    assert services.objects.list(f"uploads/{source}") != []
    assert api.delete(f"/v1/uploads/{source}").status_code == 204
    assert services.objects.list(f"uploads/{source}") == []
    assert_problem(api.get(f"/v1/uploads/{source}"), 404, "not_found")
    assert api.get("/v1/jobs").json()["data"][0]["state"] == "succeeded"


def test_the_record_keeps_places_to_itself(api):
    assert "pieces" not in json.dumps(upload(api, conversations(1)))


def test_an_upload_refused_half_way_leaves_no_pieces(api, services, monkeypatch):
    def half(_local, *, name, objects, prefix):
        objects.write(f"{prefix}/piece", b"x")
        raise SourceError(f"{name} is damaged behind its first piece")

    monkeypatch.setattr("service.uploads.take_in", half)
    assert_problem(api.post("/v1/uploads", content=conversations(1), headers=JSONL), 422, "invalid_source")
    assert services.objects.list("uploads") == []


def test_pieces_stand_in_the_order_of_their_rows(tmp_path, monkeypatch):
    """They are packed and written by threads, while the next are cut."""
    monkeypatch.setattr("packing.sources.PIECE_BYTES", 300)
    monkeypatch.setattr("packing.sources.READ_BYTES", 100)
    lines = [json.dumps({"text": "x" * (number % 40)}) for number in range(200)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    objects = Objects.local(tmp_path / "store")
    record = take_in(tmp_path / "a.jsonl", name="a.jsonl", objects=objects, prefix="p")
    assert len(record.pieces) > 10
    assert [piece.first_row - 1 for piece in record.pieces] == [piece.first_index for piece in record.pieces]
    assert list(itertools.accumulate((piece.rows for piece in record.pieces), initial=0)) == [
        *(piece.first_index for piece in record.pieces),
        200,
    ]
    found = [
        line
        for piece in record.pieces
        for line in pq.read_table(tmp_path / "store" / piece_path("p", piece.digest)).column("line").to_pylist()
    ]
    assert [line.decode().strip() for line in found] == lines
    assert record.digest == hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()
    assert record.problems["count"] == 5  # those without a letter
