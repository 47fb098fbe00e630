"""The client and its commands against the API in this process: uploads, downloads that resume, errors as clear lines."""

from __future__ import annotations

import hashlib
import json
import re

import httpx2
import pytest

from packing.dataset.errors import DatasetError, SpecError
from packing.dataset.reader import check_file, read_manifest
from service import client as client_module
from service.cli import main
from service.client import Client, RefusedError, UnreachableError
from service.digests import digest_field
from tests.service.support import conversations, make_runner, settings_in


class Wire(httpx2.BaseTransport):
    """Passes requests to the API in this process, notes them, and breaks or bends answers where a test says so."""

    def __init__(self, api):
        self.api = api
        self.requests = []
        self.bend = lambda request, response: response

    def handle_request(self, request):
        self.requests.append(request)
        headers = {**dict(request.headers), "host": "127.0.0.1:8000"}
        response = self.api.request(request.method, str(request.url), headers=headers, content=request.read())
        kept = [(k, v) for k, v in response.headers.multi_items() if k.lower() not in ("content-encoding",)]
        return self.bend(request, httpx2.Response(response.status_code, headers=kept, content=response.content))

    def asked(self, part):
        return [request for request in self.requests if part in str(request.url)]


@pytest.fixture
def wire(built):
    return Wire(built[0])


@pytest.fixture
def client(wire):
    with Client("http://127.0.0.1:8000", transport=wire, pause=0.001) as opened:
        yield opened


@pytest.fixture
def dataset(built):
    return built[2]["dataset_id"]


def whole(folder):
    manifest = read_manifest(folder)
    for file in (*manifest.files, *manifest.documents):
        check_file(folder, file.path, file.bytes, file.sha256)
    return manifest


def test_a_download_is_whole(client, dataset, tmp_path):
    passed = []
    manifest = client.download(dataset, tmp_path / "d", report=passed.append)
    assert whole(tmp_path / "d") == manifest
    assert sum(passed) == sum(f.bytes for f in (*manifest.files, *manifest.documents))
    assert list((tmp_path / "d").rglob("*.part")) == []


def test_a_download_takes_no_file_of_anybody_else_and_mends_its_own(client, dataset, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "README.md").write_text("years of work")
    with pytest.raises(DatasetError, match=r"README\.md stands there already and is not the dataset's"):
        client.download(dataset, project)
    assert (project / "README.md").read_text() == "years of work"
    assert [p.name for p in project.rglob("*.parquet")] == []
    client.download(dataset, tmp_path / "d")
    (tmp_path / "d/README.md").write_text("damaged")
    client.download(dataset, tmp_path / "d")
    whole(tmp_path / "d")
    (tmp_path / "d/manifest.json").unlink()
    client.download(dataset, tmp_path / "d")
    whole(tmp_path / "d")


def test_an_upload_carries_its_sha256(client, wire, tmp_path):
    place = tmp_path / "a.jsonl"
    place.write_bytes(conversations(3))
    passed = []
    assert client.upload(place, report=passed.append)["rows"] == 3
    assert sum(passed) == place.stat().st_size
    sent = wire.asked("/v1/uploads")[0].headers["content-digest"]
    assert sent == digest_field(hashlib.sha256(place.read_bytes()).hexdigest())


class Cut(Wire):
    """A wire that passes some bytes of the first parts and breaks, then loses the answer to the last one."""

    def __init__(self, api, cuts):
        super().__init__(api)
        self.cuts = list(cuts)
        self.sent = []

    def handle_request(self, request):
        if request.method != "PATCH":
            return super().handle_request(request)
        body = request.read()
        cut = self.cuts.pop(0) if self.cuts else None
        if cut == "refused":
            return httpx2.Response(503, json={"code": "unavailable", "detail": "x"})
        if isinstance(cut, int):
            body = body[:cut]
        fields = {name: value for name, value in request.headers.items() if name != "content-length"}
        if isinstance(cut, int):
            fields["upload-complete"] = "?0"
        self.sent.append((int(fields["upload-offset"]), len(body)))
        answer = self.api.patch(str(request.url), headers=fields | {"host": "127.0.0.1:8000"}, content=body)
        if cut is not None:
            raise httpx2.ReadError("reset")
        return httpx2.Response(answer.status_code, headers=answer.headers.multi_items(), content=answer.content)


def test_a_large_upload_goes_on_where_it_broke(built, tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "RESUMABLE_BYTES", 1000)
    monkeypatch.setattr("service.sending.PART_BYTES", 3000)
    data = conversations(50)
    place = tmp_path / "large.jsonl"
    place.write_bytes(data)
    wire, passed = Cut(built[0], [None, 700, "refused", 0, None, "lost", None]), []
    with Client("http://127.0.0.1:8000", transport=wire, pause=0.001) as client:
        found = client.upload(place, report=passed.append)
        assert found["sha256"] == hashlib.sha256(data).hexdigest()
        assert sum(passed) == len(data)
        assert wire.sent[:4] == [(0, 3000), (3000, 700), (3700, 0), (3700, 3000)]
        assert wire.sent[-1][0] + wire.sent[-1][1] == len(data)
        assert sum(length for _, length in wire.sent) == len(data)  # nothing was sent twice
        wire.cuts = ["lost"] * 99
        monkeypatch.setattr("service.sending.PART_BYTES", len(data))
        place.write_bytes(data + b"\n")
        assert client.upload(place)["bytes"] == len(data) + 1  # the answer was lost, and the upload is there
        wire.cuts = [0] * 99
        place.write_bytes(data + b"\n\n")
        with pytest.raises(UnreachableError, match="broke"):
            client.upload(place)
        assert 99 - len(wire.cuts) == client_module.TRIES + 1
        wire.cuts = []
        client._wire.call("DELETE", f"/v1/uploads/{client.upload(place)['id']}")


def test_what_is_there_and_right_is_not_fetched_again(client, wire, dataset, tmp_path):
    manifest = client.download(dataset, tmp_path)
    assert len(wire.asked("/files/")) == len(manifest.files) + len(manifest.documents) > 5
    wire.requests.clear()
    client.download(dataset, tmp_path)
    assert wire.asked("/files/") == []


def test_what_is_there_and_wrong_is(client, wire, dataset, tmp_path):
    manifest = client.download(dataset, tmp_path)
    place = tmp_path / manifest.files[1].path
    data = bytearray(place.read_bytes())
    data[100] ^= 1
    place.write_bytes(data)
    wire.requests.clear()
    client.download(dataset, tmp_path)
    assert len(wire.asked("/files/")) == 1
    whole(tmp_path)


def test_what_is_begun_goes_on(client, wire, dataset, tmp_path):
    manifest = client.download(dataset, tmp_path / "a")
    file = manifest.files[0]
    data = (tmp_path / "a" / file.path).read_bytes()
    partial = tmp_path / "b" / f"{file.path}.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(data[:1000])
    wire.requests.clear()
    client.download(dataset, tmp_path / "b")
    asked = wire.asked(file.path)[0]
    assert asked.headers["range"] == "bytes=1000-"
    assert asked.headers["if-range"] == f'"{file.sha256}"'
    whole(tmp_path / "b")


def test_a_broken_connection_is_taken_up_where_it_broke(client, wire, dataset, tmp_path):
    broken = []

    class Breaks(httpx2.SyncByteStream):
        def __init__(self, data):
            self.data = data

        def __iter__(self):
            yield self.data[:3000]
            raise httpx2.ReadError("reset")

    def bend(request, response):
        if ".parquet" in str(request.url) and len(broken) < 2:
            broken.append(request.headers.get("range"))
            headers = [(k, v) for k, v in response.headers.multi_items() if k != "content-length"]
            return httpx2.Response(response.status_code, headers=headers, stream=Breaks(response.content))
        return response

    wire.bend = bend
    client.download(dataset, tmp_path)
    assert broken[0] is None
    assert re.fullmatch(r"bytes=\d+-", broken[1])
    whole(tmp_path)


def test_an_old_part_of_something_else_is_noticed(client, wire, dataset, tmp_path):
    manifest = client.download(dataset, tmp_path / "a")
    file = manifest.files[0]
    partial = tmp_path / "b" / f"{file.path}.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 1000)
    with pytest.raises(DatasetError, match="damaged"):
        client.download(dataset, tmp_path / "b")
    assert not partial.exists()
    assert not (tmp_path / "b" / "manifest.json").exists()
    client.download(dataset, tmp_path / "b")
    whole(tmp_path / "b")
    too_long = tmp_path / "c" / f"{file.path}.part"
    too_long.parent.mkdir(parents=True)
    too_long.write_bytes(b"x" * (file.bytes + 1))
    client.download(dataset, tmp_path / "c")
    whole(tmp_path / "c")


def test_bytes_that_arrive_damaged_are_refused(client, wire, dataset, tmp_path):
    def bend(request, response):
        if ".parquet" not in str(request.url):
            return response
        data = bytearray(response.content)
        data[-1] ^= 1
        return httpx2.Response(response.status_code, headers=response.headers.multi_items(), content=bytes(data))

    wire.bend = bend
    with pytest.raises(DatasetError, match="damaged"):
        client.download(dataset, tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_another_datasets_folder_is_not_overwritten(client, dataset, tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DatasetError, match="another dataset"):
        client.download(dataset, tmp_path)
    assert (tmp_path / "manifest.json").read_text() == "{}"


def test_passing_refusals_are_waited_out_and_lasting_ones_are_not(client, wire, built):
    counted = []

    def bend(request, response):
        counted.append(1)
        return httpx2.Response(503, json={"code": "unavailable", "detail": "x"}) if len(counted) < 3 else response

    wire.bend = bend
    assert client.job(built[2]["id"])["state"] == "succeeded"
    assert len(counted) == 3
    with pytest.raises(RefusedError) as caught:
        client.job("job_0")
    assert (caught.value.status, caught.value.code, len(counted)) == (404, "not_found", 4)


def test_an_answer_that_is_no_problem(client, wire):
    wire.bend = lambda request, response: httpx2.Response(404, text="<html>another server</html>")
    with pytest.raises(RefusedError, match="is it Longweave"):
        client.job("job_0")


def test_spec_errors_come_back_as_spec_errors(client):
    with pytest.raises(SpecError) as caught:
        client.submit({"kind": "skipalign", "colour": 1, "source": {"upload": "up_0"}}, key="k")
    assert "/colour" in {problem.pointer for problem in caught.value.problems}


def test_nobody_there(tmp_path):
    with Client("http://127.0.0.1:1", pause=0.001) as nobody:
        for call in (
            lambda: nobody.job("job_0"),
            lambda: nobody.jobs(state=None, kind=None, limit=1),
            lambda: next(nobody.events("job_0")),
            lambda: nobody.download("ds_0", tmp_path),
        ):
            with pytest.raises(UnreachableError, match=r"no service answers at http://127\.0\.0\.1:1"):
                call()


def test_events_are_taken_up_after_a_break(client, wire, built):
    job = built[2]["id"]
    events = list(client.events(job))
    breaks = []

    def bend(request, response):
        if "/events" not in str(request.url) or len(breaks) >= 2:
            return response
        breaks.append(request.headers["last-event-id"])
        cut = response.content.find(b"\n\n", response.content.find(b"data: ")) + 2
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=response.content[:cut])

    wire.bend = bend
    # A cut stream looks like one that has ended, and the job has ended too: still nothing may be lost.
    assert list(client.events(job)) == events
    assert breaks == ["0", str(events[0]["id"])]


@pytest.mark.parametrize("byes", [1, 3])
def test_a_stream_that_breaks_off_before_the_end_tells_the_end_all_the_same(client, wire, built, byes):
    job, silent = built[2]["id"], []

    def bend(request, response):
        if "/events" not in str(request.url) or len(silent) >= byes:
            return response
        silent.append(1)
        bye = b'event: bye\ndata: "the server stops"\n\n'
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=bye)

    wire.bend = bend
    # The job has ended meanwhile: what ended it must come nevertheless.
    assert [event["data"]["state"] for event in client.events(job) if event["type"] == "state"][-1] == "succeeded"
    assert len(silent) == byes


def test_a_stream_that_is_refused_for_a_while_is_asked_for_again(client, wire, built):
    job, refused = built[2]["id"], []

    def bend(request, response):
        if "/events" not in str(request.url) or len(refused) >= 3:
            return response
        refused.append(1)
        problem = {"code": "unavailable", "detail": "the database cannot be reached just now", "errors": []}
        return httpx2.Response(503, json=problem)

    wire.bend = bend
    states = [event["data"]["state"] for event in client.events(job) if event["type"] == "state"]
    assert (states[-1], len(refused)) == ("succeeded", 3)
    wire.bend = lambda request, response: httpx2.Response(403, json={"code": "missing_scope", "detail": "no"})
    with pytest.raises(RefusedError, match="no"):
        list(client.events(job))


# --- the commands -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(built, wire, monkeypatch, capsys):
    """Run `longweave …` against the API in this process; returns (exit code, stdout, stderr)."""
    real = client_module.Client

    def connect(url, **options):
        return real(url, transport=wire, pause=0.001, **options)

    for name in ("submit", "jobs", "watch", "cancel", "upload", "download"):
        monkeypatch.setattr(f"service.commands.{name}.Client", connect)

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


@pytest.fixture
def source(tmp_path):
    place = tmp_path / "talks.jsonl"
    place.write_bytes(conversations(12))
    return place


def write_spec(tmp_path, **fields):
    place = tmp_path / "spec.yaml"
    place.write_text(json.dumps({"kind": "skipalign", "strategy": "outer", **fields}))
    return place


def test_submit_uploads_builds_and_downloads(command, built, source, tmp_path, monkeypatch):
    services = built[1]
    # The queue is worked on as soon as the job is in it.
    submit = services.jobs.submit

    def submit_and_run(request):
        job = submit(request)
        make_runner(services).run_once()
        return job

    monkeypatch.setattr(type(services.jobs), "submit", lambda _store, request: submit_and_run(request))
    spec = write_spec(tmp_path, name="sent", source={"path": str(source)})
    code, out, err = command("submit", spec, "--out", tmp_path / "out")
    assert code == 0, err
    assert "succeeded" in out
    assert whole(tmp_path / "out").counts["rows"] == 12
    assert "uploading talks.jsonl" in err
    assert "\x1b" not in err
    code, out, _ = command("submit", spec, "--wait", "--json")
    job = json.loads(out)
    assert (code, job["state"], job["progress"]["rows"]) == (0, "succeeded", 12)
    code, out, _ = command("watch", job["id"])
    assert (code, "12 rows" in out) == (0, True)
    code, out, _ = command("download", job["id"], tmp_path / "again")
    assert code == 0
    assert (tmp_path / "again" / "manifest.json").exists()


def test_submit_names_every_bad_field_with_exit_code_2(command, source, tmp_path, wire):
    spec = write_spec(tmp_path, source={"path": str(source)}, probability=1.5, colour=1)
    code, out, err = command("submit", spec)
    assert (code, out) == (2, "")
    assert {line.split(": ")[1] for line in err.splitlines()} == {"/probability", "/colour"}
    assert wire.requests == []
    spec = write_spec(tmp_path, source={"upload": "up_0"})
    code, _, err = command("submit", spec)
    assert (code, "/source/upload" in err) == (2, True)


def test_submit_of_files_that_are_not_there(command, tmp_path, wire):
    code, _, err = command("submit", tmp_path / "no.yaml")
    assert (code, err.count("\n")) == (1, 1)
    code, _, err = command("submit", write_spec(tmp_path, source={"path": str(tmp_path / "no.jsonl")}))
    assert (code, "does not exist" in err) == (1, True)
    code, _, err = command("submit", write_spec(tmp_path, source={"path": str(tmp_path)}))
    assert (code, "/source/path" in err) == (2, True)
    assert wire.requests == []


def test_jobs_lists_and_cancel_cancels(command, built, source, tmp_path):
    spec = write_spec(tmp_path, name="to be cancelled", source={"path": str(source)})
    code, out, _ = command("submit", spec, "--priority", "-3", "--json")
    job = json.loads(out)["id"]
    assert json.loads(out)["priority"] == -3
    code, out, _ = command("jobs", "--state", "queued")
    assert code == 0
    assert job in out
    assert "to be cancelled" in out
    code, out, _ = command("cancel", job)
    assert (code, out) == (0, f"{job} cancelled\n")
    code, out, _ = command("jobs", "--state", "queued", "--json")
    assert (code, json.loads(out)) == (0, [])
    code, _, err = command("watch", job)
    assert (code, f"error: {job} cancelled" in err) == (1, True)
    code, _, err = command("download", job, tmp_path / "x")
    assert (code, "has no dataset" in err) == (1, True)
    code, _, err = command("cancel", built[2]["id"])
    assert (code, "succeeded already" in err) == (1, True)


def test_upload_counts(command, source):
    code, out, err = command("upload", source)
    assert (code, "12 rows" in out) == (0, True)
    source.write_bytes(conversations(2) + b"oops\n")
    code, out, err = command("upload", source)
    assert (code, "row 3" in err) == (0, True)
    code, out, _ = command("upload", source, "--json")
    assert json.loads(out)["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    source.write_bytes(b"")
    code, _, err = command("upload", source)
    assert (code, err.splitlines()[-1]) == (1, "error: talks.jsonl is empty")


@pytest.mark.parametrize("words", [["jobs"], ["watch", "job_0"], ["cancel", "job_0"], ["download", "ds_0", "x"]])
def test_no_service_is_one_line_and_exit_code_1(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--url", "http://127.0.0.1:1"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: no service answers at http://127.0.0.1:1")
    assert err.count("\n") == 1


@pytest.mark.parametrize("url", ["http://[", "127.0.0.1:8000", "", "ftp://localhost", "http://localhost:port"])
def test_what_is_no_url_is_one_line(url, capsys):
    assert main(["jobs", "--url", url]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_settings_errors_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LONGWEAVE_WORKERS", "many")
    assert main(["serve", "--data-dir", str(tmp_path), "--port", "0"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: LONGWEAVE_WORKERS must be a number of at least 0, not 'many'"
    ]
    assert settings_in(tmp_path).workers > 0
