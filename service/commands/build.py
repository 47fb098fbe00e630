"""`longweave build SPEC --out DIR`: the same dataset without a server."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from packing.dataset.errors import DatasetError, LongweaveError
from packing.dataset.manifest import Manifest
from packing.spec import CommonSpec
from service.commands.progress import Progress
from service.commands.specs import read_spec, take_in_sources
from service.engine.executor import Executor, InlineExecutor, RayExecutor
from service.engine.line import build_dataset, discard
from service.engine.tokenizers import find_tokenizer
from service.storage.objects import Objects

WORK = ".longweave"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("spec", type=Path, help="the spec, YAML or JSON")
    parser.add_argument("--out", type=Path, required=True, help="the dataset's directory")
    parser.add_argument(
        "--workers", type=_count, default=0, help="0: in this process (the default); N: on N Ray workers"
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        message = f"{text!r} is no number of workers: 0 or more"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Build, commit, and say where it is."""
    spec = read_spec(options.spec)
    out: Path = options.out
    _check_place(out)
    progress = Progress(quiet=options.json)
    with progress:
        if options.workers:
            with RayExecutor(workers=options.workers) as executor:
                manifest = _build(spec, out, executor, progress)
        else:
            manifest = _build(spec, out, InlineExecutor(), progress)
    if options.json:
        print(json.dumps({"dataset": str(out), "fingerprint": manifest.fingerprint, "counts": dict(manifest.counts)}))
    else:
        print(
            f"{out}: {manifest.counts['rows']:,} rows, {manifest.counts['tokens']:,} tokens in {len(manifest.files)} files"
        )
        for warning in manifest.warnings:
            print(f"warning: {warning}")
    return 0


def _check_place(out: Path) -> None:
    """A dataset is built into a new or empty directory, or goes on where an interrupted build stopped."""
    if out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").exists() and not (out / WORK).exists():
        message = f"{out} is not empty and holds no dataset of ours: name a new directory"
        raise DatasetError(message, param="--out")
    if out.exists() and not out.is_dir():
        message = f"{out} is a file: --out names a directory"
        raise DatasetError(message, param="--out")


def _build(spec: CommonSpec, out: Path, executor: Executor, progress: Progress) -> Manifest:
    tokenizer = find_tokenizer(spec.tokenizer, paths=True)
    existed = out.exists()
    objects = Objects.local(out)
    try:
        sources = take_in_sources(spec, objects, f"{WORK}/pieces")
        manifest = build_dataset(
            spec=spec,
            sources=sources,
            tokenizer=tokenizer,
            objects=objects,
            work=WORK,
            target="",
            executor=executor,
            watch=progress,
        )
    except LongweaveError:
        # What cannot succeed leaves nothing; an interrupt or a crash leaves its receipts for the next try.
        executor.settle()
        discard(objects, work=WORK, target="")
        _remove_empty(out, existed=existed)
        raise
    objects.delete_prefix(WORK)
    return manifest


def _remove_empty(out: Path, *, existed: bool) -> None:
    if not existed and out.is_dir() and not any(out.iterdir()):
        out.rmdir()
