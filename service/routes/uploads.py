"""Uploads: source files, normalised into immutable pieces as they arrive."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from service.problems import ConflictError
from service.routes.bodies import UploadBody, upload_body
from service.routes.body import known_id
from service.services import Wired
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


@router.post("/uploads", status_code=201, response_model=UploadBody, openapi_extra=BODY)
async def create_upload(
    request: Request,
    services: Wired,
    name: Annotated[str | None, Query(max_length=1000)] = None,
    content_digest: Annotated[str | None, Header(description="sha-256 of the body (RFC 9530), verified")] = None,  # noqa: ARG001  # read off the request, here for the document
) -> Response:
    """Upload one JSONL (plain, .gz, .zst) or Parquet file, raw or multipart. It is read, checked and counted.

    Refused is only what cannot be decoded as a container; rows that cannot be used are counted, and the job decides
    about them.
    """
    entry = await receive(request, services, name)
    headers = {"Location": f"/v1/uploads/{entry.id}"}
    return JSONResponse(upload_body(entry).model_dump(), 201, headers=headers)


@router.get("/uploads/{upload_id}")
def get_upload(upload_id: str, services: Wired) -> UploadBody:
    """One upload."""
    return upload_body(services.catalog.upload(known_id("up", upload_id)))


@router.delete("/uploads/{upload_id}", status_code=204)
async def delete_upload(upload_id: str, services: Wired) -> Response:
    """Remove an upload that no waiting or running job needs."""

    def remove() -> None:
        entry = services.catalog.upload(known_id("up", upload_id))
        user = services.jobs.active_mention(entry.id)
        if user is not None:
            message = f"job {user} still needs upload {entry.id}"
            raise ConflictError(message, param="id")
        services.catalog.delete_upload(entry.id)
        services.objects.delete_prefix(f"uploads/{entry.id}")

    await run_in_threadpool(remove)
    return Response(status_code=204)
