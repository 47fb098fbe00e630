"""How long a user waits for a preview: requests over loopback to a warm server, a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from tests.bench import builds
from tests.bench.measure import Result
from tests.bench.served import served, upload

WANTED_SECONDS = 0.1


def results(folder: Path, *, short: bool) -> Iterator[Result]:
    """The median and the 95th percentile of every kind that has a preview, by the wall's clock."""
    texts, talks = folder / "texts.jsonl", folder / "talks.jsonl"
    with served(folder, "api") as http:
        builds.documents(texts, 400_000 if short else 32_000_000)
        builds.conversations(talks, 400_000 if short else 32_000_000)
        specs = _specs(upload(http, texts), upload(http, talks))
        for number, (kind, spec) in enumerate(specs.items()):
            yield _line(http, kind, spec, count=3 if short else 60, first=number == 0)


def _specs(texts: str, talks: str) -> dict[str, dict[str, Any]]:
    return {
        "cip": {"kind": "cip", "source": {"upload": texts}, "sequence_length": 4096},
        "skipalign": {"kind": "skipalign", "source": {"upload": talks}, "strategy": "outer"},
        "synl": {"kind": "synl", "samples": 100, "length": [4096]},
        "needle": {"kind": "needle", "lengths": [4096], "depths": 2, "repeats": 1, "license": "CC0-1.0"},
    }


def _line(http: httpx2.Client, kind: str, spec: dict[str, Any], *, count: int, first: bool) -> Result:
    """`count` requests with a seed each: no answer can be remembered from the one before."""
    seconds: list[float] = []
    for seed in range(count + 2):
        begun = time.perf_counter()
        answer = http.post("/v1/previews", json={**spec, "seed": seed})
        seconds.append(time.perf_counter() - begun)
        if answer.status_code != 200 or not answer.json()["rows"]:
            raise RuntimeError(answer.text)
    warm = np.array(seconds[2:])
    late = float(np.percentile(warm, 95))
    return Result(
        what="a preview of three rows, warm server, over loopback" if first else "",
        who=f"`{kind}`",
        figure=1000 * float(np.median(warm)),
        unit="ms",
        clock="wall",
        least=1000 * float(warm.min()),
        most=1000 * late,
        aim="95th percentile below 100 ms",
        met=late < WANTED_SECONDS,
        note=f"{count} requests; from the least to the 95th percentile",
    )
