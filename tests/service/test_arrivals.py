"""Uploads that come in parts: whatever breaks they go on, they end as one that came whole, and nothing is left of those that do not."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from packing.dataset.errors import SourceError
from service import arrivals
from service.access import Caller, implied
from service.access import Scope as KeyScope
from service.app import create_app
from service.client import Client
from service.digests import digest_field
from service.jobs.arrivals import MOST, Arrivals
from service.jobs.catalog import Catalog
from service.jobs.database import open_database
from service.problems import NotFoundError, QuotaError
from service.services import Services
from service.serving import ApiThread, listen, url_of
from service.storage.collect import DAY, Scope, collect
from service.storage.objects import Objects, StorageError
from service.storage.parts import PART_BYTES, Parts
from tests.service.support import (
    BASE,
    assert_problem,
    conversations,
    make_runner,
    open_api,
    settings_in,
    spec_for,
    upload,
)
from tests.service.test_collect import make_old

DATA = conversations(40)
PARTIAL = {"Content-Type": "application/partial-upload"}


def begin(api, *, name="mine.jsonl", **headers):
    fields = {"Upload-Complete": "?0"} | {key.replace("_", "-"): str(value) for key, value in headers.items()}
    response = api.post("/v1/uploads", params={"name": name}, headers=fields)
    assert response.status_code == 201, response.text
    return response.headers["location"]


def send(api, where, offset, data, *, complete=False, **headers):
    fields = PARTIAL | {"Upload-Offset": str(offset), "Upload-Complete": "?1" if complete else "?0"}
    return api.patch(where, content=data, headers=fields | headers)


def nothing_left(services):
    assert services.objects.list("arriving") == services.objects.list("uploads") == []
    assert list(services.settings.incoming.iterdir()) == []
    assert services.catalog.counts()["uploads"] == 0


def test_an_upload_in_parts_is_the_one_that_came_whole(api, services):
    where = begin(api, Upload_Length=len(DATA), Repr_Digest=digest_field(hashlib.sha256(DATA).hexdigest()))
    cuts = [0, 1, 700, 700, len(DATA)]
    for start, end in pairwise(cuts):
        head = api.head(where)
        assert (head.status_code, head.headers["upload-offset"], head.headers["upload-complete"]) == (
            200,
            str(start),
            "?0",
        )
        assert head.headers["upload-limit"] == f"max-size={services.settings.limits.upload_bytes}"
        assert head.headers["upload-length"] == str(len(DATA))
        response = send(api, where, start, DATA[start:end], complete=end == len(DATA))
        assert response.status_code == (201 if end == len(DATA) else 204), response.text
        assert response.headers["upload-offset"] == str(end)
        if end < len(DATA):
            told = api.get(where).json()
            assert (told["received"], told["length"], told["name"]) == (end, len(DATA), "mine.jsonl")
            assert services.catalog.counts()["uploads"] == 0
    found = response.json()
    assert api.get(where).json() == found
    whole = upload(api, DATA)
    assert {k: found[k] for k in ("sha256", "rows", "bytes")} == {k: whole[k] for k in ("sha256", "rows", "bytes")}
    assert found["name"] == "mine.jsonl"
    assert found["id"] in where
    head = api.head(where)
    assert (head.headers["upload-complete"], head.headers["upload-offset"]) == ("?1", str(len(DATA)))
    assert services.objects.list("arriving") == []
    assert list(services.settings.incoming.iterdir()) == []
    assert_problem(send(api, where, len(DATA), b""), 409, "conflict")
    job = api.post("/v1/jobs", json=spec_for(found["id"])).json()
    assert make_runner(services).run_once()
    assert api.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"


def test_a_first_part_may_come_with_the_beginning(api):
    response = api.post("/v1/uploads", content=DATA[:500], headers={"Upload-Complete": "?0"})
    assert (response.status_code, response.headers["upload-offset"]) == (201, "500")
    assert response.json()["received"] == 500
    done = send(api, response.headers["location"], 500, DATA[500:], complete=True)
    assert done.json()["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert done.json()["name"] == "upload.jsonl"


def test_what_is_not_on_its_way_is_no_source(api):
    where = begin(api)
    body = assert_problem(api.post("/v1/jobs", json=spec_for(where.rpartition("/")[2])), 422, "invalid_spec")
    assert body["errors"][0]["pointer"] == "/source/upload"


@pytest.mark.parametrize("offset", [0, 99, 101, 10**14])
def test_a_part_begins_where_the_others_end(api, offset):
    where = begin(api)
    send(api, where, 0, DATA[:100])
    response = send(api, where, offset, DATA[offset : offset + 9])
    assert_problem(response, 409, "mismatching_upload_offset")
    assert response.headers["upload-offset"] == "100"
    assert api.head(where).headers["upload-offset"] == "100"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "application/jsonl"}, 415, "unsupported_media_type"),
        ({"Upload-Offset": "-1"}, 422, "invalid_request"),
        ({"Upload-Offset": "0.0"}, 422, "invalid_request"),
        ({"Upload-Offset": "9" * 16}, 422, "invalid_request"),
        ({"Upload-Complete": "1"}, 422, "invalid_request"),
        ({"Repr-Digest": "nonsense"}, 422, "malformed_request"),
    ],
)
def test_fields_that_cannot_be_meant(api, headers, status, code):
    where = begin(api)
    assert_problem(send(api, where, 0, b"x", **headers), status, code)
    assert api.head(where).headers["upload-offset"] == "0"
    assert_problem(api.patch(where, content=b"x", headers=PARTIAL), 422, "invalid_request")
    form = api.post("/v1/uploads", files={"file": ("a", b"x")}, headers={"Upload-Complete": "?0"})
    assert_problem(form, 422, "malformed_request")


def test_the_limit_is_on_all_parts_together(tmp_path):
    services, api = open_api(settings_in(tmp_path, MAX_UPLOAD_BYTES="1000"))
    with api:
        refused = api.post("/v1/uploads", headers={"Upload-Complete": "?0", "Upload-Length": "1001"})
        assert_problem(refused, 413, "too_large")
        where = begin(api)
        assert send(api, where, 0, DATA[:900]).status_code == 204
        assert_problem(send(api, where, 900, DATA[900:1001]), 413, "too_large")
        chunked = (DATA[n : n + 10] for n in range(900, 1100, 10))
        assert_problem(send(api, where, 900, chunked), 413, "too_large")
        short = begin(api, Upload_Length=50)
        assert_problem(send(api, short, 0, DATA[:51]), 413, "too_large")
        for upload_id in (where, short):
            assert api.delete(upload_id).status_code == 204
        nothing_left(services)
    services.close()


def test_less_than_was_announced_is_not_complete_and_may_still_become_so(api):
    where = begin(api, Upload_Length=len(DATA))
    assert_problem(send(api, where, 0, DATA[:50], complete=True), 422, "upload_incomplete")
    assert send(api, where, 50, DATA[50:], complete=True).status_code == 201


@pytest.mark.parametrize("when", ["first", "last"])
def test_bytes_that_are_not_the_announced_ones_end_the_upload(api, services, when):
    digest = digest_field(hashlib.sha256(DATA).hexdigest())
    where = begin(api, **({"Repr_Digest": digest} if when == "first" else {}))
    headers = {"Repr-Digest": digest} if when == "last" else {}
    assert_problem(send(api, where, 0, DATA[:-5] + b"XXXXX", complete=True, **headers), 422, "digest_mismatch")
    assert_problem(api.get(where), 404, "not_found")
    nothing_left(services)


@pytest.mark.parametrize(
    ("name", "data"), [("a.parquet", b"PAR1 nothing"), ("a.jsonl.gz", b"\x1f\x8bno"), ("a.jsonl", b"")]
)
def test_what_cannot_be_decoded_ends_the_upload(api, services, name, data):
    where = begin(api, name=name)
    assert_problem(send(api, where, 0, data, complete=True), 422, "invalid_source")
    assert api.head(where).status_code == 404
    nothing_left(services)


def test_a_dropped_upload_leaves_nothing(api, services):
    where = begin(api)
    send(api, where, 0, DATA[:100])
    assert services.objects.list("arriving") != []
    assert api.delete(where).status_code == 204
    nothing_left(services)
    for method in ("get", "head", "delete"):
        assert getattr(api, method)(where).status_code == 404
    assert_problem(send(api, where, 100, b"x"), 404, "not_found")
    nothing_left(services)


def test_another_process_goes_on_with_it(api, services):
    where = begin(api)
    send(api, where, 0, DATA[:300])
    other = Services.open(services.settings)
    with TestClient(create_app(services.settings, other), base_url=BASE) as second:
        assert second.head(where).headers["upload-offset"] == "300"
        assert send(second, where, 300, DATA[300:], complete=True).json()["rows"] == 40
    assert api.get(where).json()["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_what_came_before_the_connection_broke_is_kept(api, services):
    where = begin(api)
    messages = [
        {"type": "http.request", "body": DATA[:1000], "more_body": True},
        {"type": "http.request", "body": DATA[1000:1100], "more_body": True},
        {"type": "http.disconnect"},
    ]
    fields = PARTIAL | {"Host": "127.0.0.1", "Upload-Offset": "0", "Upload-Complete": "?1"}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "PATCH",
        "scheme": "http",
        "path": where,
        "raw_path": where.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 1),
    }

    async def receive():
        return messages.pop(0)

    async def ignored(_message):
        pass

    asyncio.run(api.app(scope, receive, ignored))
    assert messages == []
    assert api.head(where).headers["upload-offset"] == "1100"
    assert send(api, where, 1100, DATA[1100:], complete=True).json()["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_a_connection_that_breaks_and_a_service_that_starts_again(tmp_path):
    """Over sockets: a part is sent and cut, the service stops, and its successor gets the rest from the client."""
    data = conversations(1000)
    data = data * (2 * PART_BYTES // len(data) + 1)
    place = tmp_path / "talks.jsonl"
    place.write_bytes(data)
    settings = settings_in(tmp_path / "data")
    first = ApiThread(settings, sock := listen("127.0.0.1", 0, keys_exist=lambda: False))
    assert first.start()
    host, port = sock.getsockname()
    sent = PART_BYTES + 100_000
    with Client(url_of(sock)) as client:
        fields = {"Upload-Complete": "?0", "Upload-Length": str(len(data))}
        fields["Repr-Digest"] = digest_field(hashlib.sha256(data).hexdigest())
        begun = client._wire.call("POST", "/v1/uploads", params={"name": place.name}, headers=fields).json()
        head = f"PATCH /v1/uploads/{begun['id']} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(data)}\r\n"
        head += "Content-Type: application/partial-upload\r\nUpload-Offset: 0\r\nUpload-Complete: ?1\r\n\r\n"
        with socket.create_connection((host, port)) as cut:
            cut.sendall(head.encode() + data[:sent])
        deadline = time.monotonic() + 30
        while client._wire.call("GET", f"/v1/uploads/{begun['id']}").json()["received"] != sent:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    first.stop()
    first.join()
    second = ApiThread(settings, sock := listen("127.0.0.1", 0, keys_exist=lambda: False))
    assert second.start()
    passed = []
    with Client(url_of(sock)) as client:
        found = client.upload(place, report=passed.append)
    second.stop()
    second.join()
    assert (found["id"], found["sha256"]) == (begun["id"], hashlib.sha256(data).hexdigest())
    assert passed[0] == sent  # what the service had is not sent again
    assert sum(passed) == len(data)


def test_the_same_file_again_is_the_same_upload(api):
    digest = digest_field(hashlib.sha256(DATA).hexdigest())
    where = begin(api, Upload_Length=len(DATA), Repr_Digest=digest)
    send(api, where, 0, DATA[:100])
    again = api.post(
        "/v1/uploads?name=mine.jsonl",
        headers={"Upload-Complete": "?0", "Upload-Length": str(len(DATA)), "Repr-Digest": digest},
    )
    assert (again.headers["location"], again.headers["upload-offset"]) == (where, "100")
    assert begin(api, name="other.jsonl", Upload_Length=len(DATA), Repr_Digest=digest) != where
    assert begin(api) != begin(api)


def test_an_owner_has_a_bounded_number_on_their_way_and_another_none_of_them(url):
    engine = open_database(url)

    def of(owner):
        return Arrivals(engine, caller=Caller(owner, implied([KeyScope.WRITE])))

    mine = [of("me").begin("a", length=None, sha256=None)[0].id for _ in range(MOST)]
    with pytest.raises(QuotaError, match=str(MOST)):
        of("me").begin("a", length=None, sha256=None)
    assert of("you").begin("a", length=1, sha256="f")[1]
    assert of("you").find(mine[0]) is None
    assert not of("you").drop(mine[0])
    assert of("me").drop(mine[0])
    assert of("me").begin("a", length=None, sha256=None)[1]
    with engine.begin() as connection:
        connection.execute(text("UPDATE arriving_uploads SET seen_at = seen_at - 86401 WHERE key_id = 'me'"))
    assert of("me").begin("a", length=None, sha256=None)[1]  # those that have expired do not count
    engine.dispose()


def test_a_finished_upload_belongs_to_who_began_it(url):
    engine = open_database(url)
    owner = Caller("me", implied([KeyScope.WRITE]))
    entry, _ = Arrivals(engine, caller=owner).begin("a", length=None, sha256=None)
    admin = Arrivals(engine, caller=Caller("boss", implied([KeyScope.ADMIN])))
    assert admin.finish(entry.id, {"x": 1})
    assert not admin.finish(entry.id, {"x": 2})  # done by two at once it is done once
    assert Catalog(engine).seen_by(owner).upload(entry.id).record == {"x": 1}
    gone, _ = admin.begin("a", length=None, sha256=None)
    assert admin.drop(gone.id)
    for late in (lambda: admin.finish(gone.id, {}), lambda: admin.touch(gone.id)):
        with pytest.raises(NotFoundError):
            late()
    engine.dispose()


def at_once(count, work):
    gate = threading.Barrier(count)

    def one(number):
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_of_many_that_send_at_one_place_one_wins(tmp_path):
    objects = Objects.local(tmp_path)
    for start in (0, 7, 14):
        won = at_once(8, lambda number, start=start: Parts(objects, "up_1").add(start, b"part %02d" % number))
        assert sum(won) == 1
        assert Parts(objects, "up_1").extent() == (start + 7, start // 7 + 1)


def test_many_that_finish_at_once_get_the_same_upload(api, services):
    for _ in range(5):
        where = begin(api, Upload_Length=len(DATA))
        send(api, where, 0, DATA)
        before = services.catalog.counts()["uploads"]
        entry = services.catalog.arrivals.find(where.rpartition("/")[2])
        found = at_once(4, lambda _number, entry=entry: arrivals._finish(services, entry, None))
        assert len({done.id for done in found}) == 1
        assert services.catalog.counts()["uploads"] == before + 1
        for piece in found[0].record["pieces"]:
            assert services.objects.size(f"uploads/{entry.id}/{piece['digest']}.parquet")
    assert services.objects.list("arriving") == []


def test_an_upload_that_another_finishes_while_it_is_joined_is_that_one(api, services, monkeypatch):
    where = begin(api, Upload_Length=len(DATA), Repr_Digest=digest_field(hashlib.sha256(DATA).hexdigest()))
    send(api, where, 0, DATA)
    entry, real, found = services.catalog.arrivals.find(where.rpartition("/")[2]), Parts.join, []

    def late(parts, local):
        monkeypatch.undo()
        found.append(arrivals._finish(services, entry, None))
        return real(parts, local)

    monkeypatch.setattr(Parts, "join", late)
    assert arrivals._finish(services, entry, None) == found[0]
    assert services.catalog.counts()["uploads"] == 1


def test_an_upload_that_could_not_be_finished_can_be_finished_again(api, services, monkeypatch):
    where = begin(api)
    real = arrivals.take_in

    def fails(*given, **options):
        real(*given, **options)
        raise StorageError("away")

    monkeypatch.setattr(arrivals, "take_in", fails)
    assert send(api, where, 0, DATA, complete=True).status_code == 500
    assert api.head(where).headers["upload-offset"] == str(len(DATA))
    monkeypatch.undo()
    assert send(api, where, len(DATA), b"", complete=True).json()["rows"] == 40
    assert list(services.settings.incoming.iterdir()) == []


def test_an_upload_dropped_while_it_is_finished_leaves_nothing(api, services, monkeypatch):
    where = begin(api)
    real = arrivals.take_in

    def dropped(*given, **options):
        record = real(*given, **options)
        assert api.delete(where).status_code == 204
        services.objects.write(f"{record.prefix}/late", b"x")  # written after the other has looked
        return record

    monkeypatch.setattr(arrivals, "take_in", dropped)
    assert_problem(send(api, where, 0, DATA, complete=True), 404, "not_found")
    nothing_left(services)


def test_a_part_that_is_gone_from_the_store_is_told(api, services):
    where = begin(api)
    send(api, where, 0, DATA[:100])
    send(api, where, 100, DATA[100:200])
    services.objects.delete([services.objects.list("arriving")[0]])
    parts = Parts(services.objects, where.rpartition("/")[2])
    with pytest.raises(SourceError, match="at byte 0 is gone"):
        parts.join(services.settings.incoming / "x")


def test_parts_too_small_for_a_whole_upload_come_to_an_end(api, monkeypatch):
    monkeypatch.setattr(arrivals, "SPARE_PARTS", 3 - 4096 * 1024**2 // PART_BYTES)
    where = begin(api)
    for number in range(3):
        assert send(api, where, number, b"x").status_code == 204
    body = assert_problem(send(api, where, 3, b"x"), 409, "conflict")
    assert "3 parts" in body["detail"]


def test_a_large_part_is_kept_in_pieces_of_bounded_size(api, services):
    where = begin(api)
    assert send(api, where, 0, b"x" * (2 * PART_BYTES + 5)).status_code == 204
    sizes = [services.objects.size(path) for path in services.objects.list("arriving")]
    assert sizes == [PART_BYTES, PART_BYTES, 5]
    api.delete(where)


def test_silent_uploads_expire(api, services):
    silent, live, empty = begin(api), begin(api), begin(api)
    for where in (silent, live):
        send(api, where, 0, DATA[:10])
    make_old(Path(services.objects.folder))
    ids = [where.rpartition("/")[2] for where in (silent, empty)]
    with services.engine.begin() as connection:
        for upload_id in ids:
            moved = text("UPDATE arriving_uploads SET seen_at = seen_at - :day WHERE id = :id")
            connection.execute(moved, {"day": DAY, "id": upload_id})
    shown = collect(services.leases, services.objects, services.settings.incoming, scope=Scope.ALL, delete=False)
    assert [item.path for item in shown if not item.file] == [f"arriving/{ids[0]}"]
    assert api.head(silent).status_code == 200
    make_runner(services).tend()
    assert [api.head(where).status_code for where in (silent, live, empty)] == [404, 200, 404]
    assert [path.split("/")[1] for path in services.objects.list("arriving")] == [live.rpartition("/")[2]]
