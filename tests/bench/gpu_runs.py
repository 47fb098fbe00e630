"""One run of the GPU benchmark in a process of its own: `python -m tests.bench.gpu_runs TASK`, TASK a Task as JSON.

A run that runs out of memory takes no other along, and the peak it had is its own. The last line of stdout is what was
found, as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    DataCollatorWithFlattening,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from tests.bench.gpu_tasks import SHAPES, WINDOW, Task, sample_lengths, write_rows
from training.config import parse_config
from training.errors import TrainingError
from training.flops import device_name
from training.loop import train

NO_ROOM = "does not fit"


class EnoughError(Exception):
    """Ends one of our runs once its last step is recorded: a benchmark wants no checkpoint."""


def drawn(task: Task) -> Path:
    """The directory of a shape's model with random weights, drawn by the first run that wants it."""
    folder = Path(task.folder) / task.shape
    if not folder.exists():
        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = AutoModelForCausalLM.from_config(SHAPES[task.shape].config(WINDOW), dtype=torch.float32)
        model.save_pretrained(folder.with_suffix(".part"))
        folder.with_suffix(".part").rename(folder)
    return folder


class Seconds:
    """Seconds of each step, and from the last uncounted one on the most memory allocated."""

    def __init__(self, task: Task) -> None:
        self.each: list[float] = []
        self._warm = task.warm

    def add(self, seconds: float) -> None:
        """Take in a step."""
        self.each.append(seconds)
        if len(self.each) == self._warm and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def found(self, task: Task, attention: str) -> dict[str, Any]:
        """The figures of the run."""
        counted = self.each[self._warm :]
        lengths = sample_lengths(task)[: task.rows * task.passes]
        return {
            "tokens_per_second": task.tokens / statistics.median(counted),
            "flops_per_second": SHAPES[task.shape].flops([n for row in lengths for n in row])
            / statistics.median(counted),
            "steps": len(counted),
            "memory": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
            "attention": attention,
            "device": device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        }


def ours(task: Task) -> dict[str, Any]:
    """A run of the worker, as a user's."""
    folder, seconds, lines = drawn(task), Seconds(task), list[str]()
    data = write_rows(folder / f"data-{task.row}", sample_lengths(task), SHAPES[task.shape].vocabulary)
    config = parse_config(
        {
            "model": {
                "path": str(folder),
                "checkpointing": task.checkpointing,
                "offload": task.offload,
                "mlp_chunk": task.mlp_chunk,
            },
            "data": {"source": str(data)},
            "batch": {"row_tokens": task.row * task.rows, "tokens_per_step": task.tokens},
            "optimizer": {"lr": 1e-5, "warmup": 1},
            "steps": task.steps + 1,
            "checkpoint": {"dir": str(folder / f"run-{task.row}"), "every": task.steps + 1},
        }
    )

    def record(metrics: dict[str, Any]) -> None:
        seconds.add(metrics["tokens"] / metrics["tokens_per_second"])
        if metrics["step"] == task.steps:
            raise EnoughError

    try:
        train(config, say=lines.append, record=record)
    except EnoughError:
        by = next(line.rpartition("; by ")[2] for line in lines if line.startswith("attention follows"))
        return seconds.found(task, by)
    message = f"the run ended after {len(seconds.each)} steps"
    raise TrainingError(message)


class Clock(TrainerCallback):
    """Takes the time of the Trainer's steps, the GPU's work included."""

    def __init__(self, seconds: Seconds) -> None:
        self.seconds, self.began = seconds, 0.0

    def on_step_begin(self, *arguments: Any, **options: Any) -> None:
        self.began = now()

    def on_step_end(self, *arguments: Any, **options: Any) -> None:
        self.seconds.add(now() - self.began)


def now() -> float:
    """The time once the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def trainers(task: Task) -> dict[str, Any]:
    """A run of the Hugging Face Trainer on samples of the same lengths, laid end to end by its padding-free collator; by
    flash attention where flash_attn is installed, else sdpa."""
    cuda, seconds = torch.cuda.is_available(), Seconds(task)
    flash = cuda and importlib.util.find_spec("flash_attn") is not None
    folder = drawn(task)
    network = AutoModelForCausalLM.from_pretrained(
        folder,
        local_files_only=True,
        dtype=torch.float32,
        attn_implementation="flash_attention_2" if flash else "sdpa",
    )
    network.config.use_cache = False  # with one, packed samples would see each other
    rows, rng = sample_lengths(task), np.random.default_rng(0)
    passes = [[n for row in rows[i : i + task.rows] for n in row] for i in range(0, len(rows), task.rows)]
    samples = [
        [{"input_ids": rng.integers(0, SHAPES[task.shape].vocabulary, size=n).tolist()} for n in of] for of in passes
    ]
    flatten = DataCollatorWithFlattening(return_flash_attn_kwargs=flash)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=task.passes,
        gradient_checkpointing=task.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if task.checkpointing else None,
        max_steps=task.steps,
        bf16=cuda,
        use_cpu=not cuda,
        remove_unused_columns=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    Trainer(
        network,
        arguments,
        train_dataset=[{"samples": of} for of in samples],
        data_collator=lambda features: flatten([one for feature in features for one in feature["samples"]]),
        callbacks=[Clock(seconds)],
    ).train()
    return seconds.found(task, f"{network.config._attn_implementation}, padding-free")


RUNS: dict[str, Callable[[Task], dict[str, Any]]] = {"ours": ours, "Trainer": trainers}


def measured(task: Task, runs: dict[str, Callable[[Task], dict[str, Any]]] = RUNS) -> dict[str, Any]:
    """A run's figures, or under `why_not` why it has none."""
    try:
        return runs[task.who](task)
    except (torch.OutOfMemoryError, TrainingError) as error:
        if isinstance(error, TrainingError) and not isinstance(error.__cause__, torch.OutOfMemoryError):
            raise
        return {"why_not": NO_ROOM}


if __name__ == "__main__":
    print(json.dumps(measured(Task(**json.loads(sys.argv[1])))))
