"""`make bench`: what we do beside what people do today, one table. One core each: rates are by processor time, in turns, unless a line
says otherwise.

    python -m tests.bench [ROW ...] [--json] [--short] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.measure import Result

VERSIONS = (
    "longweave",
    "datasets",
    "faker",
    "fastokens",
    "nltk",
    "numpy",
    "polars",
    "pyarrow",
    "ray",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)
ROWS = (
    "machine",
    "cip",
    "skipalign",
    "positions",
    "packing",
    "synl",
    "needle",
    "machinery",
    "memory",
    "previews",
    "rest",
    "loader",
)
LONG_ROWS = ("sustained",)
"""Rows that take minutes and gigabytes: run where they are named."""
ONE_CORE = {
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "POLARS_MAX_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


def processor() -> str:
    """The processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    """Of everything that takes part and is installed."""
    found: dict[str, str] = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def rows(folder: Path, *, short: bool, rounds: int) -> Mapping[str, Callable[[], Iterator[Result]]]:
    """The rows of the table by name. Imported here, when the number of threads is settled."""
    from tests.bench import (
        alignment,
        bins,
        chunks,
        limits,
        loaders,
        machinery,
        measure,
        needles,
        previews,
        rest,
        tables,
    )

    return {
        "machine": lambda: limits.results(folder, short=short, rounds=rounds),
        "cip": lambda: measure.run(chunks.race(folder, short=short), rounds),
        "skipalign": lambda: measure.run(alignment.race(folder, short=short), rounds),
        "positions": lambda: alignment.positions(folder, short=short),
        "packing": lambda: bins.results(folder, short=short, rounds=rounds),
        "synl": lambda: measure.run(tables.race(short=short), rounds),
        "needle": lambda: measure.run(needles.race(short=short), rounds),
        "machinery": lambda: machinery.results(folder / "machinery", short=short, rounds=rounds),
        "memory": lambda: machinery.memory(folder / "memory", short=short),
        "sustained": lambda: machinery.sustained(folder / "sustained", short=short, rounds=rounds),
        "rest": lambda: rest.results(folder / "rest", short=short, rounds=rounds),
        "previews": lambda: previews.results(folder / "previews", short=short),
        "loader": lambda: loaders.results(folder / "loader", short=short, rounds=rounds),
    }


def main() -> int:
    """Run the rows asked for (all but the long ones, where none is) and print the table, or a line of JSON for each of its lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="speed beside the peers")
    parser.add_argument("row", nargs="*", help="only these rows")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every contender (default 3)")
    parser.add_argument("--short", action="store_true", help="small sizes: for a look, not for figures")
    parser.add_argument("--json", action="store_true", help="JSON lines: the machine, then a line each")
    options = parser.parse_args()
    if unknown := [name for name in options.row if name not in ROWS + LONG_ROWS]:
        parser.error(f"no row {', '.join(unknown)}: there are {', '.join(ROWS + LONG_ROWS)}")
    os.environ |= ONE_CORE
    with tempfile.TemporaryDirectory(prefix="longweave-bench-") as folder:
        known = rows(Path(folder), short=options.short, rounds=options.rounds)
        _heading(options)
        for name in options.row or ROWS:
            for line in known[name]():
                print(json.dumps({"row": name, **line.to_json()}) if options.json else line.row(), flush=True)
    return 0


def _heading(options: argparse.Namespace) -> None:
    load = os.getloadavg()[0]
    if options.json:
        machine = {"processor": processor(), "cores": os.cpu_count(), "load": load, "python": platform.python_version()}
        print(json.dumps(machine | {"versions": versions(), "rounds": options.rounds, "short": options.short}))
        return
    print(f"{processor()}, {os.cpu_count()} cores, load {load:.1f} at the start, Python {platform.python_version()}")
    print(", ".join(f"{name} {number}" for name, number in versions().items()))
    print(f"medians of {options.rounds} turns (least to most); ratios are ours to that line's, turn by turn\n")
    print("| what | who | figure | ours is | aim | note |\n|---|---|---|---|---|---|")


if __name__ == "__main__":
    sys.exit(main())
