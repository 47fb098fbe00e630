"""A client of the service's REST API: what the commands submit, jobs, watch, cancel, upload and download stand on."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from packing.dataset.errors import DatasetError, FieldProblem, LongweaveError, SpecError
from packing.dataset.manifest import NAME as MANIFEST
from packing.dataset.manifest import Manifest
from packing.dataset.reader import file_digest, inside
from service.access import read_key
from service.digests import digest_field

DEFAULT_URL = "http://127.0.0.1:8000"
ENDED = ("succeeded", "failed", "cancelled")
TRIES = 5
PAUSE_SECONDS = 0.5
CHUNK = 1024 * 1024

Report = Callable[[int], None]
"""Told how many more bytes have passed."""


class UnreachableError(LongweaveError):
    """Nobody answers at the URL."""

    code = "unreachable"


class RefusedError(LongweaveError):
    """The service has refused a request; `status` and `code` are its own."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.status = status
        self.code = code


def _ignore(_count: int) -> None:
    """Nobody wants to know."""


class Client:
    """The API at one URL, with an API key where the service has keys. Redirects are not followed, so the key goes nowhere else."""

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
        self._pause = pause
        timeout = httpx2.Timeout(60.0, connect=5.0)
        # Proxies of the environment are for the internet; they would be asked for loopback too.
        try:
            self._http = httpx2.Client(
                base_url=self.url, timeout=timeout, transport=transport, trust_env=False, headers=headers
            )
        except httpx2.InvalidURL as error:
            message = f"{url!r} is no URL ({error}); one looks like {DEFAULT_URL}"
            raise UnreachableError(message, param="--url") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, spec: Mapping[str, Any], *, key: str, priority: int = 0) -> dict[str, Any]:
        """Put a spec into the queue. Under one `key` it is one job, however often the request has to be repeated."""
        headers, query = {"Idempotency-Key": key}, {"priority": priority}
        return self._patiently(lambda: self._call("POST", "/v1/jobs", params=query, json=spec, headers=headers).json())

    def job(self, job_id: str) -> dict[str, Any]:
        """One job."""
        return self._patiently(lambda: self._call("GET", f"/v1/jobs/{_part(job_id)}").json())

    def jobs(self, *, state: str | None, kind: str | None, limit: int) -> list[dict[str, Any]]:
        """The newest jobs, through as many pages as that takes."""
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            given = {"state": state, "kind": kind, "limit": min(100, limit - len(found))}
            given["after"] = found[-1]["id"] if found else None
            query = {name: value for name, value in given.items() if value is not None}
            page = self._call("GET", "/v1/jobs", params=query).json()
            found += page["data"]
            if not page["has_more"]:
                break
        return found

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Ask for a job's end."""
        return self._call("POST", f"/v1/jobs/{_part(job_id)}/cancel").json()

    def dataset(self, dataset_id: str) -> dict[str, Any]:
        """One dataset."""
        return self._call("GET", f"/v1/datasets/{_part(dataset_id)}").json()

    def upload(self, path: Path, *, report: Report = _ignore) -> dict[str, Any]:
        """Upload a file, streamed, with its sha256: bytes that are damaged on the way are refused."""

        def chunks(stream: Any) -> Iterator[bytes]:
            while chunk := stream.read(CHUNK):
                report(len(chunk))
                yield chunk

        try:
            with path.open("rb") as stream:
                sha256, size = file_digest(stream)
                stream.seek(0)
                headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
                headers["Content-Digest"] = digest_field(sha256)
                query = {"name": path.name}
                return self._call(
                    "POST", "/v1/uploads", params=query, content=chunks(stream), headers=headers, timeout=None
                ).json()
        except OSError as error:
            message = f"{path} cannot be read ({error.strerror or error})"
            raise LongweaveError(message, param=str(path)) from error

    def add_tokenizer(self, name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
        """Send a tokenizer's files by name, to be called `name` in specs."""
        form = [(file, (file, data, "application/octet-stream")) for file, data in files.items()]
        return self._call("POST", "/v1/tokenizers", params={"name": name}, files=form, timeout=None).json()

    def tokenizers(self) -> list[dict[str, Any]]:
        """All tokenizers: the service's own and those of the key's owner."""
        found: list[dict[str, Any]] = []
        query: dict[str, Any] = {}
        while True:
            page = self._call("GET", "/v1/tokenizers", params=query).json()
            found += page["data"]
            if not page["has_more"]:
                return found
            query = {"after": page["data"][-1]["id"]}

    def remove_tokenizer(self, name: str) -> None:
        """Remove an uploaded tokenizer by its name or id."""
        self._call("DELETE", f"/v1/tokenizers/{_part(name)}")

    def events(self, job_id: str) -> Iterator[dict[str, Any]]:
        """The events of a job as they happen, until it has ended; broken connections are taken up where they broke."""
        seen, failures = 0, 0
        while True:
            before = seen
            try:
                for event in self._stream_events(job_id, seen):
                    seen, failures = event["id"], 0
                    yield event
                    if event["type"] == "state" and event["data"]["state"] in ENDED:
                        return
                if seen == before and self.job(job_id)["state"] in ENDED:
                    return
            except (httpx2.HTTPError, UnreachableError) as error:
                failures += 1
                never_there = seen == 0 and isinstance(error, httpx2.ConnectError)
                if never_there or failures > TRIES:
                    raise self._unreachable(error) from error
            time.sleep(self._pause)

    def download(self, dataset_id: str, folder: Path, *, plan: Report = _ignore, report: Report = _ignore) -> Manifest:
        """Fetch a dataset into `folder`, manifest last. What is there and right is not fetched again, what is begun goes on.

        Raises DatasetError where bytes arrive that are not the manifest's.
        """
        base = f"/v1/datasets/{_part(dataset_id)}"
        data = self._patiently(lambda: self._call("GET", f"{base}/manifest").content)
        manifest = Manifest.from_bytes(data, where=f"{self.url}{base}/manifest")
        folder.mkdir(parents=True, exist_ok=True)
        self._check_place(folder, data)
        files = [(f.path, f.bytes, f.sha256) for f in (*manifest.files, *manifest.documents)]
        plan(sum(size for _, size, _ in files))
        for path, size, sha256 in files:
            self._fetch(f"{base}/files/{path}", inside(folder, path), size, sha256, report)
        partial = folder / f"{MANIFEST}.part"
        partial.write_bytes(data)
        partial.replace(folder / MANIFEST)
        return manifest

    def _check_place(self, folder: Path, manifest: bytes) -> None:
        standing = folder / MANIFEST
        if standing.exists() and standing.read_bytes() != manifest:
            message = f"{folder} holds another dataset: name a new directory"
            raise DatasetError(message, param=str(folder))

    def _fetch(self, url: str, place: Path, size: int, sha256: str, report: Report) -> None:
        """One file: kept if it is whole, else continued, checked, and only then given its name."""
        if _is(place, size, sha256):
            report(size)
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f"{place.name}.part")
        report(partial.stat().st_size if partial.exists() else 0)
        self._patiently(lambda: self._continue(url, partial, size, sha256, report))
        if not _is(partial, size, sha256):
            partial.unlink(missing_ok=True)
            message = f"{place.name} has arrived damaged: its sha256 is not the manifest's; try again"
            raise DatasetError(message, param=place.name)
        partial.replace(place)

    def _continue(self, url: str, partial: Path, size: int, sha256: str, report: Report) -> None:
        have = partial.stat().st_size if partial.exists() else 0
        if have > size:
            partial.unlink()
            have = 0
        if have == size:
            partial.touch()
            return
        # If-Range: should the file be another one now, all of it comes.
        headers = {"Range": f"bytes={have}-", "If-Range": f'"{sha256}"'} if have else {}
        with self._http.stream("GET", url, headers={**headers, "Accept-Encoding": "identity"}) as response:
            if response.status_code >= 400:
                response.read()
                raise _refusal(response)
            mode = "ab" if response.status_code == 206 else "wb"
            with partial.open(mode) as sink:
                for chunk in response.iter_bytes():
                    sink.write(chunk)
                    report(len(chunk))

    def _stream_events(self, job_id: str, seen: int) -> Iterator[dict[str, Any]]:
        headers = {"Last-Event-ID": str(seen)}
        # Pings come every 15 s: a minute of silence is a broken connection.
        with self._http.sse(f"/v1/jobs/{_part(job_id)}/events", headers=headers) as source:
            if source.response.status_code >= 400:
                source.response.read()
                raise _refusal(source.response)
            for event in source:
                if event.event != "bye" and event.data:
                    yield json.loads(event.data)

    def _call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error
        if response.status_code >= 400:
            raise _refusal(response)
        return response

    def _patiently(self, call: Callable[[], Any]) -> Any:
        """Repeat a call that may be repeated, after connections that broke and answers that ask to wait."""
        for tried in range(1, TRIES + 1):
            try:
                return call()
            except (httpx2.HTTPError, UnreachableError, RefusedError) as error:
                passing = not isinstance(error, RefusedError) or error.status in (429, 502, 503, 504)
                never_there = isinstance(error, UnreachableError) and isinstance(error.__cause__, httpx2.ConnectError)
                if not passing or tried == TRIES or never_there:
                    raise self._unreachable(error) if isinstance(error, httpx2.HTTPError) else error from error
                time.sleep(self._pause * 2**tried)
        raise AssertionError

    def _unreachable(self, error: Exception) -> UnreachableError:
        if isinstance(error, UnreachableError):
            return error
        why = str(error) or type(error).__name__
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol):
            return UnreachableError(f"no service answers at {self.url} ({why}); start one with `longweave serve`")
        return UnreachableError(f"the connection to {self.url} broke ({why})")


def new_key() -> str:
    """A new Idempotency-Key."""
    import secrets

    return secrets.token_urlsafe(16)


def _is(place: Path, size: int, sha256: str) -> bool:
    with contextlib.suppress(OSError):
        if place.stat().st_size == size:
            with place.open("rb") as stream:
                return file_digest(stream)[0] == sha256
    return False


def _part(name: str) -> str:
    """An id as one segment of a path, whatever a user has typed."""
    from urllib.parse import quote

    return quote(name, safe="") or "-"


def _refusal(response: httpx2.Response) -> LongweaveError:
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


__all__ = ["DEFAULT_URL", "ENDED", "Client", "RefusedError", "UnreachableError", "new_key"]
