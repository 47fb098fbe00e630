"""What the GPU benchmark runs: shapes of models, tasks, and the rows they train on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from packing.dataset.manifest import NAME, DataFile, Manifest
from packing.dataset.schema import SKIPALIGN
from packing.dataset.writer import write_shard
from training.flops import work_of

WINDOW = 524_288
"""Positions of every model, so that no run stretches its RoPE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A Llama's sizes."""

    name: str
    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int

    def config(self, window: int) -> LlamaConfig:
        """The shape with a window of so many positions."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            max_position_embeddings=window,
            rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )

    def flops(self, lengths: Sequence[int]) -> float:
        """FLOPs of forward and backward over sequences of these lengths, every token but the first of each a target
        (training.flops)."""
        with torch.device("meta"):
            work = work_of(AutoModelForCausalLM.from_config(self.config(max(lengths))))
        return work.of(sum(lengths), sum(lengths) - len(lengths), sum(n * n for n in lengths))


SHAPES = {
    "0.5B": Shape(name="0.5B", hidden=1280, inner=3840, layers=24, heads=20, key_heads=4, vocabulary=32_768),
    "1B": Shape(name="1B", hidden=2048, inner=8192, layers=16, heads=32, key_heads=8, vocabulary=32_768),
    "tiny": Shape(name="tiny", hidden=32, inner=64, layers=2, heads=2, key_heads=1, vocabulary=64),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A run: `who` trains a shape below `folder` on rows of `row` tokens, of samples of `sample` tokens on average (None:
    of one sequence each). A pass takes `rows` rows, a step `passes` passes; of `steps` steps the first `warm` do not count."""

    who: str
    shape: str
    folder: str
    row: int
    sample: int | None = None
    rows: int = 1
    passes: int = 1
    steps: int = 8
    warm: int = 2
    checkpointing: bool = False
    offload: bool = False
    mlp_chunk: int | None = None

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.row * self.rows * self.passes


def sample_lengths(task: Task) -> list[list[int]]:
    """The lengths of the samples in every row of a run: as whole rows as samples of many lengths make, cut to fit."""
    if task.sample is None:
        return [[task.row]] * (task.rows * task.passes * task.steps)
    rng = np.random.default_rng(0)
    rows: list[list[int]] = []
    for _ in range(task.rows * task.passes * task.steps):
        row: list[int] = []
        while (left := task.row - sum(row)) > 0:
            row.append(min(left, max(2, int(rng.lognormal(np.log(task.sample), 0.5)))))
        if row[-1] < 2:  # one token has nothing to be told from
            row[-2:] = [row[-2] + 1]
        rows.append(row)
    return rows


def write_rows(folder: Path, lengths: Sequence[Sequence[int]], vocabulary: int) -> Path:
    """A dataset of rows of samples of these lengths, random ids, every token but a sample's first a target."""
    rng = np.random.default_rng(0)
    (folder / "data").mkdir(parents=True, exist_ok=True)

    def row(of: Sequence[int]) -> pa.RecordBatch:
        ids = rng.integers(0, vocabulary, size=sum(of), dtype=np.int32)
        labels = ids.copy()
        labels[np.cumsum(of) - of] = -100
        columns: dict[str, Any] = {
            "input_ids": ids,
            "labels": labels,
            "position_ids": np.concatenate([np.arange(n, dtype=np.int32) for n in of]),
            "seq_lengths": list(of),
            "blocks": [],
            "skipped": False,
            "reasons": [""] * len(of),
            "source_ids": ["random"] * len(of),
            "n_tokens": sum(of),
        }
        return pa.RecordBatch.from_pylist([columns], schema=SKIPALIGN)

    path = "data/train-00000-of-00001.parquet"
    with (folder / path).open("wb") as sink:
        written = write_shard((row(of) for of in lengths), SKIPALIGN, sink)
    names = ("bytes", "rows", "tokens", "sha256", "content_sha256")
    manifest = Manifest(
        kind="skipalign",
        name="random tokens",
        spec={},
        fingerprint="0" * 64,
        versions={},
        tokenizer={"name": "none", "sha256": "0" * 64, "vocab_size": vocabulary},
        inputs=[],
        files=(DataFile(path=path, split="train", **{name: getattr(written, name) for name in names}),),
        documents=(),
        counts={},
        skipped_inputs={},
    )
    (folder / NAME).write_bytes(manifest.to_bytes())
    return folder


def as_words(task: Task) -> str:
    """A task as the one word of a child's command line."""
    return json.dumps(asdict(task))


def tasks(folder: str, *, rehearse: bool) -> list[Task]:
    """All runs, those worth most first; the last one is the stretch."""
    size = (lambda row: row // 128) if rehearse else (lambda row: row)

    def task(who: str, shape: str, row: int, **more: Any) -> Task:
        return Task(who=who, shape="tiny" if rehearse else shape, folder=folder, row=size(row), **more)

    packed = {"row": 4096, "sample": size(900), "rows": 4, "passes": 2}
    long = {"row": 32_768, "steps": 5, "checkpointing": True}
    longer = {"row": 131_072, "steps": 2, "warm": 1, "checkpointing": True, "mlp_chunk": size(16_384)}
    longest = longer | {"row": 524_288, "steps": 1, "warm": 0, "offload": True}
    plan = [
        *((who, shape, packed) for shape in ("1B", "0.5B") for who in ("ours", "Trainer")),
        ("ours", "1B", longer),
        *((who, "1B", long) for who in ("ours", "Trainer")),
        *((who, "0.5B", long) for who in ("ours", "Trainer")),
        *((who, "0.5B", longer) for who in ("ours", "Trainer")),
        ("Trainer", "1B", longer),
        ("ours", "1B", longest),
    ]
    return [task(who, shape, **more) for who, shape, more in plan if not (rehearse and shape == "0.5B")]


RECIPE_AFTER = 7
"""How many of the runs come before the recipe."""
