"""What the recipes share: texts, datasets and training runs below one folder, each made once, and a table at the end.

A recipe that was cut is started again with the same command: datasets that are whole are kept, and a training run goes on
from its newest checkpoint.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
Spec = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Tokens and steps: `short` and `long` are tokens of a row, `steps` and `tokens_per_step` of every stage."""

    short: int
    long: int
    steps: int
    tokens_per_step: int
    lr: float


REAL = Sizes(short=4096, long=16384, steps=200, tokens_per_step=65536, lr=2.0e-5)
"""For a model of about 0.1 B parameters on one GPU."""

TINY = Sizes(short=256, long=2048, steps=2, tokens_per_step=512, lr=1.0e-3)
"""To see that everything runs, on a CPU: a few steps of the preset `tiny` teach nothing."""


@dataclass(slots=True)
class Recipe:
    """One recipe's folder, its model (None: the preset `tiny`), its sizes, and a line of its table for each run."""

    out: Path
    model: Path | None
    sizes: Sizes
    documents: Path
    conversations: Path
    lines: list[str] = field(default_factory=list)

    @property
    def tokenizer(self) -> str:
        """The model's own tokenizer; the preset has the builtin one."""
        return str(self.model) if self.model else "builtin"

    def start(self) -> dict[str, Any]:
        """The config's `model` for a run that starts from the recipe's model."""
        return {"path": str(self.model)} if self.model else {"preset": "tiny"}

    def build(self, name: str, spec: Spec) -> Path:
        """The dataset of a spec with the model's tokenizer, built unless it is there."""
        folder = self.out / "data" / name
        if not (folder / "manifest.json").exists():
            path = self.out / "specs" / f"{name}.yaml"
            _write(path, {"name": name, "tokenizer": self.tokenizer, **spec})
            _run("service.cli", "build", str(path), "--out", str(folder), "--workers", "0")
        return folder

    def train(self, name: str, dataset: Path, *, model: dict[str, Any], row_tokens: int) -> Path:
        """Train on a dataset; returns the last checkpoint, a model's directory, and adds a line to the table."""
        sizes, run = self.sizes, self.out / "runs" / name
        config = {
            "model": model,
            "data": {"source": str(dataset)},
            "batch": {"row_tokens": row_tokens, "tokens_per_step": max(sizes.tokens_per_step, row_tokens)},
            "optimizer": {"lr": sizes.lr, "warmup": sizes.steps // 10},
            "steps": sizes.steps,
            "checkpoint": {"dir": str(run), "every": max(1, sizes.steps // 4), "keep": 1},
        }
        path = self.out / "configs" / f"{name}.yaml"
        _write(path, config)
        _run("training", str(path))
        steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        first, last = steps[0], steps[-1]
        tokens = sum(step["tokens"] for step in steps)
        checkpoint = run / f"step-{sizes.steps:08d}"
        self.lines.append(
            f"| {name} | {last['step']} | {tokens:,} | {first['loss']:.4f} | {last['loss']:.4f} | {checkpoint} |"
        )
        return checkpoint

    def report(self) -> None:
        """Print the table of all runs, and write it into the recipe's folder."""
        head = "| run | steps | tokens | loss, first step | last step | checkpoint |\n|---|---|---|---|---|---|"
        table = "\n".join([head, *self.lines])
        (self.out / "runs.md").write_text(table + "\n", encoding="utf-8")
        print(f"\n{table}", flush=True)


def recipe(description: str | None) -> Recipe:
    """A recipe from its command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", type=Path, help="directory of a model: scripts/convert_smollm2.py makes one")
    which.add_argument("--tiny", action="store_true", help="the preset `tiny` and a few steps, to see it run on a CPU")
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is made")
    parser.add_argument("--documents", type=Path, help="JSONL or Parquet with text, or a folder of text files")
    parser.add_argument("--conversations", type=Path, help="JSONL or Parquet with messages")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    return Recipe(
        out=arguments.out,
        model=arguments.model,
        sizes=TINY if arguments.tiny else REAL,
        documents=arguments.documents or _own_texts(arguments.out, "documents"),
        conversations=arguments.conversations or _own_texts(arguments.out, "conversations"),
    )


def _own_texts(out: Path, what: str) -> Path:
    """Documents or conversations out of the docstrings of Python's standard library: real, but few."""
    path = out / f"{what}.jsonl"
    if not path.exists():
        sys.path.append(str(ROOT / "scripts"))
        import demo_texts

        demo_texts.write(path, getattr(demo_texts, what)())
    return path


def _write(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")


def _run(module: str, *words: str) -> None:
    """Run one of our commands; what it says goes to the terminal, and its failure is this recipe's."""
    print(f"\n$ python -m {' '.join([module, *words])}", flush=True)
    done = subprocess.run([sys.executable, "-m", module, *words], check=False)  # noqa: S603
    if done.returncode:
        sys.exit(done.returncode)
