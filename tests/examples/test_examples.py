"""The examples run as they are written, and positions and boundaries arrive at the model as they lie in the dataset."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaModel

from tests.conftest import conversation, write_lines
from tests.training.conftest import token_rows, write_dataset
from training.presets import tiny

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "packing" / "builtin_tokenizer"
VOCABULARY = 32_768
Run = Callable[..., list[dict[str, Any]]]

pytestmark = pytest.mark.filterwarnings(
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning"
)  # TRL's own default


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two shards of rows, packed and not, whose positions jump."""
    rows = [token_rows(9), token_rows(7, seed=1, sequences=1)]
    return write_dataset(tmp_path / "dataset", rows, vocabulary=VOCABULARY)


@pytest.fixture
def run(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs an example on the dataset in this process, and returns what the model was called with in training."""
    seen: list[dict[str, Any]] = []
    forward = LlamaModel.forward

    def watched(self: LlamaModel, *args: Any, **options: Any) -> Any:
        if torch.is_grad_enabled():
            seen.append(options)
        return forward(self, *args, **options)

    def start(name: str, *options: str) -> list[dict[str, Any]]:
        monkeypatch.setattr(LlamaModel, "forward", watched)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        arguments = [name, str(dataset), *options, "--steps", "3", "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", arguments)
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        monkeypatch.setattr(LlamaModel, "forward", forward)
        return seen

    return start


def written(dataset: Path) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ids and positions of every sequence of the dataset."""
    table = pq.read_table(dataset / "data")
    found: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for row in table.to_pylist():
        start = 0
        for length in row["seq_lengths"]:
            ids, positions = (row[name][start : start + length] for name in ("input_ids", "position_ids"))
            found.add((tuple(ids), tuple(positions)))
            start += length
    return found


def arrived(calls: list[dict[str, Any]]) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The same of what the model was called with, by the boundaries it was called with."""
    found: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for call in calls:
        lengths = call["cu_seq_lens_q"].diff().tolist()
        parts = zip(
            call["input_ids"].flatten().split(lengths), call["position_ids"].flatten().split(lengths), strict=True
        )
        found |= {(tuple(ids.tolist()), tuple(positions.tolist())) for ids, positions in parts}
    return found


@pytest.mark.parametrize(
    "command",
    [
        ("hf_trainer.py",),
        ("trl_sft.py", "--tokenizer", str(TOKENIZER)),
        ("torch_loop.py", "--boundaries"),
    ],
    ids=lambda command: " ".join(Path(part).name for part in command),
)
def test_an_example_trains_on_the_rows_as_they_were_written(command: tuple[str, ...], dataset: Path, run: Run):
    calls = run(*command)
    assert len(calls) >= 6  # three steps of two micro-batches; gradient checkpointing calls again
    sequences = arrived(calls)
    assert len(sequences) > 10
    assert sequences <= written(dataset)
    assert all(call.get("attention_mask") is None for call in calls)


def test_the_loop_with_a_mask_trains_on_the_rows_as_they_were_written(dataset: Path, run: Run):
    calls = run("torch_loop.py")
    assert len(calls) == 6
    padding = (0,)
    for call in calls:
        rows, width = call["input_ids"].shape
        assert call["attention_mask"].shape == (rows, 1, width, width)
    sequences = {found for found in arrived(calls) if set(found[0]) != set(padding)}
    assert len(sequences) > 10
    assert sequences <= written(dataset)


def test_a_model_of_ones_own_is_taken_and_what_is_saved_loads_anywhere(tmp_path: Path, dataset: Path, run: Run):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny(VOCABULARY)).save_pretrained(tmp_path / "model")
    run("hf_trainer.py", "--model", str(tmp_path / "model"))
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert saved.config._attn_implementation == "sdpa"
    assert saved.config.max_position_embeddings == 131_072
    assert saved.config.rope_parameters["rope_theta"] > 400_000
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    assert any(not torch.equal(weight, before[name]) for name, weight in saved.state_dict().items())


AXOLOTL = ROOT / ".venv-axolotl"


@pytest.mark.skipif(not (AXOLOTL / ".installed").exists(), reason="axolotl is not installed: make axolotl")
def test_axolotls_own_packing_keeps_what_our_rows_say(tmp_path: Path, build: Callable[..., Path]) -> None:
    source = write_lines(tmp_path / "talks.jsonl", [conversation(i, turns=4) for i in range(40)])
    folder = build(source, strategy="outer", probability=1.0)
    command = [AXOLOTL / "bin/python", ROOT / "examples/axolotl_packing.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    packs = re.findall(r"pack \d+: (\d+) rows, (\d+) tokens, positions to (\d+), loss", done.stdout)
    assert sum(int(rows) for rows, _, _ in packs) > 20
    assert all(int(position) > int(tokens) for _, tokens, position in packs), (
        "positions do not jump: nothing was tested"
    )
