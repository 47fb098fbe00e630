"""`longweave verify DIR`: the manifest, every checksum, every value, the invariants of every row."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from packing.dataset.errors import DatasetError, SpecError
from packing.dataset.manifest import Manifest
from packing.dataset.reader import check_file, check_values, open_parquet, read_manifest
from packing.spec import CommonSpec
from service.kinds import KINDS, spec_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("dataset", type=Path, help="the dataset's directory")


def run(options: argparse.Namespace) -> int:
    """Check a dataset; exit 1 with the reason on any damage."""
    manifest = verify(options.dataset)
    counts = {
        "files": len(manifest.files),
        "rows": sum(f.rows for f in manifest.files),
        "tokens": sum(f.tokens for f in manifest.files),
    }
    if options.json:
        print(json.dumps({"dataset": str(options.dataset), "whole": True, **counts}))
    else:
        print(
            f"{options.dataset}: whole; {counts['rows']:,} rows and {counts['tokens']:,} tokens in {counts['files']} files checked"
        )
    return 0


def verify(folder: Path) -> Manifest:
    """Check everything there is to check about the dataset in `folder`; raises DatasetError with the first damage found."""
    manifest = read_manifest(folder)
    spec = _spec(manifest)
    for document in manifest.documents:
        check_file(folder, document.path, document.bytes, document.sha256)
    for file in manifest.files:
        path = check_file(folder, file.path, file.bytes, file.sha256)
        with open_parquet(path, name=file.path) as parquet:
            if not parquet.schema_arrow.equals(KINDS[manifest.kind].schema(spec)):
                message = f"{file.path} has other columns than a {manifest.kind} dataset"
                raise DatasetError(message, param=file.path)
            for batch in check_values(parquet, file):
                try:
                    KINDS[manifest.kind].check(spec, batch)
                except DatasetError as error:
                    raise DatasetError(f"{file.path}: {error.message}", param=file.path) from error
    _check_counts(manifest)
    return manifest


def _spec(manifest: Manifest) -> CommonSpec:
    if manifest.kind not in KINDS:
        message = f"the dataset is of kind {manifest.kind!r}, which this version of Longweave does not know"
        raise DatasetError(message, param="kind")
    try:
        return spec_of(dict(manifest.spec))
    except SpecError as error:
        message = f"the manifest's spec is damaged, or of another version ({error.message})"
        raise DatasetError(message, param="spec") from error


def _check_counts(manifest: Manifest) -> None:
    for name in ("rows", "tokens"):
        total = sum(getattr(file, name) for file in manifest.files)
        if manifest.counts.get(name) != total:
            message = f"the manifest counts {manifest.counts.get(name)} {name}, its files hold {total}"
            raise DatasetError(message, param="counts")
