"""What the recipes share: texts, datasets, probes and training runs below one folder, each made once, and what came of them
at the end: losses, recall and loss on short texts before and after, heat maps side by side.

A recipe that was cut is started again with the same command: datasets that are whole are kept, and a training run goes on
from its newest checkpoint. Datasets can be made on one machine (--datasets-only) and trained on where the service is not
installed: the folder goes along.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from outcome import write_outcome

from training.report.figures import evaluations

ROOT = Path(__file__).parents[2]
HELD = 10
"""Of our own texts every so many-th module's are never trained on: the loss on short texts is taken on them."""
Spec = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Tokens and steps: `short` and `long` are tokens of a row, `steps` and `tokens_per_step` of every stage. `probes`: the
    fields of the needle dataset that is asked before and after; `text_tokens`: of the texts whose loss is taken."""

    short: int
    long: int
    steps: int
    tokens_per_step: int
    lr: float
    probes: Spec
    text_tokens: int


REAL = Sizes(
    short=4096,
    long=16384,
    steps=200,
    tokens_per_step=65536,
    lr=2.0e-5,
    probes={
        "tasks": ["passkey", "niah_single"],
        "lengths": [512, 1024, 2048, 4096, 8192, 16384, 32768],
        "depths": 5,
        "repeats": 2,
        "answer_budget": 24,
    },
    text_tokens=65536,
)
"""For a model of about 0.1 B parameters on one GPU."""

TINY = Sizes(
    short=256,
    long=2048,
    steps=2,
    tokens_per_step=512,
    lr=1.0e-3,
    probes={"tasks": ["passkey"], "lengths": [256, 2560], "depths": 2, "repeats": 1},
    text_tokens=1024,
)
"""To see that everything runs, on a CPU: a few steps of the preset `tiny` teach nothing."""


@dataclass(slots=True)
class Recipe:
    """One recipe's folder, its model (None: the preset `tiny`), its sizes, its texts (`held` are those that are not trained
    on), and its runs so far. With `train_too` false datasets are made and nothing is trained."""

    out: Path
    model: Path | None
    sizes: Sizes
    documents: Path
    conversations: Path
    held: Path
    train_too: bool = True
    runs: list[Spec] = field(default_factory=list)

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
        probes = self.build("probes", {"kind": "needle", **sizes.probes})
        checkpoint = run / f"step-{sizes.steps:08d}"
        if not self.train_too:
            return checkpoint
        config = {
            "model": model,
            "data": {"source": str(dataset)},
            "batch": {"row_tokens": row_tokens, "tokens_per_step": max(sizes.tokens_per_step, row_tokens)},
            "optimizer": {"lr": sizes.lr, "warmup": sizes.steps // 10},
            "steps": sizes.steps,
            "checkpoint": {"dir": str(run), "every": max(1, sizes.steps // 4), "keep": 1},
            "evaluate": {
                "needles": str(probes),
                "texts": str(self.held),
                "most_tokens": sizes.text_tokens,
                "before": not self.runs,  # later runs start from what was measured already
            },
        }
        path = self.out / "configs" / f"{name}.yaml"
        _write(path, config)
        _run("training", str(path))
        steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        self.runs.append(
            {
                "run": name,
                "steps": steps[-1]["step"],
                "tokens": sum(step["tokens"] for step in steps),
                "loss": [steps[0]["loss"], steps[-1]["loss"]],
                "checkpoint": str(checkpoint),
                "evaluations": evaluations(run / "evaluations"),
            }
        )
        return checkpoint

    def report(self) -> None:
        """Print what came of all runs, and write it into the recipe's folder: runs.md, runs.json, needles.png."""
        if self.runs:
            print(f"\n{write_outcome(self.out, self.runs)}", flush=True)


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
    parser.add_argument("--texts", type=Path, help="folder of texts, none of them trained on, to take the loss on")
    parser.add_argument("--steps", type=int, help="steps of every run")
    parser.add_argument("--datasets-only", action="store_true", help="make the datasets and the probes, and stop")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sizes = TINY if arguments.tiny else REAL
    return Recipe(
        out=arguments.out,
        model=arguments.model,
        sizes=replace(sizes, steps=arguments.steps or sizes.steps),
        documents=arguments.documents or _own_texts(arguments.out, "documents"),
        conversations=arguments.conversations or _own_texts(arguments.out, "conversations"),
        held=arguments.texts or _own_texts(arguments.out, "held").parent,
        train_too=not arguments.datasets_only,
    )


def _own_texts(out: Path, what: str) -> Path:
    """Documents, conversations, or documents held back from both, out of the docstrings of Python's standard library: real,
    but few."""
    path = out / "held" / "documents.jsonl" if what == "held" else out / f"{what}.jsonl"
    if not path.exists():
        sys.path.append(str(ROOT / "scripts"))
        import demo_texts

        documents = list(demo_texts.documents())
        modules = {document["id"] for document in documents[::HELD]}
        found = list(demo_texts.conversations()) if what == "conversations" else documents
        path.parent.mkdir(exist_ok=True)
        kept = (one for one in found if (one["id"].partition("/")[0] in modules) == (what == "held"))
        demo_texts.write(path, kept)
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
