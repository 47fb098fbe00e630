"""Whole jobs through REST by two workers beside datasets with two processes, by the wall's clock: what a user waits for."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
from transformers import AutoTokenizer

from packing.tokenizers import BUILTIN
from tests.bench import alignment, builds, chunks
from tests.bench.measure import Contender, Race, Result, run
from tests.bench.served import served, tokens_of_job, upload, wait_ready

WORKERS = 2
BYTES = 128_000_000
"""Some 34 M tokens: jobs of a second or two. Of a third of it start and end are a third."""


def results(folder: Path, *, short: bool, rounds: int) -> Iterator[Result]:
    """`cip` and `skipalign`: the sources were sent before, which the notes tell of; every job has a seed of its own."""
    datasets.disable_progress_bars()
    texts, talks = folder / "texts.jsonl", folder / "talks.jsonl"
    with served(folder, "serve", LONGWEAVE_WORKERS=str(WORKERS)) as http:
        builds.documents(texts, 400_000 if short else BYTES)
        builds.conversations(talks, 400_000 if short else BYTES)
        wait_ready(http)
        seeds = itertools.count()

        def job(path: Path, **spec: Any) -> Contender:
            begun = time.perf_counter()
            source = {"upload": upload(http, path)}
            note = f"two workers; {path.stat().st_size / 1e6:.0f} MB sent and taken in before, in {time.perf_counter() - begun:.2f} s"
            tokens_of_job(http, {**spec, "source": source, "seed": next(seeds)})  # workers are warm then
            return Contender(
                name="Longweave",
                work=lambda: tokens_of_job(http, {**spec, "source": source, "seed": next(seeds)}),
                note=note,
            )

        reference = AutoTokenizer.from_pretrained(str(BUILTIN))
        woven = job(texts, kind="cip", sequence_length=chunks.LENGTH)
        ways = [
            lambda: chunks.with_datasets(texts, chunks.ids_by(reference), WORKERS),
            lambda: chunks.with_datasets(texts, builds.flat, WORKERS),
        ]
        yield from run(_race("cip", woven, *ways), rounds)
        aligned = job(talks, kind="skipalign", max_position=alignment.WINDOW, max_length=alignment.LONGEST)
        ways = [
            lambda: alignment.with_datasets(talks, alignment.ids_by(reference), WORKERS),
            lambda: alignment.with_datasets(talks, alignment.fast_ids_by(reference), WORKERS),
        ]
        yield from run(_race("skipalign", aligned, *ways), rounds)


def _race(kind: str, ours: Contender, shipped: Callable[[], int], fast: Callable[[], int]) -> Race:
    return Race(
        title=f"`{kind}` through REST, from the request to the end",
        unit="tokens",
        clock="wall",
        contenders=[
            ours,
            Contender(name="Hugging Face datasets and tokenizers, two processes", work=shipped, aim=25),
            Contender(name="the same with fastokens", work=fast, aim=2),
        ],
    )
