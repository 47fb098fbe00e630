"""An S3 server for tests, moto's, that writes down what it is asked and can be told to ignore conditions or to refuse."""

from __future__ import annotations

import threading
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest


@dataclass(frozen=True)
class Asked:
    """One request: `range` is its Range header, empty where it asked for a whole object."""

    method: str
    path: str
    range: str
    query: str = ""
    authorization: str = ""


@dataclass
class ObjectStore:
    """A running S3 server with one bucket."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    ignores_conditions: bool = False
    away: bool = False

    @property
    def environ(self) -> dict[str, str]:
        """What the AWS_* variables have to be."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }


@contextmanager
def serving():
    """A running S3 server; raises ImportError where moto is not installed."""
    import moto.server as moto
    from werkzeug import serving as werkzeug

    backend = moto.DomainDispatcherApplication(moto.create_backend_app)
    store = ObjectStore("")
    one_at_a_time = threading.Lock()  # moto looks and puts in two steps

    def app(environ, start_response):
        given = (environ.get(name, "") for name in ("HTTP_RANGE", "QUERY_STRING", "HTTP_AUTHORIZATION"))
        store.asked.append(Asked(environ["REQUEST_METHOD"], environ["PATH_INFO"], *given))
        if store.ignores_conditions:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if store.away:
            start_response("403 Forbidden", [("Content-Length", "0")])
            return [b""]
        with one_at_a_time:
            return backend(environ, start_response)

    class Quiet(werkzeug.WSGIRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_request(self, *_args):
            pass

    server = werkzeug.make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{store.url}/bucket", method="PUT")):
            pass
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def object_store():
    """An S3 server of this test run's own; the tests that need one are skipped where moto is not installed."""
    pytest.importorskip("moto.server", reason="moto is not installed: no S3 server to test against")
    with serving() as store:
        yield store


@pytest.fixture
def s3(object_store, monkeypatch):
    """The S3 server, with this process's environment saying how to reach it."""
    for name, value in object_store.environ.items():
        monkeypatch.setenv(name, value)
    object_store.ignores_conditions = object_store.away = False
    object_store.asked.clear()
    return object_store
