"""Packing by length beside TRL's `pack_dataset` and axolotl's plan: time, and how full the rows are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.bins import best_fit
from service.engine.memory import keep_freed_memory
from tests.bench.apart import Apart
from tests.bench.measure import Contender, Race, Result, Timed, Work, processor_seconds, run

ROOT = Path(__file__).parents[2]
AXOLOTL = ROOT / ".venv-axolotl/bin/python"
CAPACITIES = (4096, 32_768)
MEAN_LOG, SPREAD = 6.2, 1.05
PLAN = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
from axolotl.utils.samplers.multipack import pack_parallel
lengths, capacity, rounds = np.load(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
pack_parallel(lengths, capacity, 100_000, 200, 1)
for _ in range(rounds):
    begun = time.process_time()
    bins = pack_parallel(lengths, capacity, 100_000, 200, 1)
    seconds = time.process_time() - begun
    fill = float(sum(int(lengths[np.array(one)].sum()) for one in bins) / (len(bins) * capacity))
    print(json.dumps({"count": len(lengths), "seconds": seconds, "fill": fill}))
"""


def lengths_of(samples: int, longest: int) -> NDArray[np.int64]:
    """Lengths as instruction data has them: log-normal, a mean of 800 to 860 tokens, none above `longest`."""
    drawn = np.random.default_rng(0).lognormal(MEAN_LOG, SPREAD, samples)
    return np.clip(drawn, 16, longest).astype(np.int64)


def fill_of(tokens: int, rows: int, capacity: int) -> str:
    """How full the rows are, as a note."""
    return f"fill {tokens / (rows * capacity):.5f}"


def axolotl(lengths: Path, capacity: int) -> Timed:
    """axolotl's plan (groups of 100,000, bins of at most 200), timed in its own venv after it has planned the same once."""
    done = subprocess.run(
        [AXOLOTL, "-c", PLAN, lengths, str(capacity), "1"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"AXOLOTL_DO_NOT_TRACK": "1"},
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return Timed(found["count"], found["seconds"], f"fill {found['fill']:.5f}")


def planned(path: Path, capacity: int) -> Mapping[str, Work]:
    """Our plan of the lengths in a file, in a process like a worker's that has planned before, as axolotl's has."""
    keep_freed_memory()
    lengths = np.load(path)
    best_fit(lengths, capacity)

    def plan() -> Timed:
        begun = processor_seconds()
        _, offsets = best_fit(lengths, capacity)
        took = processor_seconds() - begun
        return Timed(len(lengths), took, fill_of(int(lengths.sum()), len(offsets) - 1, capacity))

    return {"plan": plan}


def plans(folder: Path, lengths: NDArray[np.int64], capacity: int) -> Race:
    """The plan alone: lengths in, bins out."""
    path = folder / f"lengths-{capacity}.npy"
    np.save(path, lengths)
    ours = Apart(planned, path, capacity)
    peer = Contender(
        name="axolotl's plan",
        work=lambda: axolotl(path, capacity),
        aim=30,
        absent="" if AXOLOTL.exists() else "not installed: `make axolotl` makes its venv",
    )
    return Race(
        title=f"packing, the plan, rows of {capacity:,}",
        unit="samples",
        contenders=[Contender(name="Longweave", work=ours.way("plan")), peer],
        processes=[ours],
    )


def laid_out(source: Path, sink: Path, capacity: int) -> Mapping[str, Work]:
    """The plan, and the samples of every row one behind the other, as our shards are laid out."""
    keep_freed_memory()
    datasets.disable_progress_bars()

    def pack() -> Timed:
        begun = processor_seconds()
        table = datasets.load_from_disk(str(source)).with_format("arrow")[:].combine_chunks()
        column = table.column("input_ids").chunk(0)
        lengths = np.diff(column.offsets.to_numpy().astype(np.int64))
        items, bounds = best_fit(lengths, capacity)
        taken = column.take(pa.array(items))
        ends = np.concatenate([[0], np.cumsum(lengths[items])])[bounds].astype(np.int32)
        packed_rows = pa.ListArray.from_arrays(ends, taken.flatten())
        schema = pa.schema([("ids", packed_rows.type)])
        with pa.OSFile(str(sink), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            writer.write_batch(pa.record_batch([packed_rows], ["ids"]))
        took = processor_seconds() - begun
        fill = fill_of(int(lengths.sum()), len(bounds) - 1, capacity)
        return Timed(len(lengths), took, f"best_fit, rows gathered by pyarrow; {fill}")

    return {"pack": pack}


def by_trl(source: Path, capacity: int) -> Mapping[str, Work]:
    """TRL's packing of the same dataset."""
    from trl import pack_dataset

    datasets.disable_progress_bars()

    def pack() -> Timed:
        begun = processor_seconds()
        rows = datasets.load_from_disk(str(source))
        done = pack_dataset(
            rows,
            capacity,
            strategy="bfd",
            map_kwargs={"batch_size": 10_000, "num_proc": 2, "load_from_cache_file": False},
        )
        kept = sum(len(chunk.flatten()) for chunk in done.data.column("input_ids").chunks)
        took, fill = processor_seconds() - begun, fill_of(kept, len(done), capacity)
        samples = len(rows)
        del done
        rows.cleanup_cache_files()
        return Timed(samples, took, f"bfd, batches of 10,000, two processes; {fill}")

    return {"pack": pack}


def packed(folder: Path, lengths: NDArray[np.int64], capacity: int) -> Race:
    """Tokens in, rows out, from a dataset on disk: TRL packs and moves in one."""
    source = folder / f"samples-{capacity}"
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = np.random.default_rng(1).integers(0, 32_768, offsets[-1], dtype=np.int32)
    table = pa.table({"input_ids": pa.ListArray.from_arrays(offsets, ids)})
    datasets.Dataset(table).save_to_disk(str(source))
    ours, theirs = Apart(laid_out, source, folder / "packed.arrow", capacity), Apart(by_trl, source, capacity)
    return Race(
        title=f"packing, rows of {capacity:,} made",
        unit="samples",
        contenders=[
            Contender(name="Longweave", work=ours.way("pack")),
            Contender(name="TRL's `pack_dataset`", work=theirs.way("pack")),
        ],
        processes=[ours, theirs],
    )


def results(folder: Path, *, short: bool, rounds: int) -> Iterator[Result]:
    """Both races for every capacity."""
    datasets.disable_progress_bars()
    for capacity in CAPACITIES:
        lengths = lengths_of(4_000 if short else 200_000, capacity)
        yield from run(plans(folder, lengths, capacity), rounds)
        few = lengths[: 4_000 if short else 100_000]
        yield from run(packed(folder, few, capacity), rounds)
        shutil.rmtree(folder / f"samples-{capacity}")
