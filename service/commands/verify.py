"""`longweave verify DIR`: the manifest, every checksum, every value, the invariants of every row; with --answers, of a SynL dataset,
every answer recomputed from the tables in the messages."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from packing.dataset.errors import DatasetError, SpecError
from packing.dataset.manifest import Manifest
from packing.dataset.reader import check_file, check_values, open_parquet, read_manifest, read_rows
from packing.spec import CommonSpec
from service.engine.describe import fingerprint_of
from service.kinds import KINDS, spec_of
from synth.audit.rows import audit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("dataset", type=Path, help="the dataset's directory")
    parser.add_argument(
        "--answers",
        action="store_true",
        help="recompute every answer of a synl dataset from the tables in its messages",
    )


def run(options: argparse.Namespace) -> int:
    """Check a dataset; exit 1 with the reason on any damage."""
    manifest = verify(options.dataset)
    counts = {
        "files": len(manifest.files),
        "rows": sum(f.rows for f in manifest.files),
        "tokens": sum(f.tokens for f in manifest.files),
    }
    if options.answers:
        counts["answers"] = recompute(options.dataset, manifest)
    if options.json:
        print(json.dumps({"dataset": str(options.dataset), "whole": True, **counts}))
    else:
        print(
            f"{options.dataset}: whole; {counts['rows']:,} rows and {counts['tokens']:,} tokens in {counts['files']} files checked"
            + (f"; {counts['answers']:,} answers recomputed, all equal" if options.answers else "")
        )
    return 0


def verify(folder: Path) -> Manifest:
    """Check everything there is to check about the dataset in `folder`; raises DatasetError with the first damage found."""
    manifest = read_manifest(folder)
    spec = _spec(manifest)
    _check_fingerprint(manifest, spec)
    _check_names(folder, manifest)
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


def recompute(folder: Path, manifest: Manifest) -> int:
    """Recompute every answer of a verified dataset; raises DatasetError with the first that is wrong, or where there are none."""
    if manifest.kind != "synl":
        message = f"--answers is for datasets of kind synl, whose questions are data; this one is {manifest.kind}"
        raise DatasetError(message, param="--answers")
    answers = 0
    for file in manifest.files:
        with open_parquet(folder / file.path, name=file.path) as parquet:
            for batch in read_rows(parquet, name=file.path):
                for row in batch.to_pylist():
                    try:
                        answers += audit(row)
                    except DatasetError as error:
                        raise DatasetError(f"{file.path}: {error.message}", param=file.path) from error
    return answers


def _spec(manifest: Manifest) -> CommonSpec:
    if manifest.kind not in KINDS:
        message = f"the dataset is of kind {manifest.kind!r}, which this version of Longweave does not know"
        raise DatasetError(message, param="kind")
    try:
        return spec_of(dict(manifest.spec))
    except SpecError as error:
        message = f"the manifest's spec is damaged, or of another version ({error.message})"
        raise DatasetError(message, param="spec") from error


def _check_fingerprint(manifest: Manifest, spec: CommonSpec) -> None:
    try:
        found = fingerprint_of(manifest, spec.part_specs())
    except (LookupError, TypeError, ValueError) as error:
        message = f"the manifest is damaged: it lacks what its fingerprint is taken of ({error})"
        raise DatasetError(message, param="fingerprint") from error
    if found != manifest.fingerprint:
        message = "the manifest's fingerprint is not that of its spec, inputs and tokenizer: one of them is damaged or was changed"
        raise DatasetError(message, param="fingerprint")


def _check_names(folder: Path, manifest: Manifest) -> None:
    """Names say which split a file is of; and whoever reads data/*.parquet reads what no manifest names."""
    named = {file.path for file in manifest.files}
    for file in manifest.files:
        if not file.path.startswith(f"data/{file.split}-"):
            message = f"{file.path} is of the split {file.split!r} by the manifest, and not by its name"
            raise DatasetError(message, param=file.path)
    if lacking := {"README.md", "statistics.json"} - {document.path for document in manifest.documents}:
        message = f"the manifest does not name {min(lacking)}, which every dataset has"
        raise DatasetError(message, param="documents")
    for place in sorted((folder / "data").glob("*.parquet")):
        if (path := f"data/{place.name}") not in named and not place.name.startswith("."):
            message = f"{path} is none of the dataset's files, and would be read with them: take it away"
            raise DatasetError(message, param=path)


def _check_counts(manifest: Manifest) -> None:
    for name in ("rows", "tokens"):
        total = sum(getattr(file, name) for file in manifest.files)
        if manifest.counts.get(name) != total:
            message = f"the manifest counts {manifest.counts.get(name)} {name}, its files hold {total}"
            raise DatasetError(message, param="counts")
