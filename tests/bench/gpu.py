"""`python -m tests.bench.gpu`: the worker beside the Hugging Face Trainer on one GPU, one table.

    python -m tests.bench.gpu                 # CUDA; at most --minutes
    python -m tests.bench.gpu --rehearse      # tiny shapes, on whatever there is: the same lines of code

Llama shapes of 0.5 B and 1 B parameters with random weights train on rows of one sequence of 4,096, 32,768 and 131,072 tokens,
every token a target: ours by `training.loop.train` as a user's run, the Trainer in bfloat16 with flash attention where flash_attn
is installed, else sdpa. It needs torch, pyarrow, transformers, numpy, pyyaml and, for the Trainer, accelerate: data and models are
made by the script. A run that does not fit says so, and so does one that time did not allow.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Trainer, TrainerCallback, TrainingArguments

from packing.dataset.manifest import NAME, DataFile, Manifest
from packing.dataset.schema import SKIPALIGN
from packing.dataset.writer import write_shard
from training.config import parse_config
from training.errors import TrainingError
from training.flops import peak_flops, work_of
from training.loop import train

STEPS, WARM = 6, 2
"""Steps of a run, and how many of the first are not counted."""


class EnoughError(Exception):
    """Ends one of our runs once its last step is recorded: a benchmark wants no checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A Llama's sizes; heads of `size` dimensions."""

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

    def flops_per_token(self, length: int) -> float:
        """6·(N_blocks + V·d) + 6·L·d·Σlen²/Σlen for sequences of one length, every token a target (training.flops)."""
        with torch.device("meta"):
            work = work_of(AutoModelForCausalLM.from_config(self.config(length)))
        return work.of(length, length, length * length) / length


SHAPES = (
    Shape(name="0.5B", hidden=1280, inner=3840, layers=24, heads=20, key_heads=4, vocabulary=32_768),
    Shape(name="1B", hidden=2048, inner=8192, layers=16, heads=32, key_heads=8, vocabulary=32_768),
)
REHEARSED = (Shape(name="tiny", hidden=32, inner=64, layers=2, heads=2, key_heads=1, vocabulary=64),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Tokens a second (the median step), and the most memory allocated in bytes (None without CUDA)."""

    rate: float
    memory: int | None


def write_rows(folder: Path, *, rows: int, length: int, vocabulary: int) -> Path:
    """A dataset of rows of one sequence each, random ids, every token but the first a target."""
    rng = np.random.default_rng(0)
    (folder / "data").mkdir(parents=True)

    def batch() -> pa.RecordBatch:
        ids = rng.integers(0, vocabulary, size=length, dtype=np.int32)
        labels = ids.copy()
        labels[0] = -100
        row: dict[str, Any] = {
            "input_ids": ids,
            "labels": labels,
            "position_ids": np.arange(length, dtype=np.int32),
            "seq_lengths": [length],
            "blocks": [],
            "skipped": False,
            "reasons": [""],
            "source_ids": ["random"],
            "n_tokens": length,
        }
        return pa.RecordBatch.from_pylist([row], schema=SKIPALIGN)

    path = "data/train-00000-of-00001.parquet"
    with (folder / path).open("wb") as sink:
        written = write_shard((batch() for _ in range(rows)), SKIPALIGN, sink)
    names = ("bytes", "rows", "tokens", "sha256", "content_sha256")
    file = DataFile(path=path, split="train", **{name: getattr(written, name) for name in names})
    manifest = Manifest(
        kind="skipalign",
        name="random tokens",
        spec={},
        fingerprint="0" * 64,
        versions={},
        tokenizer={"name": "none", "sha256": "0" * 64, "vocab_size": vocabulary},
        inputs=[],
        files=(file,),
        documents=(),
        counts={},
        skipped_inputs={},
    )
    (folder / NAME).write_bytes(manifest.to_bytes())
    return folder


def ours(model: Path, data: Path, *, row_tokens: int, rows: int, run: Path) -> list[float]:
    """Seconds of each of our steps."""
    seconds: list[float] = []
    config = parse_config(
        {
            "model": {"path": str(model)},
            "data": {"source": str(data)},
            "batch": {"row_tokens": row_tokens, "tokens_per_step": row_tokens * rows},
            "optimizer": {"lr": 1e-5, "warmup": 1},
            "steps": STEPS + 1,
            "checkpoint": {"dir": str(run), "every": STEPS + 1},
        }
    )

    def record(metrics: dict[str, Any]) -> None:
        seconds.append(metrics["tokens"] / metrics["tokens_per_second"])
        if metrics["step"] == STEPS:
            raise EnoughError

    try:
        train(config, say=lambda _: None, record=record)
    except EnoughError:
        return seconds
    message = f"the run ended after {len(seconds)} steps"
    raise TrainingError(message)


class Clock(TrainerCallback):
    """Seconds of each of the Trainer's steps, the GPU's work included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = 0.0

    def on_step_begin(self, *arguments: Any, **options: Any) -> None:
        self.began = now()

    def on_step_end(self, *arguments: Any, **options: Any) -> None:
        self.seconds.append(now() - self.began)


def now() -> float:
    """The time once the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def trainers(model: Path, *, row_tokens: int, rows: int, run: Path, vocabulary: int) -> list[float]:
    """Seconds of each step of the Hugging Face Trainer on the same sizes."""
    cuda = torch.cuda.is_available()
    flash = cuda and importlib.util.find_spec("flash_attn") is not None
    network = AutoModelForCausalLM.from_pretrained(
        model, local_files_only=True, dtype=torch.float32, attn_implementation="flash_attention_2" if flash else "sdpa"
    )
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, vocabulary, size=(rows * STEPS, row_tokens)))
    clock = Clock()
    arguments = TrainingArguments(
        output_dir=str(run),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=rows,
        max_steps=STEPS,
        bf16=cuda,
        use_cpu=not cuda,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    Trainer(
        network, arguments, train_dataset=[{"input_ids": row, "labels": row} for row in ids], callbacks=[clock]
    ).train()
    return clock.seconds


def measured(run: Callable[[], list[float]], tokens: int) -> Measured | str:
    """A run's figures, or why it has none."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        seconds = run()
    except (torch.OutOfMemoryError, TrainingError) as error:
        if isinstance(error, TrainingError) and not isinstance(error.__cause__, torch.OutOfMemoryError):
            raise
        return "does not fit"
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return Measured(rate=tokens / statistics.median(seconds[WARM:]), memory=memory)


def line(shape: Shape, length: int, who: str, found: Measured | str, beside: Measured | str | None) -> str:
    """A line of the table; `beside` is ours, on a peer's line."""
    start = f"| {shape.name} | {length:,} | {who} "
    if isinstance(found, str):
        return f"{start}| {found} | | | |"
    peak = peak_flops(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    mfu = f"{found.rate * shape.flops_per_token(length) / peak:.1%}" if peak else "none"
    memory = f"{found.memory / 2**30:.1f} GiB" if found.memory is not None else "none"
    ratio = f"{beside.rate / found.rate:.2f} times" if isinstance(beside, Measured) else ""
    return f"{start}| {found.rate:,.0f} | {mfu} | {memory} | {ratio} |"


def main(words: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="the worker beside the Hugging Face Trainer on one GPU")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes, on a CPU too: not for figures")
    parser.add_argument("--minutes", type=float, default=9.0, help="no run is begun after so many minutes (default 9)")
    options = parser.parse_args(words)
    if not (options.rehearse or torch.cuda.is_available()):
        parser.exit(1, "no CUDA device is at hand: --rehearse runs the script without one\n")
    began = time.perf_counter()
    shapes, lengths, step = (REHEARSED, (32, 64), 64) if options.rehearse else (SHAPES, (4096, 32_768, 131_072), 32_768)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, torch {torch.__version__}; medians of {STEPS - WARM} steps after {WARM}")
    print("MFU: 6·(N_blocks + V·d) + 6·L·d·Σlen²/Σlen FLOPs a token over the card's dense bfloat16 peak\n")
    print("| shape | tokens of a row | who | tokens/s | MFU | peak memory | ours is |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="longweave-gpu-") as name:
        for shape in shapes:
            folder = Path(name) / shape.name
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(shape.config(max(lengths)), dtype=torch.float32).save_pretrained(folder)
            for length in lengths:
                _race(shape, folder, length, rows=max(1, step // length), late=lambda: _late(began, options.minutes))


def _late(began: float, minutes: float) -> bool:
    return time.perf_counter() - began > 60 * minutes


def _race(shape: Shape, model: Path, length: int, *, rows: int, late: Callable[[], bool]) -> None:
    """Ours and the Trainer's lines for one shape and length."""
    data = write_rows(model / f"data-{length}", rows=rows * (STEPS + 1), length=length, vocabulary=shape.vocabulary)
    runs: dict[str, Callable[[], list[float]]] = {
        "ours": lambda: ours(model, data, row_tokens=length, rows=rows, run=model / f"ours-{length}"),
        "Trainer": lambda: trainers(
            model, row_tokens=length, rows=rows, run=model / f"trainer-{length}", vocabulary=shape.vocabulary
        ),
    }
    first: Measured | str | None = None
    for who, run in runs.items():
        found = "time was up" if late() else measured(run, length * rows)
        print(line(shape, length, who, found, first), flush=True)
        first = found


if __name__ == "__main__":
    main()
