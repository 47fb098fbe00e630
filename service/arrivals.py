"""Taking an upload in by parts: begun, continued at an offset after whatever broke, finished, or dropped.

The fields are those of the IETF's draft of resumable uploads (draft-ietf-httpbis-resumable-upload): Upload-Offset,
Upload-Complete, Upload-Length, Upload-Limit.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from packing.dataset.errors import SourceError
from service.digests import FIELDS, check_digest, sha256_of
from service.jobs.arrivals import Arrival
from service.jobs.catalog import UploadEntry
from service.problems import ConflictError, MalformedError, MediaTypeError, NotFoundError, TooLargeError
from service.routes.body import chunks
from service.services import Services
from service.storage.intake import take_in
from service.storage.parts import PART_BYTES, Parts
from service.storage.source_record import SourceRecord
from service.uploads import file_name, given_name

MEDIA_TYPE = "application/partial-upload"
SPARE_PARTS = 1024
"""Parts beyond those that an upload of the largest size needs: connections break, but not for ever."""


class OffsetError(ConflictError):
    """A part that does not begin where the others end; the answer says where that is."""

    code = "mismatching_upload_offset"

    def __init__(self, offset: int, given: int) -> None:
        super().__init__(
            f"the upload goes on at byte {offset}, not {given}: ask HEAD before sending", param="Upload-Offset"
        )
        self.headers = {"Upload-Offset": str(offset), "Upload-Complete": "?0"}


class IncompleteError(MalformedError):
    """An upload that was to be complete and is not."""

    code = "upload_incomplete"


async def begin(request: Request, services: Services, name: str | None, length: int | None) -> tuple[Arrival, int]:
    """Enter an upload that is to come in parts, with what its first request brings; returns it and how many bytes have come.

    Raises TooLargeError, QuotaError, MalformedError.
    """
    limit = services.settings.limits.upload_bytes
    if length is not None and length > limit:
        message = f"the upload is to have {length} bytes, and {limit} is the most this service takes"
        raise TooLargeError(message, param="Upload-Length")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        message = "a form comes in one go: send the file as the body, in parts"
        raise MalformedError(message, param="Upload-Complete")
    plain = file_name(name or given_name(media_type))
    sha256 = sha256_of("Repr-Digest", request.headers.get("repr-digest"))
    entry, is_new = await run_in_threadpool(
        partial(services.catalog.arrivals.begin, plain, length=length, sha256=sha256)
    )
    offset, count = await run_in_threadpool(Parts(services.objects, entry.id).extent)
    return entry, await _append(request, services, entry, offset, count) if is_new else offset


async def append(
    request: Request, services: Services, entry: Arrival, *, offset: int, complete: bool
) -> UploadEntry | int:
    """Take in a part that begins at `offset`; returns where the next begins, or with `complete` the finished upload.

    What has come of a part whose connection breaks is kept. Raises OffsetError, MediaTypeError, TooLargeError, and where it was to be
    complete DigestError, SourceError (the upload is dropped then) or IncompleteError.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
        message = f"a part of an upload has the Content-Type {MEDIA_TYPE}"
        raise MediaTypeError(message, param="Content-Type")
    announced = sha256_of("Repr-Digest", request.headers.get("repr-digest"))
    here, count = await run_in_threadpool(Parts(services.objects, entry.id).extent)
    if here != offset:
        raise OffsetError(here, offset)
    await run_in_threadpool(services.catalog.arrivals.touch, entry.id)
    end = await _append(request, services, entry, offset, count)
    if not complete:
        return end
    return await run_in_threadpool(_finish, services, entry, announced)


def drop(services: Services, entry: Arrival) -> bool:
    """Forget an upload on its way, with all that has come of it; False where it is finished or gone."""
    if not services.catalog.arrivals.drop(entry.id):
        return False
    Parts(services.objects, entry.id).remove()
    services.objects.delete_prefix(_pieces(entry))
    return True


async def _append(request: Request, services: Services, entry: Arrival, offset: int, count: int) -> int:
    limit = services.settings.limits.upload_bytes
    most = limit if entry.length is None else min(limit, entry.length)
    parts, held = Parts(services.objects, entry.id), bytearray()

    async def keep() -> None:
        nonlocal offset, count
        data = bytes(held[:PART_BYTES])
        if count >= SPARE_PARTS + limit // PART_BYTES:
            message = f"the upload has come in {count} parts, which is too many: delete it, and send larger ones"
            raise ConflictError(message, param="id")
        if not await run_in_threadpool(parts.add, offset, data):
            raise OffsetError((await run_in_threadpool(parts.extent))[0], offset)
        await run_in_threadpool(services.catalog.arrivals.touch, entry.id)
        del held[:PART_BYTES]
        offset, count = offset + len(data), count + 1

    try:
        async for chunk in chunks(request, most - offset):
            held += chunk
            while len(held) >= PART_BYTES:
                await keep()
    except MalformedError:
        # The client is gone, and what it has sent need not be sent again.
        await _rest(keep, held)
        raise
    await _rest(keep, held)
    return offset


async def _rest(keep: Callable[[], Awaitable[None]], held: bytearray) -> None:
    if held:
        await keep()


def _finish(services: Services, entry: Arrival, announced: str | None) -> UploadEntry:
    """Join the parts, hold them against what was announced, and take them in.

    What cannot be mended by sending more ends the upload; after anything else it can be finished again.
    """
    try:
        record = _take_in(services, entry, announced)
    except (MalformedError, SourceError) as error:
        if services.catalog.arrivals.find(entry.id) is None:
            # Another request has finished it meanwhile, and its parts were gone while we looked.
            return services.catalog.upload(entry.id)
        if not isinstance(error, IncompleteError):
            drop(services, entry)
        raise
    try:
        if services.catalog.arrivals.finish(entry.id, record.to_json()):
            Parts(services.objects, entry.id).remove()
    except NotFoundError:
        services.objects.delete_prefix(_pieces(entry))
        raise
    return services.catalog.upload(entry.id)


def _take_in(services: Services, entry: Arrival, announced: str | None) -> SourceRecord:
    parts = Parts(services.objects, entry.id)
    here, _ = parts.extent()
    if entry.length is not None and here != entry.length:
        message = f"{here} bytes have come of {entry.length}: send the rest, from Upload-Offset {here}"
        raise IncompleteError(message, param="Upload-Complete")
    landing = services.settings.incoming / f"{entry.id}-{secrets.token_hex(4)}"
    try:
        sha256 = parts.join(landing)
        for digest in (entry.sha256, announced):
            check_digest(FIELDS[1], digest, sha256)
        if here == 0:
            message = f"{entry.name} is empty"
            raise SourceError(message, param=entry.name)
        return take_in(landing, name=entry.name, objects=services.objects, prefix=_pieces(entry))
    finally:
        landing.unlink(missing_ok=True)


def _pieces(entry: Arrival) -> str:
    return f"uploads/{entry.id}"


def fields(*, offset: int, complete: bool, length: int | None, limit: int) -> Mapping[str, str]:
    """What an answer says of an upload."""
    told = {"Upload-Offset": str(offset), "Upload-Complete": "?1" if complete else "?0"}
    told |= {} if length is None else {"Upload-Length": str(length)}
    return told | {"Upload-Limit": f"max-size={limit}", "Cache-Control": "no-store"}
