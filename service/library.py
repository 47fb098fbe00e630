"""Committed datasets as the API reads them: manifests and bytes by the manifest's word alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from packing.dataset import manifest as manifests
from packing.dataset.manifest import DataFile, Document, Manifest
from packing.dataset.reader import open_parquet, read_rows
from service.datasets import some_columns
from service.jobs.catalog import Catalog, DatasetEntry
from service.problems import NotFoundError
from service.storage.object_file import ObjectFile
from service.storage.objects import Objects

ROW_TOKENS = 1_000_000
"""Tokens that one page of rows may have, but for its first row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file of a dataset that may be fetched."""

    path: str
    object: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPage:
    """Rows `offset`… of a dataset. `partial` says that fewer came than were asked for because they are long."""

    total: int
    columns: list[str]
    rows: list[dict[str, Any]]
    partial: bool


class Library:
    """Datasets by id. Manifests never change, so they are kept."""

    def __init__(self, catalog: Catalog, objects: Objects) -> None:
        self._catalog = catalog
        self._objects = objects
        self._manifest = functools.lru_cache(maxsize=64)(self._read_manifest)

    def manifest(self, entry: DatasetEntry) -> Manifest:
        """The manifest of a dataset."""
        return self._manifest(entry.id)

    def manifest_bytes(self, entry: DatasetEntry) -> bytes:
        """The manifest as it was written."""
        return self._objects.read(f"{folder_of(entry.id)}/{manifests.NAME}")

    def item(self, entry: DatasetEntry, path: str) -> Item:
        """A file that the manifest names, or the manifest itself; raises NotFoundError for every other path."""
        folder = folder_of(entry.id)
        if path == manifests.NAME:
            size = self._objects.size(f"{folder}/{path}") or 0
            return Item(path=path, object=f"{folder}/{path}", bytes=size, sha256=entry.manifest_sha256)
        manifest = self.manifest(entry)
        named: dict[str, DataFile | Document] = {f.path: f for f in (*manifest.files, *manifest.documents)}
        if path not in named:
            message = f"dataset {entry.id} has no file {path!r}"
            raise NotFoundError(message, param="path")
        file = named[path]
        return Item(path=path, object=f"{folder}/{path}", bytes=file.bytes, sha256=file.sha256)

    def stream(self, item: Item, start: int, end: int) -> Iterator[bytes]:
        """Bytes start..end of a file (end not included)."""
        return self._objects.stream(item.object, start, end)

    def address(self, item: Item, *, seconds: int) -> str | None:
        """Where anybody may read a file for so long without asking us; None where the store does not offer it."""
        return self._objects.presigned(item.object, seconds=seconds)

    def read(self, item: Item) -> bytes:
        """A whole file, for the small ones."""
        return self._objects.read(item.object)

    def rows(self, entry: DatasetEntry, *, offset: int, limit: int) -> RowPage:
        """Rows from `offset` on, through all files in the manifest's order."""
        manifest = self.manifest(entry)
        total = sum(file.rows for file in manifest.files)
        rows: list[dict[str, Any]] = []
        columns: list[str] = []
        tokens = 0
        for file, first, count in _covering(manifest, offset, limit):
            for row in self._file_rows(entry, file, first, count):
                tokens += int(row.get("n_tokens") or 0)
                if rows and tokens > ROW_TOKENS:
                    return RowPage(total=total, columns=columns, rows=rows, partial=True)
                columns = columns or list(row)
                rows.append(row)
        return RowPage(total=total, columns=columns, rows=rows, partial=False)

    def schema(self, entry: DatasetEntry) -> Any:
        """The Arrow schema of the dataset's files; None for a dataset without files."""
        manifest = self.manifest(entry)
        if not manifest.files:
            return None
        item = self.item(entry, manifest.files[0].path)
        with ObjectFile(self._objects, item.object, item.bytes) as stream:
            return open_parquet(stream, name=manifest.files[0].path).schema_arrow

    def columns(self, entry: DatasetEntry, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """All rows with those of the columns that the dataset has, a few in memory at a time; raises DatasetError for damage."""
        for file in self.manifest(entry).files:
            item = self.item(entry, file.path)
            with ObjectFile(self._objects, item.object, item.bytes) as stream:
                yield from some_columns(open_parquet(stream, name=file.path), names, name=file.path)

    def _file_rows(self, entry: DatasetEntry, file: DataFile, first: int, count: int) -> Iterator[dict[str, Any]]:
        item = self.item(entry, file.path)
        with ObjectFile(self._objects, item.object, item.bytes) as stream:
            parquet = open_parquet(stream, name=file.path)
            for batch in read_rows(parquet, name=file.path):
                if first >= batch.num_rows:
                    first -= batch.num_rows
                    continue
                for number in range(first, min(batch.num_rows, first + count)):
                    yield batch.slice(number, 1).to_pylist()[0]
                count -= min(batch.num_rows - first, count)
                first = 0
                if not count:
                    return

    def _read_manifest(self, dataset_id: str) -> Manifest:
        where = f"{folder_of(dataset_id)}/{manifests.NAME}"
        return Manifest.from_bytes(self._objects.read(where), where=f"{dataset_id}/{manifests.NAME}")


def folder_of(dataset_id: str) -> str:
    """Where a dataset's objects are."""
    return f"datasets/{dataset_id}"


def _covering(manifest: Manifest, offset: int, limit: int) -> Iterator[tuple[DataFile, int, int]]:
    """The files that hold rows offset..offset + limit, with the first row in the file and how many."""
    for file in manifest.files:
        if limit <= 0:
            return
        if offset < file.rows:
            count = min(limit, file.rows - offset)
            yield file, offset, count
            limit -= count
        offset = max(0, offset - file.rows)
