"""A dataset of every kind, built in a process whose surroundings are others: hash seed, time zone, language, clock, threads, order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import time_machine

from service.engine.shard_task import run_task
from tests.faults import lines

OTHERS = {
    "west": {
        "PYTHONHASHSEED": "1",
        "TZ": "America/St_Johns",
        "LANG": "C",
        "LC_ALL": "C",
        "RAYON_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CLOCK": "1999-06-30T23:59:58+00:00",
    },
    "east": {
        "PYTHONHASHSEED": "4242",
        "TZ": "Asia/Kathmandu",
        "LANG": "zh_CN.UTF-8",
        "LC_ALL": "zh_CN.UTF-8",
        "RAYON_NUM_THREADS": "3",
        "POLARS_MAX_THREADS": "3",
        "OMP_NUM_THREADS": "3",
        "TOKENIZERS_PARALLELISM": "true",
        "CLOCK": "2031-02-28T12:00:00+00:00",
    },
}
"""Environments by name; CLOCK is when the process believes to be."""


class Shuffled:
    """An executor whose tasks end in a drawn order."""

    def __init__(self, seed: int) -> None:
        self._draws = np.random.default_rng(seed)
        self.moved = 0

    def run(self, payloads: Sequence[bytes], check: Callable[[], None]) -> Iterator[bytes]:
        """Results in a drawn order; counts the tasks that are not at their place."""
        order = self._draws.permutation(len(payloads))
        self.moved += int((order != np.arange(len(payloads))).sum())
        for number in order:
            check()
            yield run_task(payloads[number])


def every_kind(folder: Path, executor: Shuffled | None = None) -> dict[str, dict[str, str]]:
    """The digests of a dataset of every kind, by kind."""
    folder.mkdir(parents=True)
    lines.make_sources(folder)
    return {kind: lines.build(spec, folder / kind, executor) for kind, spec in lines.specs(folder).items()}


def in_surroundings(name: str, folder: Path) -> dict[str, dict[str, str]]:
    """The same out of a process with another environment; its tasks end in another order. Raises CalledProcessError."""
    command = [sys.executable, "-m", "tests.faults.surroundings", str(folder), str(len(name) + len(str(OTHERS[name])))]
    done = subprocess.run(command, env=os.environ | OTHERS[name], check=True, capture_output=True, text=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["moved"] > 0, "no task ended out of order"
    assert told["year"] == int(OTHERS[name]["CLOCK"][:4]), "the clock was not another"
    return told["digests"]


def main() -> None:
    """Build under a clock of CLOCK's, and print the digests."""
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    executor = Shuffled(seed)
    with time_machine.travel(datetime.fromisoformat(os.environ["CLOCK"]), tick=True):
        digests = every_kind(folder, executor)
        year = datetime.now(UTC).year
    print(json.dumps({"digests": digests, "moved": executor.moved, "year": year}))


if __name__ == "__main__":
    main()
