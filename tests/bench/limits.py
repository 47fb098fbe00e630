"""What the machine itself gives: memory copied, a file written and forced to the disk, the same read back from the page cache."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench.measure import Result, measure


def results(folder: Path, *, short: bool, rounds: int) -> Iterator[Result]:
    """Gigabytes a second, by the wall's clock: the disk is no processor."""
    size = (16 if short else 512) * 2**20
    source = np.arange(size // 8)
    target = np.zeros_like(source)
    data, path = memoryview(source).cast("B"), folder / "limits.bin"
    rates: dict[str, list[float]] = {"memory copy": [], "write and fsync": [], "read from the page cache": []}

    def write() -> None:
        with path.open("wb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())

    def read() -> None:
        with path.open("rb", buffering=0) as stream:
            stream.readinto(memoryview(target).cast("B"))

    works = {
        "memory copy": lambda: np.copyto(target, source),
        "write and fsync": write,
        "read from the page cache": read,
    }
    for _ in range(rounds):
        for name, work in works.items():
            begun = time.perf_counter()
            work()
            rates[name].append(size / 1e9 / (time.perf_counter() - begun))
    path.unlink()
    for name, values in rates.items():
        yield measure("the machine" if name == "memory copy" else "", name, values, "GB/s", clock="wall")
