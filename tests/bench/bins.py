"""Packing by length beside TRL's `pack_dataset` and axolotl's plan: time, and how full the rows are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.bins import best_fit
from tests.bench.measure import Contender, Race, Result, Timed, run

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
pack_parallel(lengths[:1000], capacity, 100_000, 200, 1)
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


def axolotl(lengths: Path, capacity: int) -> tuple[Timed, str]:
    """axolotl's plan (groups of 100,000, bins of at most 200), timed in its own venv after its compiler has run."""
    done = subprocess.run(
        [AXOLOTL, "-c", PLAN, lengths, str(capacity), "1"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"AXOLOTL_DO_NOT_TRACK": "1"},
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return Timed(found["count"], found["seconds"]), f"fill {found['fill']:.5f}"


def plans(folder: Path, lengths: NDArray[np.int64], capacity: int) -> Race:
    """The plan alone: lengths in, bins out."""
    path = folder / f"lengths-{capacity}.npy"
    np.save(path, lengths)

    def ours() -> int:
        _, offsets = best_fit(lengths, capacity)
        contender.note = fill_of(int(lengths.sum()), len(offsets) - 1, capacity)
        return len(lengths)

    def theirs() -> Timed:
        timed, peer.note = axolotl(path, capacity)
        return timed

    contender = Contender(name="Longweave", work=ours)
    peer = Contender(
        name="axolotl's plan",
        work=theirs,
        aim=30,
        absent="" if AXOLOTL.exists() else "not installed: `make axolotl` makes its venv",
    )
    return Race(title=f"packing, the plan, rows of {capacity:,}", unit="samples", contenders=[contender, peer])


def packed(folder: Path, lengths: NDArray[np.int64], capacity: int) -> Race:
    """Tokens in, rows out, from a dataset on disk: TRL packs and moves in one."""
    from trl import pack_dataset

    source = folder / f"samples-{capacity}"
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = np.random.default_rng(1).integers(0, 32_768, offsets[-1], dtype=np.int32)
    table = pa.table({"input_ids": pa.ListArray.from_arrays(offsets, ids)})
    datasets.Dataset(table).save_to_disk(str(source))
    del ids, table

    def ours() -> int:
        """The plan, and the samples of every row one behind the other, as our shards are laid out."""
        rows = datasets.load_from_disk(str(source)).with_format("arrow")
        table = rows[:].combine_chunks()
        items, bounds = best_fit(lengths, capacity)
        column = table.column("input_ids").chunk(0)
        taken = column.take(pa.array(items))
        ends = np.concatenate([[0], np.cumsum(lengths[items])])[bounds].astype(np.int32)
        packed_rows = pa.ListArray.from_arrays(ends, taken.flatten())
        with (
            pa.OSFile(str(folder / "packed.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, pa.schema([("ids", packed_rows.type)])) as writer,
        ):
            writer.write_batch(pa.record_batch([packed_rows], ["ids"]))
        contender.note = f"best_fit, rows gathered by pyarrow; {fill_of(int(lengths.sum()), len(bounds) - 1, capacity)}"
        return len(lengths)

    def theirs() -> int:
        rows = datasets.load_from_disk(str(source))
        done = pack_dataset(
            rows,
            capacity,
            strategy="bfd",
            map_kwargs={"batch_size": 10_000, "num_proc": 2, "load_from_cache_file": False},
        )
        kept = sum(len(chunk.flatten()) for chunk in done.data.column("input_ids").chunks)
        peer.note = f"bfd, batches of 10,000, two processes; {fill_of(kept, len(done), capacity)}"
        rows.cleanup_cache_files()
        return len(lengths)

    contender = Contender(name="Longweave", work=ours)
    peer = Contender(name="TRL's `pack_dataset`", work=theirs)
    return Race(title=f"packing, rows of {capacity:,} made", unit="samples", contenders=[contender, peer])


def results(folder: Path, *, short: bool, rounds: int) -> Iterator[Result]:
    """Both races for every capacity."""
    datasets.disable_progress_bars()
    for capacity in CAPACITIES:
        lengths = lengths_of(4_000 if short else 200_000, capacity)
        yield from run(plans(folder, lengths, capacity), rounds)
        few = lengths[: 4_000 if short else 100_000]
        yield from run(packed(folder, few, capacity), rounds)
        shutil.rmtree(folder / f"samples-{capacity}")
