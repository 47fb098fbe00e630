"""A dataset described as Croissant 1.0 (JSON-LD). Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from packing.dataset.manifest import Manifest
from service.jobs.catalog import DatasetEntry

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(
    entry: DatasetEntry, manifest: Manifest, schema: pa.Schema | None, *, url_of: Callable[[str], str]
) -> dict[str, Any]:
    """The description: a FileObject for each Parquet file, and a record set for each of them with its columns."""
    license_name = manifest.spec.get("license")
    document: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": entry.name or entry.id,
        "description": f"A {entry.kind} dataset of {entry.rows} rows and {entry.tokens} tokens, built by Longweave.",
        "url": url_of("manifest.json"),
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file.path,
                "name": file.path,
                "contentUrl": url_of(file.path),
                "contentSize": f"{file.bytes} B",
                "encodingFormat": "application/x-parquet",
                "sha256": file.sha256,
            }
            for file in manifest.files
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": f"rows/{file.path}",
                "name": f"rows/{file.path}",
                "field": _fields(schema, file.path),
            }
            for file in manifest.files
        ],
    }
    if license_name:
        document["license"] = license_name
    return document


def _fields(schema: pa.Schema | None, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for column in schema or ():
        kind = column.type
        repeated = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        record: dict[str, Any] = {
            "@type": "cr:Field",
            "@id": f"rows/{path}/{column.name}",
            "name": f"rows/{path}/{column.name}",
            "dataType": _data_type(kind.value_type if repeated else kind),
            "source": {"fileObject": {"@id": path}, "extract": {"column": column.name}},
        }
        if repeated:
            record["repeated"] = True
        found.append(record)
    return found


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    # Croissant has no words for a struct in a column; readers get it as text.
    return "sc:Text"
