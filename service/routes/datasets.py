"""Datasets: what there is, what is in them, and the end of them. Their bytes are in files.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from packing.dataset.manifest import DataFile
from service.croissant import croissant
from service.jobs.catalog import DatasetEntry
from service.library import folder_of
from service.problems import ConflictError
from service.routes.bodies import DatasetBody, DatasetPage, RowsBody, dataset_body
from service.routes.body import known_cursor, known_id
from service.services import Services, Wired

router = APIRouter(prefix="/v1", tags=["datasets"])

LARGEST_OFFSET = 2**53


def find(services: Services, dataset_id: str) -> DatasetEntry:
    """The dataset of that id; raises NotFoundError for unknown and malformed ones."""
    return services.catalog.dataset(known_id("ds", dataset_id))


def file_url(request: Request, dataset_id: str, path: str) -> str:
    """Where a file can be fetched."""
    return f"{str(request.base_url).rstrip('/')}/v1/datasets/{dataset_id}/files/{path}"


@router.get("/datasets")
def list_datasets(
    services: Wired,
    kind: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> DatasetPage:
    """Datasets, newest first."""
    found = services.catalog.datasets(kind=kind, after=known_cursor("ds", after), limit=limit + 1)
    return DatasetPage(data=[dataset_body(entry) for entry in found[:limit]], has_more=len(found) > limit)


@router.get("/datasets/{dataset_id}")
def get_dataset(dataset_id: str, services: Wired) -> DatasetBody:
    """One dataset."""
    return dataset_body(find(services, dataset_id))


@router.delete("/datasets/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: str, services: Wired) -> Response:
    """Remove a dataset that no waiting or running job needs, with its files."""
    entry = find(services, dataset_id)
    user = services.jobs.active_mention(entry.id)
    if user is not None:
        message = f"job {user} still needs dataset {entry.id}"
        raise ConflictError(message, param="id")
    services.catalog.delete_dataset(entry.id)
    services.objects.delete_prefix(folder_of(entry.id))
    return Response(status_code=204)


@router.get("/datasets/{dataset_id}/manifest", response_model=dict[str, Any])
def get_manifest(dataset_id: str, services: Wired) -> Response:
    """The manifest, byte for byte."""
    entry = find(services, dataset_id)
    headers = {"ETag": f'"{entry.manifest_sha256}"'}
    return Response(services.library.manifest_bytes(entry), media_type="application/json", headers=headers)


@router.get("/datasets/{dataset_id}/parquet", response_model=dict[str, Any])
def list_parquet(dataset_id: str, request: Request, services: Wired) -> Response:
    """The Parquet files with their addresses."""
    entry = find(services, dataset_id)
    files = [
        {
            "dataset": entry.id,
            "config": "default",
            "split": file.split,
            "url": file_url(request, entry.id, file.path),
            "filename": file.path.rpartition("/")[2],
            "path": file.path,
            "size": file.bytes,
            "rows": file.rows,
            "tokens": file.tokens,
            "sha256": file.sha256,
        }
        for file in services.library.manifest(entry).files
    ]
    return JSONResponse({"parquet_files": files, "pending": [], "failed": [], "partial": False})


@router.get("/datasets/{dataset_id}/rows")
def get_rows(
    dataset_id: str,
    services: Wired,
    offset: Annotated[int, Query(ge=0, le=LARGEST_OFFSET)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> RowsBody:
    """Some rows, in the dataset's order."""
    page = services.library.rows(find(services, dataset_id), offset=offset, limit=limit)
    return RowsBody(offset=offset, total=page.total, columns=page.columns, rows=page.rows, partial=page.partial)


@router.get("/datasets/{dataset_id}/statistics", response_model=dict[str, Any])
def get_statistics(dataset_id: str, services: Wired) -> Response:
    """The statistics that were counted while the dataset was built."""
    entry = find(services, dataset_id)
    return JSONResponse(json.loads(services.library.read(services.library.item(entry, "statistics.json"))))


@router.get("/datasets/{dataset_id}/size", response_model=dict[str, Any])
def get_size(dataset_id: str, services: Wired) -> Response:
    """Rows, tokens and bytes, in all and by split."""
    manifest = services.library.manifest(find(services, dataset_id))
    splits = list(dict.fromkeys(file.split for file in manifest.files))
    by_split = [{"split": s} | _sums([f for f in manifest.files if f.split == s]) for s in splits]
    return JSONResponse(_sums(manifest.files) | {"splits": by_split})


class JsonLd(JSONResponse):
    """A document as JSON-LD."""

    media_type = "application/ld+json"


@router.get("/datasets/{dataset_id}/croissant", response_model=dict[str, Any], response_class=JsonLd)
def get_croissant(dataset_id: str, request: Request, services: Wired) -> Response:
    """The dataset's description as Croissant, a JSON-LD vocabulary for machine-learning datasets."""
    entry = find(services, dataset_id)
    document = croissant(
        entry,
        services.library.manifest(entry),
        services.library.schema(entry),
        url_of=lambda path: file_url(request, entry.id, path),
    )
    return JsonLd(document)


def _sums(files: Sequence[DataFile]) -> dict[str, int]:
    return {
        "rows": sum(f.rows for f in files),
        "tokens": sum(f.tokens for f in files),
        "bytes": sum(f.bytes for f in files),
        "files": len(files),
    }
