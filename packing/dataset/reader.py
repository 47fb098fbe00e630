"""Reading a dataset: only what the manifest names, checked before it is believed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from packing.dataset import manifest as manifests
from packing.dataset.digest import ContentDigest
from packing.dataset.errors import DatasetError
from packing.dataset.manifest import DataFile, Manifest

BLOCK = 1024 * 1024


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the dataset in `folder`; raises DatasetError where there is none."""
    path = folder / manifests.NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"{folder} holds no {manifests.NAME}: it is no dataset, or its build has not finished"
        raise DatasetError(message, param=str(folder)) from error
    if len(data) > manifests.LARGEST:
        message = f"{path} has {len(data)} bytes, more than a manifest may have ({manifests.LARGEST})"
        raise DatasetError(message, param=str(path))
    return Manifest.from_bytes(data, where=str(path))


def file_digest(stream: BinaryIO) -> tuple[str, int]:
    """sha256 (hexadecimal) and length in bytes of what is left in a binary stream."""
    sha256, count = hashlib.sha256(), 0
    while block := stream.read(BLOCK):
        sha256.update(block)
        count += len(block)
    return sha256.hexdigest(), count


def inside(folder: Path, relative: str) -> Path:
    """The file `relative` inside `folder`; raises DatasetError for a path that leads outside, through links too."""
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder.resolve()):
        message = f"the manifest names {relative!r}, which lies outside the dataset"
        raise DatasetError(message, param=relative)
    return path


def check_file(folder: Path, relative: str, size: int, sha256: str) -> Path:
    """Check a file's length and digest against the manifest; raises DatasetError naming the file."""
    path = inside(folder, relative)
    try:
        with path.open("rb") as stream:
            digest, count = file_digest(stream)
    except FileNotFoundError as error:
        message = f"{relative} is missing: the manifest names it"
        raise DatasetError(message, param=relative) from error
    if count != size:
        message = f"{relative} has {count} bytes, the manifest says {size}"
        raise DatasetError(message, param=relative)
    if digest != sha256:
        message = f"{relative} is damaged: its sha256 is not the manifest's"
        raise DatasetError(message, param=relative)
    return path


def open_parquet(source: str | Path | BinaryIO | pa.NativeFile, *, name: str) -> pq.ParquetFile:
    """Open a Parquet file with page checksums verified on reading; raises DatasetError naming the file."""
    try:
        return pq.ParquetFile(source, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        message = f"{name} is no whole Parquet file ({error})"
        raise DatasetError(message, param=name) from error


def read_rows(parquet: pq.ParquetFile, *, name: str) -> Iterator[pa.RecordBatch]:
    """The rows of a file, a batch for each row group; raises DatasetError where a page is damaged."""
    for group in range(parquet.num_row_groups):
        try:
            table = parquet.read_row_group(group, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            message = f"{name} is damaged in row group {group} ({error})"
            raise DatasetError(message, param=name) from error
        yield from table.combine_chunks().to_batches()


def check_values(parquet: pq.ParquetFile, file: DataFile) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file and, at its end, raise DatasetError unless counts and content digest are the manifest's."""
    content = ContentDigest(parquet.schema_arrow)
    rows = tokens = 0
    for batch in read_rows(parquet, name=file.path):
        content.update(batch)
        rows += batch.num_rows
        if "n_tokens" in batch.schema.names:
            tokens += int(batch.column("n_tokens").to_numpy().sum())
        yield batch
    if (rows, tokens) != (file.rows, file.tokens):
        message = f"{file.path} has {rows} rows and {tokens} tokens, the manifest says {file.rows} and {file.tokens}"
        raise DatasetError(message, param=file.path)
    if content.hexdigest() != file.content_sha256 and _first_form(parquet, file) != file.content_sha256:
        message = f"{file.path} holds other values than the manifest's content_sha256 was taken of"
        raise DatasetError(message, param=file.path)


def _first_form(parquet: pq.ParquetFile, file: DataFile) -> str:
    """The content digest as it was taken before labels and positions were told by their changes."""
    content = ContentDigest(parquet.schema_arrow, form=1)
    for batch in read_rows(parquet, name=file.path):
        content.update(batch)
    return content.hexdigest()
