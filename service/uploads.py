"""Taking an upload in: body → file → checked and normalised pieces → a row in the catalog."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from packing.dataset.errors import SourceError
from service.digests import FIELDS, check_digest, sha256_of
from service.jobs.catalog import UploadEntry
from service.problems import MalformedError
from service.routes.body import chunks, counted_request
from service.services import Services
from service.storage.intake import take_in

NAME_LENGTH = 200
SUFFIXES = {
    "application/vnd.apache.parquet": ".parquet",
    "application/x-parquet": ".parquet",
    "application/parquet": ".parquet",
    "application/gzip": ".jsonl.gz",
    "application/x-gzip": ".jsonl.gz",
    "application/zstd": ".jsonl.zst",
}


async def receive(request: Request, services: Services, name: str | None) -> UploadEntry:
    """Take in the request's body, raw or multipart.

    A Content-Digest or Repr-Digest with sha-256 is held against the body (RFC 9530). Raises TooLargeError, SourceError, DigestError or
    MalformedError and then leaves nothing.
    """
    announced = {field: sha256_of(field, request.headers.get(field)) for field in FIELDS}
    upload_id = await run_in_threadpool(services.catalog.new_upload_id)
    landing = services.settings.incoming / upload_id
    limit = services.settings.limits.upload_bytes
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if media_type == "multipart/form-data":
            if any(announced.values()):
                message = "a digest speaks of the whole body: send the file as the body, not in a form"
                raise MalformedError(message, param="Content-Digest")
            given = await _receive_form(request, landing, limit)
        else:
            given = given_name(media_type)
            sha256 = await _write(chunks(request, limit), landing)
            for field, digest in announced.items():
                check_digest(field, digest, sha256)
        return await run_in_threadpool(_take_in, services, upload_id, landing, file_name(name or given))
    finally:
        landing.unlink(missing_ok=True)


def given_name(media_type: str) -> str:
    """What a body without a name is called, by its media type."""
    return f"upload{SUFFIXES.get(media_type, '.jsonl')}"


def file_name(given: str) -> str:
    """A client's file name as a plain name: the last part of a path, without control characters."""
    plain = "".join(c for c in PurePosixPath(given.replace("\\", "/")).name if c.isprintable())
    return plain[-NAME_LENGTH:] if plain.strip(". ") else "upload.jsonl"


def _take_in(services: Services, upload_id: str, landing: Path, name: str) -> UploadEntry:
    if landing.stat().st_size == 0:
        message = f"{name} is empty"
        raise SourceError(message, param=name)
    prefix = f"uploads/{upload_id}"
    try:
        record = take_in(landing, name=name, objects=services.objects, prefix=prefix)
    except BaseException:
        services.objects.delete_prefix(prefix)
        raise
    return services.catalog.add_upload(upload_id, record.to_json())


async def _write(body: AsyncIterator[bytes], landing: Path) -> str:
    """Store a body, and return its sha256."""
    whole = hashlib.sha256()
    with landing.open("xb") as sink:
        async for chunk in body:
            whole.update(chunk)
            await run_in_threadpool(sink.write, chunk)
    return whole.hexdigest()


async def _receive_form(request: Request, landing: Path, limit: int) -> str:
    """Store the one file of a multipart body, and return its name."""
    try:
        async with counted_request(request, limit).form(max_files=1, max_fields=10) as form:
            files = [value for value in form.values() if isinstance(value, UploadFile)]
            if len(files) != 1:
                message = "a multipart upload has exactly one file"
                raise MalformedError(message, param="")
            with landing.open("xb") as sink:
                await run_in_threadpool(_copy, files[0].file, sink)
            return files[0].filename or "upload.jsonl"
    except (HTTPException, MultiPartException) as error:
        detail = error.detail if isinstance(error, HTTPException) else error.message
        message = f"the multipart body cannot be read: {detail}"
        raise MalformedError(message, param="") from error


def _copy(source: BinaryIO, sink: BinaryIO) -> None:
    while chunk := source.read(1024 * 1024):
        sink.write(chunk)


def clear_landing(folder: Path) -> None:
    """Remove what uploads cut short by a crash have left."""
    for name in os.listdir(folder):  # noqa: PTH208  # names are enough
        (folder / name).unlink(missing_ok=True)
