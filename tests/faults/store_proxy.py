"""An HTTP proxy before an S3 server that loses answers, makes up refusals, stalls and cuts connections: at the operation it is told to.

Faults, by what the client sees and what the store did:

| fault | the store | the client |
|---|---|---|
| 500, 503, 409, 412 | was not asked | that status with S3's error body |
| 500 after | carried it out | 500 |
| cut, cut after | was not asked; carried it out | the connection closed without an answer |
| cut halfway | answered | half of the answer's body, then the connection closed |
| stall, stall after | was not asked; carried it out | nothing, for longer than it waits |
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

REFUSALS = {
    "500": (500, "InternalError"),
    "500 after": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "409": (409, "ConditionalRequestConflict"),
    "412": (412, "PreconditionFailed"),
}
FAULTS = (*REFUSALS, "cut", "cut after", "cut halfway", "stall", "stall after")
CONDITIONAL = frozenset({"409", "412"})
"""What S3 answers to conditional requests alone."""
SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
}
"""What makes moto take a request for its owner's: it does not check signatures."""
OPERATIONS = (
    "put header",
    "put mark",
    "put survey",
    "put kept",
    "put plan",
    "put shard",
    "put receipt",
    "put document",
    "create manifest",
    "list",
    "head",
    "get",
    "get range",
    "delete",
)
PLACES = {
    "/header.json": "put header",
    "/begun/": "put mark",
    "/surveys/": "put survey",
    "/kept/": "put kept",
    "/plans/": "put plan",
    "/data/": "put shard",
    "/receipts/": "put receipt",
    "/manifest.json": "create manifest",
}
"""Operations by what is in the path of a PUT, the first that is found."""


def operation_of(method: str, path: str, query: str) -> str:
    """What a request is to a job: one of OPERATIONS."""
    if method == "PUT":
        return next((name for part, name in PLACES.items() if part in path), "put document")
    if method == "GET" and "list-type" in parse_qs(query, keep_blank_values=True):
        return "list"
    return {"GET": "get", "HEAD": "head"}.get(method, "delete")


@dataclass
class Order:
    """A fault to come: from the `nth` request of an operation on, `times` of them meet it."""

    operation: str
    fault: str
    nth: int = 1
    times: int = 1
    seen: int = 0


@dataclass
class StoreProxy:
    """A running proxy. `delivered` counts faults by operation and fault, `asked` every request by operation."""

    behind: str
    stall_seconds: float
    order: Order | None = None
    delivered: Counter[tuple[str, str]] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    manifests: int = 0  # carried out
    early: list[str] = field(default_factory=list)  # manifests that came before one of their files
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Listen on a port of our own, on loopback."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fault_for(self, operation: str) -> str:
        """The fault that a request meets, counted as delivered; empty where it meets none."""
        with self._lock:
            self.asked[operation] += 1
            order = self.order
            if order is None or order.operation != operation:
                return ""
            order.seen += 1
            if not order.nth <= order.seen < order.nth + order.times:
                return ""
            self.delivered[operation, order.fault] += 1
            return order.fault

    def pass_on(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[HTTPResponse, bytes]:
        """Have the store carry a request out; its answer, and the answer's body."""
        connection = HTTPConnection(urlsplit(self.behind).netloc, timeout=60)
        try:
            connection.request(method, target, body=body, headers=headers)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def look_at_manifest(self, target: str, body: bytes) -> None:
        """Every file that a manifest names has to stand when the manifest does."""
        folder = unquote(urlsplit(target).path).removesuffix("manifest.json")
        told = json.loads(body)
        with self._lock:
            self.manifests += 1
        for file in told["files"]:
            answer, content = self.pass_on("GET", quote(f"{folder}{file['path']}"), SIGNED, b"")
            if answer.status != 200 or hashlib.sha256(content).hexdigest() != file["sha256"]:
                self.early.append(f"{folder}{file['path']} {answer.status}")


class _Handler(BaseHTTPRequestHandler):
    proxy: StoreProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_arguments):
        pass

    def _serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        operation = operation_of(self.command, parts.path, parts.query)
        if operation == "get" and self.headers.get("Range"):
            operation = "get range"
        fault = self.proxy.fault_for(operation)
        if fault in ("cut", "stall"):
            self._vanish(fault)
        elif fault in REFUSALS and not fault.endswith("after"):
            self._refuse(fault)
        else:
            self._carry_out(operation, body, fault)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve  # noqa: N815 (http.server calls them so)

    def _carry_out(self, operation, body, fault):
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        answer, content = self.proxy.pass_on(self.command, self.path, headers, body)
        if operation == "create manifest" and answer.status == 200:
            self.proxy.look_at_manifest(self.path, body)
        if fault in ("cut after", "stall after"):
            self._vanish(fault)
        elif fault in REFUSALS:
            self._refuse(fault)
        else:
            self._answer(answer, content, halfway=fault == "cut halfway")

    def _vanish(self, fault):
        if fault.startswith("stall"):
            time.sleep(self.proxy.stall_seconds)
        self.close_connection = True

    def _refuse(self, fault):
        status, code = REFUSALS[fault]
        told = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made up</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else told)

    def _answer(self, answer, content, *, halfway):
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                self.send_header(name, value)
        if self.command == "HEAD":
            self.send_header("Content-Length", answer.headers.get("Content-Length", "0"))
        elif answer.status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if halfway else content)
        self.close_connection |= halfway
