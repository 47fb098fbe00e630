"""The bytes of a dataset.

What its manifest names, with ranges and conditions, as attachments that no browser interprets.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from service.digests import digest_field
from service.library import Item
from service.routes.datasets import find
from service.routes.ranges import byte_range, matches
from service.services import Services, Wired

router = APIRouter(prefix="/v1", tags=["files"])

TYPES = {
    ".parquet": "application/vnd.apache.parquet",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
}
PRESIGNED_SECONDS = 60
"""How long a redirect's address opens: it is followed at once, and a transfer that has begun goes on."""
BYTES: dict[str, Any] = {
    "description": "the file",
    "content": {name.partition(";")[0]: {"schema": {}} for name in (*TYPES.values(), "application/octet-stream")},
}


@router.get(
    "/datasets/{dataset_id}/files/{path:path}",
    response_class=Response,
    responses={
        200: BYTES,
        206: BYTES | {"description": "a part of it"},
        304: {"description": "not modified"},
        307: {"description": "to the object store, where the service is set up for it"},
    },
)
def get_file(
    dataset_id: str,
    path: str,
    request: Request,
    services: Wired,
    *,
    redirect: Annotated[bool, Query(description="whether the answer may be a 307 to the object store")] = True,
) -> Response:
    """A file of a dataset: one range at most, ETag is its sha256, and so If-None-Match and If-Range are exact."""
    item, etag, unchanged = _find(services, request, dataset_id, path)
    if unchanged is not None:
        return unchanged
    condition = request.headers.get("if-range")
    wanted = request.headers.get("range") if condition is None or condition.strip() == etag else None
    part = byte_range(wanted, item.bytes)
    # With an If-Range of something else all of the file is wanted, and the store would be sent the Range again.
    if services.settings.presign and redirect and wanted == request.headers.get("range"):
        address = services.library.address(item, seconds=PRESIGNED_SECONDS)
        if address is not None:
            return RedirectResponse(address, 307, headers={"Cache-Control": "no-store"})
    headers = _headers(item, etag)
    if part is None:
        return StreamingResponse(services.library.stream(item, 0, item.bytes), 200, headers=headers)
    start, end = part
    headers |= {"Content-Range": f"bytes {start}-{end - 1}/{item.bytes}", "Content-Length": str(end - start)}
    # The digest of the content would be one of the part, which nobody has computed; Repr-Digest speaks of the whole.
    del headers["Content-Digest"]
    return StreamingResponse(services.library.stream(item, start, end), 206, headers=headers)


@router.head("/datasets/{dataset_id}/files/{path:path}", response_class=Response)
def head_file(dataset_id: str, path: str, request: Request, services: Wired) -> Response:
    """As GET, without the bytes."""
    item, etag, unchanged = _find(services, request, dataset_id, path)
    return unchanged or Response(None, 200, headers=_headers(item, etag))


def _find(services: Services, request: Request, dataset_id: str, path: str) -> tuple[Item, str, Response | None]:
    """The file, its ETag, and the response 304 where the client has it already."""
    item = services.library.item(find(services, dataset_id), path)
    etag = f'"{item.sha256}"'
    if matches(request.headers.get("if-none-match"), etag):
        return item, etag, Response(None, 304, headers={"ETag": etag, "Cache-Control": "private, no-cache"})
    return item, etag, None


def _headers(item: Item, etag: str) -> dict[str, str]:
    digest = digest_field(item.sha256)
    name = item.path.rpartition("/")[2]
    return {
        "Content-Type": TYPES.get(f".{name.rpartition('.')[2]}", "application/octet-stream"),
        "Content-Length": str(item.bytes),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Content-Digest": digest,
        "Repr-Digest": digest,
        "Cache-Control": "private, no-cache",
    }
