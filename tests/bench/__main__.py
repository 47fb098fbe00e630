"""`make bench`: what we do beside what people do today, one table. One core each: rates are by processor time, in turns, in one process."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

VERSIONS = ("longweave", "datasets", "faker", "fastokens", "numpy", "polars", "pyarrow", "tokenizers", "transformers")


def processor() -> str:
    """The processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Run all races and print the table."""
    parser = argparse.ArgumentParser(description="speed beside the peers")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every contender (default 3)")
    parser.add_argument("--short", action="store_true", help="small sizes: for a look, not for figures")
    options = parser.parse_args()
    os.environ |= {
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "POLARS_MAX_THREADS": "1",
    }
    from tests.bench import chunks, measure, needles, tables

    print(f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in VERSIONS))
    print(
        f"medians of {options.rounds} turns, units a second of processor time; ratios are ours to the peer's, turn by turn\n"
    )
    print("| what | who | rate | ours is |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="longweave-bench-") as folder:
        for make in (
            lambda: chunks.race(Path(folder), short=options.short),
            lambda: tables.race(short=options.short),
            lambda: needles.race(short=options.short),
        ):
            print("\n".join(measure.run(make(), options.rounds)), flush=True)


if __name__ == "__main__":
    main()
