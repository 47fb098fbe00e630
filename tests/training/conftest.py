"""Small datasets on disk, written by the house's own writer, and tiny models that have never seen any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from packing.dataset.manifest import NAME, DataFile, Manifest
from packing.dataset.schema import SKIPALIGN
from packing.dataset.writer import write_shard

torch.set_num_threads(1)

CIP = pa.schema([f for f in SKIPALIGN if f.name in {"input_ids", "labels", "seq_lengths", "n_tokens"}])
VOCABULARY = 64

Rows = Sequence[dict[str, Any]]


def token_rows(
    count: int, *, seed: int = 0, longest: int = 24, sequences: int = 3, gap: int = 1000, positions: bool = True
) -> list[dict[str, Any]]:
    """Rows of one to `sequences` sequences of 2 to `longest` tokens, each with a jump in its positions after its first
    half."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        lengths = rng.integers(2, longest + 1, size=rng.integers(1, sequences + 1)).astype(np.int32)
        ids = rng.integers(0, VOCABULARY, size=int(lengths.sum())).astype(np.int32)
        labels = ids.copy()
        starts = np.cumsum(lengths) - lengths
        jumps = [np.arange(n) + (np.arange(n) >= n // 2) * rng.integers(1, gap + 1) for n in lengths]
        labels[starts] = -100
        labels[rng.random(len(labels)) < 0.3] = -100
        row: dict[str, Any] = {"input_ids": ids, "labels": labels, "seq_lengths": lengths, "n_tokens": len(ids)}
        if positions:
            row |= {
                "position_ids": np.concatenate(jumps).astype(np.int32),
                "blocks": [],
                "skipped": True,
                "reasons": [""] * len(lengths),
                "source_ids": [f"row {number}"] * len(lengths),
            }
        rows.append(row)
    return rows


def write_dataset(
    folder: Path,
    shards: Sequence[Rows],
    *,
    schema: pa.Schema = SKIPALIGN,
    splits: Sequence[str] | None = None,
    group_rows: int = 4,
    vocabulary: int = VOCABULARY,
) -> Path:
    """Write rows as a dataset with a shard for each list of rows, and return its folder."""
    splits = splits or ["train"] * len(shards)
    (folder / "data").mkdir(parents=True)
    files: list[DataFile] = []
    for number, (rows, split) in enumerate(zip(shards, splits, strict=True)):
        path = f"data/{split}-{number:05d}-of-{len(shards):05d}.parquet"
        batches = [pa.RecordBatch.from_pylist([row], schema=schema) for row in rows]
        with pytest.MonkeyPatch.context() as patch, (folder / path).open("wb") as sink:
            patch.setattr("packing.dataset.writer.GROUP_ROWS", group_rows)
            written = write_shard(batches, schema, sink)
        files.append(
            DataFile(
                path=path,
                split=split,
                bytes=written.bytes,
                rows=written.rows,
                tokens=written.tokens,
                sha256=written.sha256,
                content_sha256=written.content_sha256,
            )
        )
    manifest = Manifest(
        kind="skipalign" if schema is SKIPALIGN else "cip",
        name="made for a test",
        spec={},
        fingerprint="0" * 64,
        versions={},
        tokenizer={"name": "none", "sha256": "0" * 64, "vocab_size": vocabulary},
        inputs=[],
        files=tuple(files),
        documents=(),
        counts={},
        skipped_inputs={},
    )
    (folder / NAME).write_bytes(manifest.to_bytes())
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset of three shards (11, 0 and 9 rows) and a test split, in row groups of four."""
    return write_dataset(
        tmp_path / "dataset",
        [token_rows(11), [], token_rows(9, seed=1), token_rows(3, seed=2)],
        splits=["train", "train", "train", "test"],
    )


@pytest.fixture
def config_of(tmp_path: Path, dataset: Path) -> Callable[..., dict[str, Any]]:
    """Builds a config of plain mappings for the dataset; sections are merged over small defaults."""

    def build(**sections: Any) -> dict[str, Any]:
        whole: dict[str, Any] = {
            "model": {"preset": "tiny"},
            "data": {"source": str(dataset), "shuffle_seed": 3},
            "batch": {"tokens_per_step": 160, "row_tokens": 80},
            "optimizer": {"lr": 1e-3, "warmup": 2},
            "steps": 8,
            "checkpoint": {"dir": str(tmp_path / "run"), "every": 3, "keep": 2},
        }
        for name, section in sections.items():
            whole[name] = whole.get(name, {}) | section if isinstance(section, dict) else section
        return whole

    return build


@pytest.fixture
def tiny_manifest(tmp_path: Path) -> Manifest:
    """The manifest of a dataset, for the size of its vocabulary."""
    folder = write_dataset(tmp_path / "tiny", [token_rows(1)])
    return Manifest.from_bytes((folder / NAME).read_bytes())
