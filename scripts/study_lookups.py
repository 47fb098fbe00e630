"""`make study`, second part: a tiny model, drawn at random, learns to look rows up in tables of the kind `synl`, on a CPU in minutes.

Builds conversations about tables of a key and a number, trains a Bloom of 0.2 M parameters on them with the bundled worker, and asks it
for rows of tables that it never saw, by greedy decoding. Guessing finds one row in as many as the table has. Everything goes through the
commands a user has; a study that was cut goes on with the same command.

Two rows first: among eight the right one is told from the others too seldom for a model that attends everywhere alike to begin with.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from study import LEAST_RECALL, Line, Spec, Study, arguments_of, run, table, texts_of, train_tokenizer
from transformers import AutoModelForCausalLM, BloomConfig, BloomForCausalLM, PreTrainedTokenizerFast

SPLIT = r"\p{N}{1,3}|[^\p{N}\n]*\n+|[^\p{N}\n]+"
"""Numbers by threes, and what stands between them by lines: sentences and titles become single tokens. None goes past the end of a
line, where the template ends and the answer begins."""
TOKENS_PER_STEP = 4096
LONGEST = 4096
"""More than any of these conversations has by the builtin tokenizer: their lengths follow from their rows."""
SIZES = (2, 4, 8)
ASKED = 200
"""Tables that are asked about, of each of these numbers of rows. None that is trained on has eight."""
ANSWER_TOKENS = 16
ROLES = "user\nassistant\n"
"""What the template writes beside contents and special tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One training run: so many conversations on tables of `rows` rows with a question a row, and so many steps; again while fewer than
    `enough` of the rows are found. No two runs show the same tables: `seed` tells stages apart."""

    name: str
    rows: int
    conversations: int
    steps: int
    lr: float
    enough: float
    seed: int = 0


STAGES = (
    Stage(name="two", rows=2, conversations=4_000, steps=300, lr=5.0e-3, enough=0.7),
    Stage(name="four", rows=4, conversations=16_000, steps=500, lr=5.0e-3, enough=0.85, seed=1),
    Stage(name="more", rows=4, conversations=20_000, steps=600, lr=2.0e-3, enough=LEAST_RECALL, seed=2),
)
RUNS = 3
"""How often a stage is run at most."""


def tables(rows: tuple[int, int], turns: int, conversations: int) -> Spec:
    """Flights by key, each with one number, as CSV; questions ask for whole rows, answered without steps."""
    fewest, most = rows
    return {
        "kind": "synl",
        "samples": conversations,
        "length": [LONGEST],
        "tasks": {"row": 1},
        "formats": {"csv": 1},
        "locales": {"en_US": 1},
        "schemas": {"flights": 1},
        "turns": {"min": turns, "max": turns},
        "reasoning": 0,
        "unanswerable": 0,
        "distractors": 0,
        "question_first": 0,
        "key_first": 1,
        "small_tables": {
            "columns": {"min": 2, "max": 2},
            "sorts": ["number"],
            "least_rows": fewest,
            "most_rows": most,
        },
        "split": {"train": 1},
    }


def draw_model(tokenizer: Path, seed: int, out: Path) -> None:
    """A Bloom of two layers, 64 wide, with weights of standard deviation 1/8 and its tokenizer beside it.

    ALiBi lets every head look at what is near from the first step; a Llama of this size first has to learn to look one token back.
    """
    loaded = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    torch.manual_seed(seed)
    config = BloomConfig(
        vocab_size=len(loaded),
        hidden_size=64,
        n_layer=2,
        n_head=4,
        initializer_range=0.125,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    BloomForCausalLM(config).save_pretrained(out)
    loaded.save_pretrained(out)


def train(study: Study, stage: Stage, start: Path, number: int) -> Path:
    """Train on a stage's tables from a model's directory; returns the last checkpoint, a model's directory too."""
    spec = tables((stage.rows, stage.rows), stage.rows, stage.conversations) | {"tokenizer": str(study.tokenizer)}
    name = f"{stage.name}-{number}"
    data = study.build(name, spec | {"seed": (study.seed * len(STAGES) + stage.seed) * RUNS + number})
    config: dict[str, Any] = {
        "model": {"path": str(start)},
        "data": {"source": str(data), "shuffle_seed": study.seed * RUNS + number},
        "batch": {"tokens_per_step": TOKENS_PER_STEP, "row_tokens": TOKENS_PER_STEP},
        "optimizer": {"lr": stage.lr, "warmup": 30, "schedule": "wsd", "weight_decay": 0.1},
        "steps": stage.steps,
        "checkpoint": {"dir": str(study.out / "runs" / name), "every": 100, "keep": 1},
    }
    run("training", str(study.write("configs", name, config)))
    return study.out / "runs" / name / f"step-{stage.steps:08d}"


def conversations_of(dataset: Path) -> Iterator[tuple[list[dict[str, str]], list[str]]]:
    """Messages and answers of every row."""
    for path in sorted((dataset / "data").glob("*.parquet")):
        found = pq.read_table(path, columns=["messages", "answers"])
        yield from zip(found.column("messages").to_pylist(), found.column("answers").to_pylist(), strict=True)


@torch.no_grad()
def recall(model: Path, dataset: Path) -> float:
    """The share of tables whose first question is answered to the letter, by greedy decoding."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model, padding_side="left", pad_token="<|endoftext|>")  # noqa: S106
    right, asked = 0, list(conversations_of(dataset))
    for at in range(0, len(asked), 50):
        batch = asked[at : at + 50]
        prompts = [
            tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=False)
            for messages, _ in batch
        ]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        written = loaded.generate(
            **inputs,
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
        )
        said = tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        right += sum(text == answers[0] for text, (_, answers) in zip(said, batch, strict=True))
    return right / len(asked)


def recalls(model: Path, asked: Mapping[int, Path]) -> dict[int, float]:
    """Recall by rows of the table."""
    return {size: recall(model, dataset) for size, dataset in asked.items()}


def main() -> None:
    """Build, train, ask, and print the table; exit 1 where rows are not found."""
    arguments = arguments_of(__doc__, ": tables of two rows")
    torch.set_num_threads(1)
    stages = STAGES[:1] if arguments.short else STAGES
    study = Study(arguments.out / ("short-lookups" if arguments.short else "lookups"), arguments.seed)
    if not (study.tokenizer / "tokenizer.json").exists():
        words = study.build("words", tables((2, 8), 2, 2_000))
        train_tokenizer(chain(texts_of(words), [ROLES] * ASKED), study.tokenizer, split=SPLIT)
    model = study.out / "model"
    if not (model / "config.json").exists():
        draw_model(study.tokenizer, study.seed, model)
    asked = {
        size: study.build(f"asked-{size}", tables((size, size), 1, ASKED) | {"seed": 10**6 + study.seed})
        for size in ((2,) if arguments.short else SIZES)
    }
    lines: list[Line] = [("before", recalls(model, asked))]
    for stage in stages:
        for number in range(1, RUNS + 1):
            model = train(study, stage, model, number)
            found = recalls(model, asked)
            lines.append((f"{stage.name}-{number}: {stage.steps} steps on tables of {stage.rows} rows", found))
            print(f"\n{table(lines, found='rows found', of='rows')}", flush=True)
            if found[stage.rows] >= stage.enough:
                break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\n{used.ru_utime + used.ru_stime:.0f} s of processor time; the model is {model}", flush=True)
    (study.out / "recall.json").write_text(json.dumps(lines), encoding="utf-8")
    last, found = stages[-1], lines[-1][1][stages[-1].rows]
    if found < last.enough:
        sys.exit(f"recall in tables of {last.rows} rows is {found:.3f}, below {last.enough}: rows are not found")


if __name__ == "__main__":
    main()
