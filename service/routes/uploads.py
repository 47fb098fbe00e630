"""Uploads: source files, normalised into immutable pieces as they arrive, in one go or in parts that can be resumed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from service import arrivals
from service.problems import ConflictError
from service.routes.bodies import ArrivingBody, UploadBody, arriving_body, upload_body
from service.routes.body import known_id
from service.services import Services, Wired
from service.storage.parts import Parts
from service.uploads import receive

router = APIRouter(prefix="/v1", tags=["uploads"])

BINARY = {"schema": {"type": "string", "format": "binary"}}
FORM = {"schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/jsonl": BINARY, "application/octet-stream": BINARY, "multipart/form-data": FORM},
    }
}
PART: dict[str, Any] = {"requestBody": {"required": True, "content": {arrivals.MEDIA_TYPE: BINARY}}}

Bytes = Header(pattern="^[0-9]{1,15}$")
Yes = Header(pattern=r"^\?[01]$")


@router.post("/uploads", status_code=201, response_model=UploadBody | ArrivingBody, openapi_extra=BODY)
async def create_upload(
    request: Request,
    services: Wired,
    name: Annotated[str | None, Query(max_length=1000)] = None,
    content_digest: Annotated[str | None, Header(description="sha-256 of the body (RFC 9530), verified")] = None,  # noqa: ARG001  # read off the request, here for the document
    upload_complete: Annotated[str | None, Yes] = None,
    upload_length: Annotated[str | None, Bytes] = None,
) -> Response:
    """Upload one JSONL (plain, .gz, .zst) or Parquet file, raw or multipart. It is read, checked and counted.

    Refused is only what cannot be decoded as a container; rows that cannot be used are counted, and the job decides
    about them. With `Upload-Complete: ?0` the upload is only begun: its parts are sent by PATCH to its Location, and a
    sender who has lost the connection, or the answer, learns by HEAD where to go on.
    """
    if upload_complete == "?0":
        length = None if upload_length is None else int(upload_length)
        begun, offset = await arrivals.begin(request, services, name, length)
        headers = {"Location": f"/v1/uploads/{begun.id}"}
        headers |= _fields(services, offset=offset, complete=False, length=begun.length)
        return JSONResponse(arriving_body(begun, offset).model_dump(), 201, headers=headers)
    entry = await receive(request, services, name)
    return JSONResponse(upload_body(entry).model_dump(), 201, headers={"Location": f"/v1/uploads/{entry.id}"})


@router.patch(
    "/uploads/{upload_id}",
    status_code=201,
    response_model=UploadBody,
    responses={204: {"description": "kept; more is to come"}},
    openapi_extra=PART,
)
async def append_to_upload(
    upload_id: str,
    request: Request,
    services: Wired,
    upload_offset: Annotated[str, Bytes],
    upload_complete: Annotated[str, Yes],
) -> Response:
    """Send a part of an upload that was begun with `Upload-Complete: ?0`, from the byte `Upload-Offset` on.

    With `Upload-Complete: ?1` it is the last (and may be empty): the whole is held against the `Repr-Digest` and
    `Upload-Length` that were sent, and is read, checked and counted as if it had come in one go. An offset that is not
    where the parts end is 409, with the right one in `Upload-Offset`.
    """
    entry = await run_in_threadpool(services.catalog.arrivals.find, known_id("up", upload_id))
    if entry is None:
        there = await run_in_threadpool(services.catalog.upload, upload_id)
        message = f"upload {there.id} is complete"
        raise ConflictError(message, param="id")
    done = await arrivals.append(request, services, entry, offset=int(upload_offset), complete=upload_complete == "?1")
    if isinstance(done, int):
        return Response(None, 204, headers=_fields(services, offset=done, complete=False, length=entry.length))
    size = int(done.record["bytes"])
    headers = {"Location": f"/v1/uploads/{done.id}"} | _fields(services, offset=size, complete=True, length=size)
    return JSONResponse(upload_body(done).model_dump(), 201, headers=headers)


@router.get("/uploads/{upload_id}")
def get_upload(upload_id: str, services: Wired) -> UploadBody | ArrivingBody:
    """One upload, or what has come of it."""
    # In this order: the parts of an upload go after its row, so that what is found here was true of the row found next.
    received, _ = Parts(services.objects, known_id("up", upload_id)).extent()
    arriving = services.catalog.arrivals.find(upload_id)
    if arriving is not None:
        return arriving_body(arriving, received)
    return upload_body(services.catalog.upload(upload_id))


@router.head("/uploads/{upload_id}", response_class=Response)
def head_upload(upload_id: str, services: Wired) -> Response:
    """Where an upload goes on: `Upload-Offset`, and whether it is complete."""
    offset, _ = Parts(services.objects, known_id("up", upload_id)).extent()
    arriving = services.catalog.arrivals.find(upload_id)
    if arriving is not None:
        told = _fields(services, offset=offset, complete=False, length=arriving.length)
    else:
        size = int(services.catalog.upload(upload_id).record["bytes"])
        told = _fields(services, offset=size, complete=True, length=size)
    return Response(None, 200, headers=told)


@router.delete("/uploads/{upload_id}", status_code=204)
async def delete_upload(upload_id: str, services: Wired) -> Response:
    """Remove an upload that no waiting or running job needs, or one that is still on its way."""

    def remove() -> None:
        arriving = services.catalog.arrivals.find(known_id("up", upload_id))
        if arriving is not None and arrivals.drop(services, arriving):
            return
        entry = services.catalog.upload(upload_id)
        user = services.jobs.active_mention(entry.id)
        if user is not None:
            message = f"job {user} still needs upload {entry.id}"
            raise ConflictError(message, param="id")
        services.catalog.delete_upload(entry.id)
        services.objects.delete_prefix(f"uploads/{entry.id}")

    await run_in_threadpool(remove)
    return Response(status_code=204)


def _fields(services: Services, *, offset: int, complete: bool, length: int | None) -> dict[str, str]:
    limit = services.settings.limits.upload_bytes
    return dict(arrivals.fields(offset=offset, complete=complete, length=length, limit=limit))
