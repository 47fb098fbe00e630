"""`python -m tests.bench.gpu`: the worker beside the Hugging Face Trainer on one GPU, one table; then SkipAlign's comparison.

    python -m tests.bench.gpu                 # CUDA; nothing is begun after nine minutes
    python -m tests.bench.gpu --parts speed   # the table without the recipe and the stretch, which are parts too
    python -m tests.bench.gpu --rehearse      # tiny shapes, on whatever there is: the same lines of code

Llama shapes of 0.5 B and 1 B parameters with random weights are trained in full, every token but a sample's first a target, on
rows of 4,096 tokens packed of several samples and on rows of one sequence of 32,768, 131,072 and 524,288 tokens: ours by
`training.loop.train` as a user's run, the Trainer on samples of the same lengths, by flash attention where flash_attn is
installed, else sdpa. What is worth most comes first. Every run is a process of its own; one that does not fit says so, and so does
one that time did not allow.

The recipe is examples/recipes/skipalign.py: from the model in --model where there is one, else from the preset `tiny`, drawn
at random. Its datasets must lie in --recipe where the service is not installed: --datasets-only makes them. All needs torch,
pyarrow, transformers, numpy, pyyaml and, for the Trainer, accelerate; heat maps are PNG with matplotlib.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tests.bench.gpu_tasks import RECIPE_AFTER, Task, as_words, tasks
from training.flops import CONVENTION, peak_flops

ROOT = Path(__file__).parents[2]
LEAST_MFU, LEAST_RATIO = 0.45, 1.3
PARTS = ("speed", "recipe", "stretch")
LATE, FAILED = "time was up", "failed"
GRACE = 45.0
"""Seconds after which a run that was begun in time is ended."""

Found = dict[str, Any]
Start = Callable[[Task, float], Found]
"""Runs a task within so many seconds: what gpu_runs found, or `why_not`."""


def in_a_child(task: Task, seconds: float) -> Found:
    """A task in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.gpu_runs", as_words(task)]
    return last_line(command, seconds)


def last_line(command: Sequence[str], seconds: float) -> Found:
    """The JSON that a command's last line is; `why_not` where it ended badly or was ended after so many seconds."""
    out, why_not = ended(command, seconds)
    return {"why_not": why_not} if why_not else json.loads(out.splitlines()[-1])


def ended(command: Sequence[str], seconds: float) -> tuple[str, str]:
    """What a command said on stdout, and why it is not to be used: it ended badly, or was ended after so many seconds with
    all that it had started."""
    more = {"PYTHONPATH": str(ROOT), "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # of its own session: nobody else's processes are in it
            return "", LATE
    last = (err.strip().splitlines() or ["without a word"])[-1][:200]
    return out, f"{FAILED}: {last}" if process.returncode else ""


@dataclass(slots=True)
class Bench:
    """The table as it grows, and the time there is."""

    minutes: float
    start: Start = in_a_child
    began: float = field(default_factory=time.monotonic)
    results: list[tuple[Task, Found]] = field(default_factory=list[tuple[Task, Found]])

    @property
    def left(self) -> float:
        """Seconds in which something may still be begun; 0 where none are left."""
        return max(0.0, 60 * self.minutes - (time.monotonic() - self.began))

    def run(self, task: Task) -> None:
        """Run a task if there is time, and print its line."""
        found = self.start(task, self.left + GRACE) if self.left else {"why_not": LATE}
        self.results.append((task, found))
        print(self.line(task, found), flush=True)

    def of(self, who: str, shape: str, row: int) -> Found:
        """What was found for a run; empty where it has no figures."""
        same = (f for t, f in self.results if (t.who, t.shape, t.row) == (who, shape, row))
        found = next(same, {})
        return {} if "why_not" in found else found

    def ratio(self, shape: str, row: int) -> float | None:
        """Our tokens a second over the Trainer's, where both were measured."""
        ours, theirs = (self.of(who, shape, row).get("tokens_per_second") for who in ("ours", "Trainer"))
        return ours / theirs if ours and theirs else None

    def line(self, task: Task, found: Found) -> str:
        """A line of the table."""
        rows = f"{task.row:,}" + (f", packed of about {task.row / task.sample:.0f} samples" if task.sample else "")
        start = f"| {task.shape} | {rows} | {task.who} "
        if why := found.get("why_not"):
            return f"{start}| {why} | | | | |"
        share, memory = mfu(found), found["memory"]
        ratio = self.ratio(task.shape, task.row) if task.who == "Trainer" else None
        return (
            f"{start}| {found['tokens_per_second']:,.0f} | {'none' if share is None else f'{share:.1%}'} | "
            f"{'none' if memory is None else f'{memory / 2**30:.1f} GiB'} | {'' if ratio is None else f'{ratio:.2f} times'} | "
            f"{found['attention']}{', layers again' if task.checkpointing else ''}"
            f"{', their inputs on the CPU' if task.offload else ''}"
            f"{f', MLPs by {task.mlp_chunk:,}' if task.mlp_chunk and task.who == 'ours' else ''} |"
        )

    def aims(self) -> list[str]:
        """What was aimed at, and what came of it."""
        packed = next((task.row for task, _ in self.results if task.sample), 0)
        shapes = sorted({task.shape for task, _ in self.results if task.sample})
        found = [
            aim(f"MFU at packed {packed:,} with {shape}", mfu(self.of("ours", shape, packed)), LEAST_MFU, ".1%")
            for shape in shapes
        ]
        found += [
            aim(f"times the Trainer at packed {packed:,} with {shape}", self.ratio(shape, packed), LEAST_RATIO, ".2f")
            for shape in shapes
        ]
        for task, result in self.results:
            if task.who == "ours" and task.mlp_chunk and task.shape != "0.5B":
                state = result.get("why_not") or f"done, {result['tokens_per_second']:,.0f} tokens/s"
                found.append(f"{task.shape} in full at {task.row:,} real tokens on one card: {state}")
        return found


def mfu(found: Found) -> float | None:
    """The share of the card's peak, where both are known."""
    peak = peak_flops(found["device"]) if found else None
    return found["flops_per_second"] / peak if peak else None


def aim(what: str, value: float | None, least: float, form: str) -> str:
    """A sentence on an aim."""
    if value is None:
        return f"{what}: not measured (aim: at least {least:{form}})"
    return f"{what}: {value:{form}}, aim of at least {least:{form}} {'reached' if value >= least else 'missed'}"


RECIPE_DATA = ("normal", "packed", "skipalign", "probes")


def recipe(folder: Path, model: Path, out: Path, *, steps: int, seconds: float) -> str:
    """Run SkipAlign's comparison within so many seconds and copy what it leaves into `out`; what is to be said of it."""
    there = all((folder / "data" / name / "manifest.json").exists() for name in RECIPE_DATA)
    if not there and importlib.util.find_spec("pydantic") is None:
        return (
            f"recipe: {folder} lacks its datasets, and the service that makes them is not installed here: make them elsewhere "
            "by examples/recipes/skipalign.py --datasets-only"
        )
    if not seconds:
        return f"recipe: {LATE}"
    start = ["--model", str(model)] if (model / "config.json").exists() else ["--tiny"]
    whose = (
        f"the model in {model}" if start[0] == "--model" else f"the preset tiny, drawn at random ({model} is not there)"
    )
    script = ROOT / "examples" / "recipes" / "skipalign.py"
    command = [sys.executable, str(script), *start, "--out", str(folder), "--steps", str(steps)]
    _, why_not = ended(command, seconds + GRACE)
    if why_not:
        return f"recipe, from {whose}: {why_not}" + ("; the same command goes on with it" if why_not == LATE else "")
    for name in ("needles.png", "needles.vl.json", "runs.json", "runs.md"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, out / f"recipe-{name}")
    table = (folder / "runs.md").read_text(encoding="utf-8").rpartition("\n\n")[0]
    return f"recipe: SkipAlign's comparison, {steps} steps a run, from {whose}\n\n{table}\n\nheat maps: {out}/recipe-needles.png"


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="the worker beside the Hugging Face Trainer on one GPU")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes, on a CPU too: not for figures")
    parser.add_argument("--minutes", type=float, default=9.0, help="nothing is begun after so many minutes (default 9)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder for the table and the heat maps")
    parser.add_argument("--model", type=Path, default=Path("runs/smollm2"), help="the recipe's model")
    parser.add_argument(
        "--recipe", type=Path, default=Path("runs/skipalign"), help="the recipe's folder, with its datasets"
    )
    parser.add_argument("--recipe-steps", type=int, default=30, help="steps of each of its three runs (default 30)")
    options = parser.parse_args(words)
    if not (options.rehearse or torch.cuda.is_available()):
        parser.exit(1, "no CUDA device is at hand: --rehearse runs the script without one\n")
    return options


def main(words: Sequence[str] | None = None, *, start: Start = in_a_child) -> int:
    """Print the table, write it to gpu.md and gpu.json; 1 where a run failed for another reason than room or time."""
    options = arguments(words)
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.minutes, start)
    head = [
        f"torch {torch.__version__}; medians of the steps after the first one or two (524,288: the one step); random weights, "
        "all of them trained",
        f"MFU: {CONVENTION}",
        "",
        "| shape | tokens of a row | who | tokens/s | MFU | peak memory | ours is | attention |\n|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(head), flush=True)
    said: list[str] = []

    def do_recipe() -> None:
        if "recipe" in options.parts:
            steps = min(2, options.recipe_steps) if options.rehearse else options.recipe_steps
            said.append(recipe(options.recipe, options.model, options.out, steps=steps, seconds=bench.left))

    with tempfile.TemporaryDirectory(prefix="longweave-gpu-") as folder:
        *speed, stretch = tasks(folder, rehearse=options.rehearse)
        speed = speed if "speed" in options.parts else []
        for task in speed[:RECIPE_AFTER]:
            bench.run(task)
        do_recipe()
        for task in [*speed[RECIPE_AFTER:], *([stretch] if "stretch" in options.parts else [])]:
            bench.run(task)
    devices = sorted({found["device"] for _, found in bench.results if "device" in found})
    after = [f"device: {', '.join(devices) or 'none was asked'}", *(bench.aims() if bench.results else []), *said]
    print("\n" + "\n".join(after), flush=True)
    lines = [bench.line(task, found) for task, found in bench.results]
    (options.out / "gpu.md").write_text("\n".join([*head, *lines, "", *after]) + "\n", encoding="utf-8")
    kept = [json.loads(as_words(replace(task, folder=""))) | found for task, found in bench.results]
    (options.out / "gpu.json").write_text(json.dumps({"runs": kept, "said": after}, indent=1) + "\n", encoding="utf-8")
    return int(any(FAILED in line for line in [*lines, *said]))


if __name__ == "__main__":
    sys.exit(main())
