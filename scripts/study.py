"""`make study`, first part: a tiny model, drawn at random, learns to find pass keys in our probes, on a CPU in minutes.

Builds probes of the kind `needle`, trains a Llama of 0.2 M parameters on them with the bundled worker, and asks it for the pass
keys of the other split before and after. Everything goes through the commands a user has, and every spec and config stays below
`--out`. A study that was cut goes on with the same command.

What is trained in which order matters more than how much of it. Short probes first: among 512 tokens a key is two tokens in five
hundred, and a model that attends everywhere alike learns too little from them to begin with.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml
from byte_level_bpe import trained
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from packing.tokenizers import BUILTIN

VOCABULARY = 2048
"""More than the texts have words and numbers: every one of them becomes a token."""
NUMBERS = 500
"""How often the tokenizer's training text has every number of two and three digits: more often than its commonest words."""
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# The builtin tokenizer's split. Digits by threes make a pass key two tokens that can be told apart by their size alone.
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

LEAST_RECALL = 0.95

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One training run: probes of these lengths in tokens, `repeats` of them at each of five depths, and so many steps."""

    name: str
    lengths: tuple[int, ...]
    repeats: int
    steps: int
    lr: float


SHORT = Stage(name="short", lengths=(112,), repeats=1600, steps=280, lr=5.0e-3)
WHOLE = Stage(name="whole", lengths=(128, 256, 512), repeats=500, steps=200, lr=3.0e-3)
TOKENS_PER_STEP = 4096
RUNS = 3
"""How often a stage is run at most."""

Line = tuple[str, dict[int, float]]
"""What was measured when, and recall by length."""


@dataclass(slots=True)
class Study:
    """One study's folder and the seed that its model, its probes and their order are drawn from."""

    out: Path
    seed: int

    @property
    def tokenizer(self) -> Path:
        """The directory of the study's own tokenizer."""
        return self.out / "tokenizer"

    def build(self, name: str, spec: Spec) -> Path:
        """The dataset of a spec, built unless it is there."""
        folder = self.out / "data" / name
        path = self.write("specs", name, {"name": name, "seed": self.seed, **spec})
        if not (folder / "manifest.json").exists():
            run("service.cli", "build", str(path), "--out", str(folder), "--workers", "0")
        return folder

    def train(self, stage: Stage, name: str, start: Path, probes: Path, *, before: bool) -> Path:
        """Train on a stage's probes from a model's directory; returns the last checkpoint, a model's directory too.

        The rows come by way of a mixture, which shuffles them: a needle dataset stands in the order of lengths and depths.
        """
        part = {"name": "passkey", "weight": 1, "spec": passkey(stage.lengths, stage.repeats, "train")}
        mixed = {"kind": "mixture", "parts": [part], "total": None, "max_length": TOKENS_PER_STEP}
        data = self.build(stage.name, mixed | {"tokenizer": str(self.tokenizer)})
        config = {
            "model": {"path": str(start)},
            "data": {"source": str(data), "shuffle_seed": self.seed},
            "batch": {"tokens_per_step": TOKENS_PER_STEP, "row_tokens": TOKENS_PER_STEP},
            "optimizer": {"lr": stage.lr, "warmup": 30, "schedule": "wsd", "weight_decay": 0.1},
            "steps": stage.steps,
            "checkpoint": {"dir": str(self.out / "runs" / name), "every": 100, "keep": 1},
            "evaluate": {"needles": str(probes), "before": before, "batch_tokens": 16384},
        }
        run("training", str(self.write("configs", name, config)))
        return self.out / "runs" / name / f"step-{stage.steps:08d}"

    def learn(self, stage: Stage, start: Path, probes: Path) -> tuple[Path, list[Line]]:
        """Train on a stage's probes, again from where that ended while keys of its longest are not found; returns the last
        checkpoint and recall after each run.

        When a model begins to look is chance: after 86 steps or after 240.
        """
        model, lines = start, list[Line]()
        for number in range(1, RUNS + 1):
            name = f"{stage.name}-{number}"
            model = self.train(stage, name, model, probes, before=name == "short-1")
            found = self.recall(name, stage.steps)
            lines.append(
                (f"{name}: {stage.steps} steps on probes of {', '.join(map(str, stage.lengths))} tokens", found)
            )
            if found[stage.lengths[-1]] >= LEAST_RECALL:
                break
        return model, lines

    def recall(self, name: str, step: int) -> dict[int, float]:
        """Recall by length in tokens, as the worker measured it at a step of a run."""
        report = self.out / "runs" / name / "evaluations" / f"step-{step:08d}" / "needles.json"
        return {cell["length"]: cell["recall"] for cell in json.loads(report.read_text(encoding="utf-8"))["lengths"]}

    def write(self, kind: str, name: str, value: Spec) -> Path:
        """Keep a spec or a config as YAML."""
        path = self.out / kind / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
        return path


def passkey(lengths: Sequence[int], repeats: int, split: str) -> Spec:
    """Pass keys among the sentences that InfiniteBench repeats, at five depths of every length."""
    return {
        "kind": "needle",
        "tasks": ["passkey"],
        "haystack": "noise",
        "lengths": list(lengths),
        "depths": 5,
        "repeats": repeats,
        "split": split,
    }


def run(module: str, *words: str) -> None:
    """Run one of our commands; what it says goes to the terminal, and its failure is the study's."""
    print(f"\n$ python -m {' '.join([module, *words])}", flush=True)
    done = subprocess.run([sys.executable, "-m", module, *words], check=False)  # noqa: S603
    if done.returncode:
        sys.exit(done.returncode)


def texts_of(dataset: Path) -> Iterator[str]:
    """Every message of a dataset."""
    for path in sorted((dataset / "data").glob("*.parquet")):
        for messages in pq.read_table(path, columns=["messages"]).column("messages").to_pylist():
            yield from (message["content"] for message in messages)


def train_tokenizer(texts: Iterator[str], out: Path, split: str = SPLIT) -> None:
    """A byte-level BPE in which the texts' words and all numbers of two and three digits are tokens, with the builtin chat template."""
    numbers = " ".join(f"{number:0{digits}}" for digits in (2, 3) for number in range(10**digits))
    tokenizer = trained(
        [*texts, *[numbers] * NUMBERS], split=split, vocabulary=VOCABULARY, special_tokens=SPECIAL_TOKENS
    )
    out.mkdir(parents=True, exist_ok=True)
    config = json.loads((BUILTIN / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["additional_special_tokens"] = list(SPECIAL_TOKENS[1:])
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(out / "tokenizer.json"))


def draw_model(tokenizer: Path, seed: int, out: Path) -> None:
    """A Llama of two layers, 64 wide, with weights of standard deviation 1/8 and its tokenizer beside it.

    At transformers' own 0.02 the tied embedding is so short that no token can be told with confidence for hundreds of steps.
    """
    vocabulary = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab_size(with_added_tokens=True)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        initializer_range=0.125,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, out / name)


def table(lines: Sequence[Line], *, found: str = "pass keys found", of: str = "tokens") -> str:
    """Recall by length (or what else a size is `of`), a line for every moment it was measured at."""
    sizes = sorted({size for _, recall in lines for size in recall})
    head = f"| {found} | {' | '.join(f'{size} {of}' for size in sizes)} |\n|{'---|' * (len(sizes) + 1)}"
    return "\n".join(
        [head, *(f"| {name} | {' | '.join(f'{recall[n]:.3f}' for n in sizes)} |" for name, recall in lines)]
    )


def arguments_of(about: str | None, short: str) -> argparse.Namespace:
    """The command line of one part of the study."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("study"), help="folder for all that is made")
    parser.add_argument("--seed", type=int, default=0, help="what model, data and their order are drawn from")
    parser.add_argument("--short", action="store_true", help=f"the first stage alone{short}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # so small a model is no faster with more, and sums keep their order
    return parser.parse_args()


def main() -> None:
    """Build, train, ask, and print the table; exit 1 where the keys are not found."""
    arguments = arguments_of(__doc__, "")
    stages = (SHORT,) if arguments.short else (SHORT, WHOLE)
    study = Study(arguments.out / stages[-1].name, arguments.seed)
    if not (study.tokenizer / "tokenizer.json").exists():
        words = study.build("words", passkey([512], 20, "train"))
        train_tokenizer(texts_of(words), study.tokenizer)
    model = study.out / "model"
    if not (model / "config.json").exists():
        draw_model(study.tokenizer, study.seed, model)
    lengths = sorted({length for stage in stages for length in stage.lengths})
    probes = study.build("probes", passkey(lengths, 20, "test") | {"tokenizer": str(study.tokenizer)})
    lines = list[Line]()
    for stage in stages:
        model, measured = study.learn(stage, model, probes)
        lines += measured
    lines.insert(0, ("before", study.recall("short-1", 0)))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime
    print(f"\n{table(lines)}\n\n{seconds:.0f} s of processor time; the model is {model}", flush=True)
    found = lines[-1][1][lengths[-1]]
    if found < LEAST_RECALL:
        sys.exit(f"recall at {lengths[-1]} tokens is {found:.3f}, below {LEAST_RECALL}: the keys are not found")


if __name__ == "__main__":
    main()
