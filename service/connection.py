"""A connection to the service's REST API: requests, refusals as errors of the house, and patience with what passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2

from packing.dataset.errors import FieldProblem, LongweaveError, SpecError
from service.access import read_key

DEFAULT_URL = "http://127.0.0.1:8000"
TRIES = 5
PASSING = (429, 502, 503, 504)
"""Answers that ask to wait."""
REDIRECT = 307
PAUSE_SECONDS = 0.5


class UnreachableError(LongweaveError):
    """Nobody answers at the URL."""

    code = "unreachable"


class RefusedError(LongweaveError):
    """The service has refused a request; `status` and `code` are its own."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.status = status
        self.code = code


class Connection:
    """The API at one URL, with an API key where the service has keys. The key goes nowhere else."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        transport: httpx2.BaseTransport | None = None,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        # Checked here, for a header that cannot be sent would be repeated in the error.
        headers = {"Authorization": f"Bearer {read_key(key.strip()).text()}"} if key else {}
        self.url = url.rstrip("/")
        self.pause = pause
        timeout = httpx2.Timeout(60.0, connect=5.0)
        # Proxies of the environment are for the internet; they would be asked for loopback too.
        try:
            self.http = httpx2.Client(
                base_url=self.url, timeout=timeout, transport=transport, trust_env=False, headers=headers
            )
        except httpx2.InvalidURL as error:
            message = f"{url!r} is no URL ({error}); one looks like {DEFAULT_URL}"
            raise UnreachableError(message, param="--url") from error

    def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """One request; raises UnreachableError, and for answers from 400 on RefusedError or SpecError."""
        try:
            response = self.http.request(method, path, **options)
        except httpx2.HTTPError as error:
            raise self.unreachable(error) from error
        if response.status_code >= 400:
            raise refusal(response)
        return response

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Generator[httpx2.Response]:
        """A GET whose body comes in pieces. Where the service sends us on to its object store, we go there once and without the key."""
        with self.http.stream("GET", path, headers=headers) as response:
            if response.status_code != REDIRECT:
                yield response
                return
            onward = self.http.build_request("GET", response.headers["Location"], headers=headers)
        for name in ("Authorization", "If-Range"):  # the store knows neither our keys nor our tags
            onward.headers.pop(name, None)
        answer = self.http.send(onward, stream=True)
        try:
            yield answer
        finally:
            answer.close()

    def patiently(self, call: Callable[[], Any]) -> Any:
        """Repeat a call that may be repeated, after connections that broke and answers that ask to wait."""
        for tried in range(1, TRIES + 1):
            try:
                return call()
            except (httpx2.HTTPError, UnreachableError, RefusedError) as error:
                passing = not isinstance(error, RefusedError) or error.status in PASSING
                never_there = isinstance(error, UnreachableError) and isinstance(error.__cause__, httpx2.ConnectError)
                if not passing or tried == TRIES or never_there:
                    raise self.unreachable(error) if isinstance(error, httpx2.HTTPError) else error from error
                time.sleep(self.pause * 2**tried)
        raise AssertionError

    def unreachable(self, error: Exception) -> UnreachableError:
        """The error for a connection that was not made or broke."""
        if isinstance(error, UnreachableError):
            return error
        why = str(error) or type(error).__name__
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol):
            return UnreachableError(f"no service answers at {self.url} ({why}); start one with `longweave serve`")
        return UnreachableError(f"the connection to {self.url} broke ({why})")


def segment(name: str) -> str:
    """An id as one segment of a path, whatever a user has typed."""
    from urllib.parse import quote

    return quote(name, safe="") or "-"


def refusal(response: httpx2.Response) -> LongweaveError:
    """The problem of an error response as an error of the house."""
    try:
        problem: dict[str, Any] = response.json()
        errors = [FieldProblem(pointer=e["pointer"], message=e["message"]) for e in problem.get("errors", [])]
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError, AttributeError):
        message = f"the service answered {response.status_code} and no problem: is it Longweave at {response.url.host}?"
        return RefusedError(response.status_code, "no_problem", message)
    if code == SpecError.code and errors:
        return SpecError(errors)
    return RefusedError(response.status_code, code, detail, param=problem.get("param"))
