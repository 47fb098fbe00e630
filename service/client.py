"""A client of the service's REST API: what the commands submit, jobs, watch, cancel, upload and download stand on."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from packing.dataset.errors import DatasetError, LongweaveError
from packing.dataset.manifest import NAME as MANIFEST
from packing.dataset.manifest import Manifest
from packing.dataset.reader import file_digest, inside
from service.connection import (
    DEFAULT_URL,
    PASSING,
    PAUSE_SECONDS,
    TRIES,
    Connection,
    RefusedError,
    UnreachableError,
    refusal,
    segment,
)
from service.digests import digest_field
from service.sending import Report, ignore, stretch, upload_in_parts

ENDED = ("succeeded", "failed", "cancelled")
RESUMABLE_BYTES = 8 * 1024 * 1024
"""Files of more than this are sent in parts that can be resumed."""


class Client:
    """The API at one URL, with an API key where the service has keys. The key goes nowhere else."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        transport: httpx2.BaseTransport | None = None,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._wire = Connection(url, key=key, transport=transport, pause=pause)
        self.url = self._wire.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wire.http.close()

    def submit(self, spec: Mapping[str, Any], *, key: str, priority: int = 0) -> dict[str, Any]:
        """Put a spec into the queue. Under one `key` it is one job, however often the request has to be repeated."""
        headers, query = {"Idempotency-Key": key}, {"priority": priority}
        return self._wire.patiently(
            lambda: self._wire.call("POST", "/v1/jobs", params=query, json=spec, headers=headers).json()
        )

    def job(self, job_id: str) -> dict[str, Any]:
        """One job."""
        return self._wire.patiently(lambda: self._wire.call("GET", f"/v1/jobs/{segment(job_id)}").json())

    def jobs(self, *, state: str | None, kind: str | None, limit: int) -> list[dict[str, Any]]:
        """The newest jobs, through as many pages as that takes."""
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            given = {"state": state, "kind": kind, "limit": min(100, limit - len(found))}
            given["after"] = found[-1]["id"] if found else None
            query = {name: value for name, value in given.items() if value is not None}
            page = self._wire.call("GET", "/v1/jobs", params=query).json()
            found += page["data"]
            if not page["has_more"]:
                break
        return found

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Ask for a job's end."""
        return self._wire.call("POST", f"/v1/jobs/{segment(job_id)}/cancel").json()

    def dataset(self, dataset_id: str) -> dict[str, Any]:
        """One dataset."""
        return self._wire.call("GET", f"/v1/datasets/{segment(dataset_id)}").json()

    def upload(self, path: Path, *, report: Report = ignore) -> dict[str, Any]:
        """Upload a file, streamed, with its sha256: bytes that are damaged on the way are refused.

        A large one goes in parts: after a broken connection, a restart of the service or of this command it goes on where it was.
        """
        try:
            with path.open("rb") as stream:
                sha256, size = file_digest(stream)
                if size > RESUMABLE_BYTES:
                    return upload_in_parts(self._wire, path.name, stream, size=size, sha256=sha256, report=report)
                headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
                headers["Content-Digest"] = digest_field(sha256)
                body = stretch(stream, 0, size, report)
                query = {"name": path.name}
                return self._wire.call(
                    "POST", "/v1/uploads", params=query, content=body, headers=headers, timeout=None
                ).json()
        except OSError as error:
            message = f"{path} cannot be read ({error.strerror or error})"
            raise LongweaveError(message, param=str(path)) from error

    def add_tokenizer(self, name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
        """Send a tokenizer's files by name, to be called `name` in specs."""
        form = [(file, (file, data, "application/octet-stream")) for file, data in files.items()]
        return self._wire.call("POST", "/v1/tokenizers", params={"name": name}, files=form, timeout=None).json()

    def tokenizers(self) -> list[dict[str, Any]]:
        """All tokenizers: the service's own and those of the key's owner."""
        found: list[dict[str, Any]] = []
        query: dict[str, Any] = {}
        while True:
            page = self._wire.call("GET", "/v1/tokenizers", params=query).json()
            found += page["data"]
            if not page["has_more"]:
                return found
            query = {"after": page["data"][-1]["id"]}

    def remove_tokenizer(self, name: str) -> None:
        """Remove an uploaded tokenizer by its name or id."""
        self._wire.call("DELETE", f"/v1/tokenizers/{segment(name)}")

    def events(self, job_id: str) -> Iterator[dict[str, Any]]:
        """The events of a job as they happen, until it has ended; broken connections are taken up where they broke, and answers that ask
        to wait are waited out."""
        seen, failures, over = 0, 0, False
        while True:
            before = seen
            try:
                for event in self._stream_events(job_id, seen):
                    seen, failures = event["id"], 0
                    yield event
                    if event["type"] == "state" and event["data"]["state"] in ENDED:
                        return
                if seen == before:
                    if over:
                        return
                    # What ended it may have come since the stream broke off: the stream is asked once more.
                    over = self.job(job_id)["state"] in ENDED
            except (httpx2.HTTPError, UnreachableError) as error:
                failures += 1
                never_there = seen == 0 and isinstance(error, httpx2.ConnectError)
                if never_there or failures > TRIES:
                    raise self._wire.unreachable(error) from error
            except RefusedError as error:
                failures += 1
                if error.status not in PASSING or failures > TRIES:
                    raise
            time.sleep(self._wire.pause * 2**failures)

    def download(self, dataset_id: str, folder: Path, *, plan: Report = ignore, report: Report = ignore) -> Manifest:
        """Fetch a dataset into `folder`, manifest last. What is there and right is not fetched again, what is begun goes on.

        Raises DatasetError where bytes arrive that are not the manifest's, and where something else stands in the place of a file.
        """
        base = f"/v1/datasets/{segment(dataset_id)}"
        data = self._wire.patiently(lambda: self._wire.call("GET", f"{base}/manifest").content)
        manifest = Manifest.from_bytes(data, where=f"{self.url}{base}/manifest")
        folder.mkdir(parents=True, exist_ok=True)
        self._check_place(folder, data)
        # Documents first: their names, such as README.md, are those that a folder of something else may hold.
        files = [(f.path, f.bytes, f.sha256) for f in (*manifest.documents, *manifest.files)]
        ours = (folder / MANIFEST).exists()
        plan(sum(size for _, size, _ in files))
        for path, size, sha256 in files:
            self._fetch(f"{base}/files/{path}", inside(folder, path), size, sha256, report, replace=ours)
        partial = folder / f"{MANIFEST}.part"
        partial.write_bytes(data)
        partial.replace(folder / MANIFEST)
        return manifest

    def _check_place(self, folder: Path, manifest: bytes) -> None:
        standing = folder / MANIFEST
        if standing.exists() and standing.read_bytes() != manifest:
            message = f"{folder} holds another dataset: name a new directory"
            raise DatasetError(message, param=str(folder))

    def _fetch(self, url: str, place: Path, size: int, sha256: str, report: Report, *, replace: bool) -> None:
        """One file: kept if it is whole, else continued, checked, and only then given its name; `replace` what has that name."""
        if _is(place, size, sha256):
            report(size)
            return
        if place.exists() and not replace:
            # What a download that was cut leaves is whole, or a part: this is of somebody else's making.
            message = f"{place} stands there already and is not the dataset's: name a new directory"
            raise DatasetError(message, param=str(place))
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f"{place.name}.part")
        report(partial.stat().st_size if partial.exists() else 0)
        self._wire.patiently(lambda: self._continue(url, partial, size, sha256, report))
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
        with self._wire.stream(url, {**headers, "Accept-Encoding": "identity"}) as response:
            if response.status_code >= 300:
                response.read()
                raise refusal(response)
            mode = "ab" if response.status_code == 206 else "wb"
            with partial.open(mode) as sink:
                for chunk in response.iter_bytes():
                    sink.write(chunk)
                    report(len(chunk))

    def _stream_events(self, job_id: str, seen: int) -> Iterator[dict[str, Any]]:
        headers = {"Last-Event-ID": str(seen)}
        # Pings come every 15 s: a minute of silence is a broken connection.
        with self._wire.http.sse(f"/v1/jobs/{segment(job_id)}/events", headers=headers) as source:
            if source.response.status_code >= 400:
                source.response.read()
                raise refusal(source.response)
            for event in source:
                if event.event == "bye":
                    message = f"the service breaks its stream of events off ({event.data})"
                    raise UnreachableError(message)
                if event.data:
                    yield json.loads(event.data)


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


__all__ = ["DEFAULT_URL", "ENDED", "Client", "RefusedError", "UnreachableError", "new_key"]
