"""Where a dataset's bytes come from: a directory, a service's dataset URL read with HTTP Range requests, or S3.

Nothing is believed before it is checked: every length, a local shard's sha256 before its first row is read, a remote
shard's ETag (its sha256, where the server sends one), and every Parquet page's checksum.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from packing.dataset import manifest as manifests
from packing.dataset.errors import DatasetError, SourceError
from packing.dataset.manifest import DataFile, Manifest
from packing.dataset.reader import check_file, inside, open_parquet, read_manifest

WAITS = (0.2, 0.5, 1.0, 2.0)
"""Seconds between the tries of one request."""
TIMEOUT = 60.0


class Source(Protocol):
    """A dataset that can be opened shard by shard; `digest` is the sha256 of its manifest's canonical bytes."""

    manifest: Manifest
    digest: str

    def footer(self, file: DataFile) -> pq.FileMetaData:
        """A shard's Parquet footer, its length checked."""
        ...

    def open(self, file: DataFile) -> pq.ParquetFile:
        """A shard to read rows from; raises DatasetError naming the file where it is damaged."""
        ...


def open_source(source: str, *, key: str | None = None) -> Source:
    """The dataset at a directory, an http(s) URL, or s3://bucket/prefix.

    Raises DatasetError for a damaged dataset, SourceError for a service that cannot be reached or refuses.
    """
    if source.startswith(("http://", "https://")):
        return RemoteSource(source, key=key)
    if source.startswith("s3://"):
        return BucketSource(source)
    return LocalSource(Path(source))


class LocalSource:
    """A dataset in a directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.manifest = read_manifest(folder)
        self.digest = hashlib.sha256(self.manifest.to_bytes()).hexdigest()
        self._checked: set[str] = set()

    def footer(self, file: DataFile) -> pq.FileMetaData:
        """A shard's footer; its length is checked, its digest only when rows are read."""
        path = inside(self._folder, file.path)
        if not path.is_file():
            message = f"{file.path} is missing: the manifest names it"
            raise DatasetError(message, param=file.path)
        _check_length(file, path.stat().st_size)
        with open_parquet(path, name=file.path) as parquet:
            return parquet.metadata

    def open(self, file: DataFile) -> pq.ParquetFile:
        """A shard, its sha256 checked the first time."""
        path = inside(self._folder, file.path)
        if file.path not in self._checked:
            check_file(self._folder, file.path, file.bytes, file.sha256)
            self._checked.add(file.path)
        return open_parquet(path, name=file.path)


class RemoteSource:
    """A dataset of a service, by its URL; a key travels as `Authorization: Bearer`, never to a redirect's target."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._key = key
        _, data = self._get(f"{self._url}/manifest", {}, most=manifests.LARGEST)
        self.manifest = Manifest.from_bytes(data, where=f"{self._url}/manifest")
        self.digest = hashlib.sha256(self.manifest.to_bytes()).hexdigest()

    def footer(self, file: DataFile) -> pq.FileMetaData:
        """A shard's footer; the length is the one the server's Content-Range gives."""
        with self.open(file) as parquet:
            return parquet.metadata

    def open(self, file: DataFile) -> pq.ParquetFile:
        """A shard whose bytes are fetched as they are needed."""
        return open_parquet(pa.PythonFile(RangeFile(self, file), mode="r"), name=file.path)

    def range(self, file: DataFile, start: int, stop: int) -> bytes:
        """Bytes start to stop (excluded) of a shard, exactly; raises DatasetError where the server has other bytes."""
        url = f"{self._url}/files/{urllib.parse.quote(file.path)}"
        headers, data = self._get(url, {"Range": f"bytes={start}-{stop - 1}"}, most=stop - start)
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers.get("content-range", ""))
        if found is None:
            message = f"{url} does not answer Range requests with the range asked for, so it cannot be streamed"
            raise DatasetError(message, param=file.path)
        first, last, size = (int(number) for number in found.groups())
        _check_length(file, size)
        if (first, last + 1, len(data)) != (start, stop, stop - start):
            message = f"{url} sent bytes {first}-{last} ({len(data)} of them) where {start}-{stop - 1} were asked for"
            raise DatasetError(message, param=file.path)
        etag = headers.get("etag", "").removeprefix("W/").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", etag) and etag != file.sha256:
            message = f"{file.path} at the service is not the manifest's: its ETag is {etag}, the sha256 {file.sha256}"
            raise DatasetError(message, param=file.path)
        return data

    def _get(self, url: str, headers: Mapping[str, str], *, most: int) -> tuple[Mapping[str, str], bytes]:
        """One GET, tried again after connection errors, short bodies and 429 or 5xx answers."""
        request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 (the config lets http(s) through only)
        if self._key is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        reason = ""
        for wait in (*WAITS, None):
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
                    return _whole(response, url, most)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != 429 and error.code < 500:
                    raise SourceError(_refusal(url, error.code), param=url) from error
                reason = f"it answered {error.code}"
            except (OSError, http.client.HTTPException) as error:
                reason = f"{error}" or type(error).__name__
            if wait is not None:
                time.sleep(wait)
        message = f"{url} could not be read in {len(WAITS) + 1} tries: {reason}"
        raise SourceError(message, param=url)


class BucketSource:
    """A dataset at s3://bucket/prefix. Keys, region and AWS_ENDPOINT_URL come from the environment, as AWS's own tools
    read them; with AWS_SKIP_SIGNATURE=true requests are not signed (a public bucket)."""

    def __init__(self, url: str) -> None:
        self._root = url.removeprefix("s3://").rstrip("/")
        endpoint = urllib.parse.urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
        options: dict[str, Any] = (
            {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme} if endpoint.netloc else {}
        )
        if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
            options["region"] = region
        self._store = fs.S3FileSystem(
            anonymous=os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in {"1", "true"},
            connect_timeout=TIMEOUT,
            request_timeout=TIMEOUT,
            **options,
        )
        with self._open(manifests.NAME) as stream:
            if stream.size() > manifests.LARGEST:
                message = f"{url}/{manifests.NAME} has {stream.size()} bytes, more than a manifest may have"
                raise DatasetError(message, param=url)
            data = stream.read()
        self.manifest = Manifest.from_bytes(data, where=f"{url}/{manifests.NAME}")
        self.digest = hashlib.sha256(self.manifest.to_bytes()).hexdigest()

    def footer(self, file: DataFile) -> pq.FileMetaData:
        """A shard's footer, the object's length checked."""
        with self.open(file) as parquet:
            return parquet.metadata

    def open(self, file: DataFile) -> pq.ParquetFile:
        """A shard whose bytes are fetched as they are needed, its length checked; every page has a checksum."""
        if ".." in file.path.split("/"):
            message = f"the manifest names {file.path!r}, which lies outside the dataset"
            raise DatasetError(message, param=file.path)
        stream = self._open(file.path)
        _check_length(file, stream.size())
        return open_parquet(stream, name=file.path)

    def _open(self, path: str) -> pa.NativeFile:
        where = f"{self._root}/{path}"
        try:
            return self._store.open_input_file(where)
        except FileNotFoundError as error:
            message = f"s3://{where} is not there: data.source is the place of a dataset's {manifests.NAME}"
            raise SourceError(message, param=path) from error
        except OSError as error:
            message = f"s3://{where} cannot be read: {' '.join(str(error).split())}"
            raise SourceError(message, param=path) from error


def _whole(response: http.client.HTTPResponse, url: str, most: int) -> tuple[Mapping[str, str], bytes]:
    """A response's headers (names in lower case) and body; OSError for a body cut short, DatasetError for one over
    `most`."""
    data = response.read(most + 1)
    if len(data) > most:
        message = f"{url} answered with more than the {most} bytes it may have"
        raise DatasetError(message, param=url)
    announced = response.headers.get("Content-Length")
    if announced is not None and len(data) != int(announced):
        message = f"{len(data)} of {announced} bytes came"
        raise OSError(message)
    return {name.lower(): value for name, value in response.headers.items()}, data


def _refusal(url: str, code: int) -> str:
    if code in {401, 403}:
        return f"{url} refuses access ({code}): set data.key to an API key of the service"
    if code == 404:
        return f"{url} is not there (404): data.source is a dataset's URL, http://host:port/v1/datasets/ID"
    return f"{url} answered {code}"


def _check_length(file: DataFile, size: int) -> None:
    if size != file.bytes:
        message = f"{file.path} has {size} bytes, the manifest says {file.bytes}"
        raise DatasetError(message, param=file.path)


class RangeFile(io.RawIOBase):
    """A shard at a service as a seekable binary file: every read is one Range request."""

    def __init__(self, source: RemoteSource, file: DataFile) -> None:
        super().__init__()
        self._source = source
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.bytes}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._file.bytes if size < 0 else min(self._at + size, self._file.bytes)
        if stop <= self._at:
            return b""
        data = self._source.range(self._file, self._at, stop)
        self._at = stop
        return data
