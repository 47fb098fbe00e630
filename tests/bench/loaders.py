"""Reading a shuffled epoch of a dataset's rows as arrays: the bundled worker's stream beside the loaders people stream from."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from tests.bench import builds
from tests.bench.bins import ROOT
from tests.bench.measure import Contender, Race, Result, Timed, run
from training.source import open_source
from training.stream import DataState, RowStream

PYTHON = ROOT / ".venv-loaders/bin/python"
COLUMNS = ("input_ids", "labels", "position_ids")
BUFFER = 1000


def results(folder: Path, *, short: bool, rounds: int) -> Iterator[Result]:
    """Tokens a second of one process, by processor time; every loader gives ids, labels and positions of every row."""
    folder.mkdir()
    datasets.disable_progress_bars()
    talks, out = folder / "talks.jsonl", folder / "dataset"
    builds.conversations(talks, 400_000 if short else 32_000_000)
    spec = {"kind": "skipalign", "source": {"path": str(talks)}, "strategy": "inner", "shard_tokens": 1_000_000}
    manifest = builds.build(out, **spec)
    tokens = manifest.counts["tokens"]
    files = [str(out / file.path) for file in manifest.files]
    _hand_over(builds.rows_of(out, manifest), folder / "rows.npz")

    def ours() -> int:
        stream = RowStream(open_source(str(out)), seed=1)
        half = _read(stream, DataState(), stream.rows // 2)
        # Resumed where it stood: what is read in all is one epoch.
        return half + _read(stream, DataState(row=stream.rows // 2), stream.rows - stream.rows // 2)

    def hugging_face() -> int:
        rows = datasets.load_dataset(
            "parquet", data_files=files, split="train", streaming=True, cache_dir=str(folder / "cache")
        )
        total = 0
        for row in rows.select_columns(list(COLUMNS)).shuffle(seed=1, buffer_size=BUFFER).with_format("numpy"):
            total += len(row["input_ids"])
        return total

    def venv(name: str) -> Timed:
        place = folder / f"{name}-{len(list(folder.iterdir()))}"
        command = [PYTHON, Path(__file__).with_name("peer_loaders.py"), name, folder / "rows.npz", place, "1"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["tokens"] == tokens
        return Timed(found["tokens"], found["seconds"])

    absent = "" if PYTHON.exists() else "not installed: `make loaders` makes its venv"
    race = Race(
        title="a shuffled epoch read, ids, labels and positions",
        unit="tokens",
        contenders=[
            Contender(
                name="the bundled worker's stream",
                work=ours,
                note="stopped and resumed in the middle; every byte checked",
            ),
            Contender(
                name="datasets, streaming", work=hugging_face, aim=1, note=f"Parquet, a buffer of {BUFFER:,} rows"
            ),
            Contender(
                name="MDS, local", work=lambda: venv("mds"), aim=1, absent=absent, note="uncompressed, unchecked"
            ),
            Contender(
                name="litdata, local", work=lambda: venv("litdata"), absent=absent, note="uncompressed, unchecked"
            ),
        ],
    )
    for contender in race.contenders[:2]:
        assert contender.work() == tokens
    yield from run(race, rounds)


def _read(stream: RowStream, state: DataState, rows: int) -> int:
    total = 0
    for _, (row, _state) in zip(range(rows), stream.rows_from(state), strict=False):
        total += len(row.input_ids)
    return total


def _hand_over(rows: pa.Table, path: Path) -> None:
    """The rows as arrays that any version of numpy reads."""
    flat = {name: np.concatenate([chunk.flatten() for chunk in rows.column(name).chunks]) for name in COLUMNS}
    np.savez(path, lengths=rows.column("n_tokens").to_numpy(), **flat)
