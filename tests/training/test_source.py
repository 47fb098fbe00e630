"""A dataset streamed from a service's URL: a small server that does Range, and that can misbehave on request."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from packing.dataset.errors import DatasetError, SourceError
from packing.dataset.reader import read_manifest
from training import source as sources
from training.source import open_source
from training.stream import DataState, RowStream

PREFIX = "/v1/datasets/d1"


class Server(ThreadingHTTPServer):
    """Serves one dataset folder; `faults` holds what to do wrong, request by request."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.key: str | None = None
        self.faults: list[str] = []
        self.always: str | None = None
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{PREFIX}"


class Handler(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        fault = self.server.always or (self.server.faults.pop(0) if self.server.faults else None)
        if self.server.key is not None and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self.answer(401, b"")
        elif fault in {"500", "503", "429"}:
            self.answer(int(fault), b"later")
        elif fault == "hang up":
            self.close_connection = True
        elif self.path == f"{PREFIX}/manifest":
            self.answer(200, (self.server.folder / "manifest.json").read_bytes())
        elif self.path.startswith(f"{PREFIX}/files/"):
            self.send_file(self.path.removeprefix(f"{PREFIX}/files/"), fault)
        else:
            self.answer(404, b"")

    def send_file(self, path: str, fault: str | None) -> None:
        data = (self.server.folder / path).read_bytes()
        (file,) = (f for f in self.server.manifest.files if f.path == path)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert asked is not None
        start, stop = int(asked[1]), int(asked[2]) + 1
        body, size, etag = data[start:stop], len(data), file.sha256
        if fault == "flip":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if fault == "shorter range":
            stop, body = stop - 1, body[:-1]
        if fault == "other size":
            size += 1
        if fault == "other etag":
            etag = "f" * 64
        headers = {"Content-Range": f"bytes {start}-{stop - 1}/{size}", "ETag": f'"{etag}"'}
        if fault == "no range":
            self.answer(200, data)
        elif fault == "cut":
            self.answer(206, body, headers, send=body[: len(body) // 2])
        else:
            self.answer(206, body, headers)

    def answer(
        self, code: int, body: bytes, headers: dict[str, str] | None = None, *, send: bytes | None = None
    ) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if send is None else send)
        self.close_connection = True


@pytest.fixture
def server(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(sources, "WAITS", (0.0, 0.0))
    running = Server(dataset)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def rows(url: str, count: int = 30, *, key: str | None = None) -> list[tuple[str, list[int], list[int]]]:
    stream = RowStream(open_source(url, key=key), seed=3)
    found = itertools.islice(stream.rows_from(DataState()), count)
    return [(row.name, row.input_ids.tolist(), row.position_ids.tolist()) for row, _ in found]


def test_a_url_gives_the_rows_of_the_directory(server: Server, dataset: Path):
    assert rows(server.url) == rows(str(dataset))
    assert len(rows(server.url + "/")) == 30
    assert open_source(server.url).digest == open_source(str(dataset)).digest
    ranges = [asked for path, asked in server.asked if "/files/" in path]
    assert len(ranges) > 10
    assert all(ranges)


def test_faults_that_pass_are_waited_out(server: Server, dataset: Path):
    for fault in ("500", "503", "429", "hang up", "cut"):
        for before in range(6):
            server.faults = ["fine"] * before + [fault, fault, "fine"]
            assert rows(server.url) == rows(str(dataset)), fault
            assert fault not in server.faults


def test_faults_that_stay_end_the_stream(server: Server):
    source = open_source(server.url)
    for fault, says in (("500", "answered 500"), ("hang up", "in 3 tries"), ("cut", "in 3 tries: .*of")):
        server.always = fault
        before = len(server.asked)
        with pytest.raises(SourceError, match=says):
            RowStream(source, seed=3)
        assert len(server.asked) == before + 3
    server.shutdown()
    server.server_close()
    with pytest.raises(SourceError, match="could not be read in 3 tries"):
        open_source(server.url)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("other size", r"bytes, the manifest says"),
        ("other etag", r"is not the manifest's: its ETag"),
        ("shorter range", r"where \d+-\d+ were asked for"),
        ("no range", r"does not answer Range requests|more than the \d+ bytes"),
        ("flip", r"no whole Parquet file|damaged"),
    ],
)
def test_other_bytes_than_the_manifests_are_refused_by_name(server: Server, fault: str, says: str):
    server.always = None
    source = open_source(server.url)
    server.always = fault
    with pytest.raises(DatasetError, match=says) as caught:
        RowStream(source, seed=3)
    assert "train-00000-of-00004.parquet" in caught.value.message


def test_a_damaged_page_is_refused_by_name(server: Server):
    stream = RowStream(open_source(server.url), seed=3)
    footers = len(server.asked)
    server.faults = []
    list(itertools.islice(stream.rows_from(DataState()), 1))
    # The first row group is opened (footer), then its columns are read: flip a bit in the last of them.
    server.faults = ["fine"] * (len(server.asked) - footers - 1) + ["flip"]
    with pytest.raises(DatasetError, match=r"parquet is damaged in row group \d"):
        list(itertools.islice(stream.rows_from(DataState()), 1))


def test_keys_and_addresses(server: Server, dataset: Path):
    server.key = "sesame"
    with pytest.raises(SourceError, match=r"refuses access \(401\): set data.key"):
        open_source(server.url)
    assert rows(server.url, key="sesame") == rows(str(dataset))
    with pytest.raises(SourceError, match=r"not there \(404\)"):
        open_source(server.url.replace("d1", "d2"), key="sesame")
