"""`longweave ask` against a stub of an OpenAI-compatible server: answers, retries, resumption, refusals, and a key nobody sees."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from packing.dataset.errors import InputError
from service import asking
from service.asking import Asker, Server, ServerError, answered
from service.cli import main
from tests.service import needles
from tests.service.needles import ROWS

KEY = "sk-nobody-may-read-this"
Reply = tuple[int, dict[str, str], Any]


class Stub:
    """A server whose answers a test decides about. It notes what it was asked, and how many requests it had at once at most."""

    def __init__(self) -> None:
        self.reply: Callable[[int, dict[str, Any]], Reply] = lambda _number, _body: said("?")
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: set[str] = set()
        self.together = self.most_together = 0
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with stub._lock:
                    stub.bodies.append(body)
                    stub.paths.append(self.path)
                    stub.keys.add(self.headers.get("authorization", ""))
                    number = len(stub.bodies)
                    stub.together += 1
                    stub.most_together = max(stub.most_together, stub.together)
                status, headers, value = stub.reply(number, body)
                with stub._lock:
                    stub.together -= 1
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, text in {"content-length": str(len(data)), **headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


def said(text: str) -> Reply:
    return 200, {}, {"choices": [{"message": {"role": "assistant", "content": text}, "text": text}]}


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return needles.build(tmp_path_factory.mktemp("needles"))


@pytest.fixture(scope="module")
def answers(dataset) -> dict[str, str]:
    return {row["input"] + row["answer_prefix"]: needles.right(row) for row in needles.rows_of(dataset)}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch) -> list[float]:
    taken: list[float] = []
    real = Asker.__init__
    monkeypatch.setattr(
        Asker, "__init__", lambda self, server, **more: real(self, server, **{"pause": taken.append, **more})
    )
    return taken


def ask(dataset: Path, stub: Stub, out: Path, *more: str) -> int:
    return main(["ask", str(dataset), "--url", stub.url, "--model", "m", "--out", str(out), *more])


def prompt_of(body: dict[str, Any]) -> str:
    return body["messages"][0]["content"] if "messages" in body else body["prompt"]


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_every_probe_is_asked_once_at_once_and_scored(dataset, answers, stub, tmp_path, capsys, monkeypatch, api):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    gate = threading.Barrier(4, timeout=20)
    waits = threading.local()

    def reply(number: int, body: dict[str, Any]) -> Reply:
        if number <= 4 and not hasattr(waits, "done"):
            gate.wait()  # opens only when four requests are there together
        return said(answers[prompt_of(body)])

    stub.reply = reply
    assert ask(dataset, stub, tmp_path / "p.jsonl", "--api", api, "--concurrency", "4", "--json") == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["answered"] == ROWS == len(stub.bodies)
    assert {cell["recall"] for cell in report["tasks"]} == {1.0}
    assert stub.most_together == 4
    assert set(stub.paths) == {"/v1/chat/completions" if api == "chat" else "/v1/completions"}
    assert stub.keys == {f"Bearer {KEY}"}
    assert {body["max_tokens"] for body in stub.bodies} == {6, 50, 128}
    assert {body["temperature"] for body in stub.bodies} == {0}
    assert KEY not in out + err + (tmp_path / "p.jsonl").read_text()


def test_busy_and_broken_servers_are_asked_again(dataset, answers, stub, tmp_path, capsys, no_pauses):
    def reply(number: int, body: dict[str, Any]) -> Reply:
        if number == 1:
            return 429, {"retry-after": "7"}, {"error": {"message": "slow down"}}
        if number == 2:
            return 503, {}, {}
        if number == 3:
            return 0, {}, {}
        return said(answers[prompt_of(body)])

    stub.reply = reply
    assert ask(dataset, stub, tmp_path / "p.jsonl", "--concurrency", "1", "--json") == 0
    assert len(stub.bodies) == ROWS + 3
    assert no_pauses == [7.0, 14.0, 28.0], "pauses double, and are as long as the server wants at least"
    assert json.loads(capsys.readouterr().out)["answered"] == ROWS


def test_an_interrupted_run_goes_on_where_it_stopped(dataset, answers, stub, tmp_path, capsys):
    stub.reply = lambda number, body: (
        said(answers[prompt_of(body)]) if number <= 10 else (401, {}, {"error": {"message": "no"}})
    )
    out = tmp_path / "p.jsonl"
    assert ask(dataset, stub, out, "--concurrency", "1") == 1
    assert "error: the server says 401: no" in capsys.readouterr().err
    assert len(answered(out)) == 10
    with out.open("a") as stream:
        stream.write('{"id": "torn')
    stub.reply = lambda _number, body: said(answers[prompt_of(body)])
    stub.bodies.clear()
    assert ask(dataset, stub, out, "--limit", "5", "--json") == 0
    assert len(stub.bodies) == 5
    assert json.loads(capsys.readouterr().out)["missing"]["count"] == ROWS - 15
    assert ask(dataset, stub, out, "--json") == 0
    assert len(stub.bodies) == ROWS - 10
    report = json.loads(capsys.readouterr().out)
    assert (report["answered"], report["missing"]["count"], report["duplicates"]["count"]) == (ROWS, 0, 0)


def test_probes_that_the_server_refuses_count_as_empty_and_are_told(dataset, answers, stub, tmp_path, capsys):
    longest = max(answers, key=len)
    refusal = (400, {}, {"error": {"message": "too long for\n this model"}})
    stub.reply = lambda _n, body: refusal if prompt_of(body) == longest else said(answers[prompt_of(body)])
    assert ask(dataset, stub, tmp_path / "p.jsonl") == 0
    out, err = capsys.readouterr()
    assert "1 probes were refused and count as empty" in err
    assert "too long for this model" in err
    assert "1 empty" in out


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ((404, {}, {"error": {"message": "no such model"}}), "the server says 404: no such model"),
        ((200, {}, {"choices": []}), "the server's answer is not the API's"),
        ((200, {}, b"<html>"), "the server's answer is not the API's"),
        ((500, {}, {}), "no answer from http://127.0.0.1"),
    ],
)
def test_servers_that_cannot_be_used_are_one_clear_line(dataset, stub, tmp_path, capsys, monkeypatch, reply, says):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    stub.reply = lambda _number, _body: reply
    assert ask(dataset, stub, tmp_path / "p.jsonl", "--tries", "2") == 1
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert KEY not in err


def test_nobody_there_and_no_address(dataset, tmp_path, capsys):
    arguments = ["ask", str(dataset), "--model", "m", "--out", str(tmp_path / "p.jsonl"), "--tries", "2"]
    assert main([*arguments, "--url", "http://127.0.0.1:9/v1"]) == 1
    assert "no answer from http://127.0.0.1:9/v1 in 2 tries" in capsys.readouterr().err
    for url in ("http://[x", "127.0.0.1:8000/v1", "ftp://x/v1", "http:///v1"):
        with pytest.raises(ServerError, match="is no URL of a server"):
            Asker(Server(url=url, model="m"))


def test_a_file_that_is_no_predictions_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("buy milk\n")
    with pytest.raises(InputError, match="line 1 is no prediction of ours"):
        answered(path)
    assert path.read_text() == "buy milk\n"
    for text in (
        "one line without an end",
        '{"model": "tiny"}',
        '{"id": "a", "messages": []}\n',
        '{"id": 1}',
        '{"id": "a", "text": "b"}',
    ):
        path.write_text(text)
        with pytest.raises(InputError, match="line 1 is no prediction of ours"):
            answered(path)
        assert path.read_text() == text


def test_what_is_torn_off_is_cut_and_what_others_wrote_is_closed(tmp_path):
    path = tmp_path / "p.jsonl"
    whole = '{"id": "a", "prediction": "x"}\n'
    for torn in ('{"id": "b", "pred', '{"id', "{"):
        path.write_text(whole + torn)
        assert answered(path) == {"a"}
        assert path.read_text() == whole
    for unclosed in ('{"prediction":"y","id":"b"}', '{"id": "b", "prediction": "y"}'):
        path.write_text(whole + unclosed)
        assert answered(path) == {"a", "b"}
        assert path.read_text() == f"{whole}{unclosed}\n"


def test_the_key_stays_out_of_reprs():
    assert KEY not in repr(Server(url="http://x", model="m", key=KEY))
    assert asking.LONGEST_PAUSE == 60
