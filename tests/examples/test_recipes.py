"""Recipes run from their one command to their last checkpoint, every stage starts from the one before, and needles and short
texts are measured before anything and after each."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from transformers import AutoModelForCausalLM

import training.__main__
from service import cli
from tests.conftest import conversation, write_lines

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "examples" / "recipes"
STAGES = ["1-pretraining", "2-long-pretraining", "3-fine-tuning", "4-long-fine-tuning"]
COMMANDS = {"service.cli": cli.main, "training": training.__main__.main}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Texts for a recipe, as its options."""
    documents = [{"id": f"d{n}", "text": f"Document {n} of the river and the mill. " * 60} for n in range(12)]
    write_lines(tmp_path / "documents.jsonl", documents)
    write_lines(tmp_path / "talk.jsonl", [conversation(n, turns=2) for n in range(40)])
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("The mill stands still and the river does not. " * 40)
    given = {"documents": "documents.jsonl", "conversations": "talk.jsonl", "texts": "texts"}
    return [word for name, file in given.items() for word in (f"--{name}", str(tmp_path / file))]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a recipe in this process, the commands that it starts too; returns their words."""
    started: list[list[str]] = []

    def start(command: list[str], **_: Any) -> Any:
        started.append(command[2:])
        return subprocess.CompletedProcess(command, COMMANDS[command[2]](command[3:]))

    def run(name: str, *words: str) -> list[list[str]]:
        started.clear()
        with monkeypatch.context() as patch:
            for module in ("recipe", "outcome"):
                patch.delitem(sys.modules, module, raising=False)
            patch.syspath_prepend(str(RECIPES))
            patch.setattr(subprocess, "run", start)
            patch.setattr(sys, "argv", [name, *words])
            runpy.run_path(str(RECIPES / name), run_name="__main__")
        return list(started)

    return run


def measured(out: Path, names: list[str]) -> None:
    """The outcome has a line for the model before anything and for each run, and pictures are there."""
    found = json.loads((out / "runs.json").read_text())
    assert [run["run"] for run in found["runs"]] == names
    assert [line["model"] for line in found["measured"]] == ["before", *names]
    for line in found["measured"]:
        assert line["texts"].keys() == {"1024"}
        assert line["recall"].keys() == {"256", "2560"}
        assert None not in (line["recall_short"], line["recall_long"])
    losses = [line["texts"]["1024"] for line in found["measured"]]
    assert len(set(losses)) > 1
    table = (out / "runs.md").read_text()
    assert all(
        f"| {line['model']} | {loss:.4f} |" in table for line, loss in zip(found["measured"], losses, strict=True)
    )
    assert all(run["checkpoint"] in table for run in found["runs"])
    assert "![needles before and after](needles.png)" in table
    assert (out / "needles.png").read_bytes().startswith(b"\x89PNG")
    first = (out / "runs" / names[0] / "report.md").read_text()
    assert "| needles at step 0 | needles at step 2 |" in first
    assert "![needles.png](needles.png)" not in first  # the newest evaluation's is the right one of the two


@pytest.mark.slow
def test_the_four_stages_of_longskywork(tmp_path: Path, files: list[str], here: Any):
    out = tmp_path / "out"
    here("longskywork.py", "--tiny", "--out", str(out), *files)

    configs = [yaml.safe_load((out / "configs" / f"{stage}.yaml").read_text()) for stage in STAGES]
    last = [sorted((out / "runs" / stage).glob("step-*"))[-1] for stage in STAGES]
    assert [config["model"] for config in configs] == [{"preset": "tiny"}, *({"path": str(p)} for p in last[:-1])]
    for stage in STAGES:
        assert len((out / "runs" / stage / "metrics.jsonl").read_text().splitlines()) == 2
    kinds = [json.loads((out / "data" / stage / "manifest.json").read_text())["kind"] for stage in STAGES]
    assert kinds == ["cip", "cip", "skipalign", "mixture"]
    rows = pq.read_table(out / "data" / STAGES[3] / "data").to_pylist()
    share = sum(r["n_tokens"] for r in rows if r["part"] == "synthetic") / sum(r["n_tokens"] for r in rows)
    assert abs(share - 0.8) < 0.1  # to within a row of 2,048 tokens of some 20,000
    model = AutoModelForCausalLM.from_pretrained(last[-1], local_files_only=True)
    assert model.config.vocab_size == 32_768
    measured(out, STAGES)


@pytest.mark.slow
def test_the_comparison_of_skipalign(tmp_path: Path, files: list[str], here: Any):
    """Datasets first, as for another machine; then the same command trains on them and builds nothing."""
    out, names = tmp_path / "out", ["normal", "packed", "skipalign"]
    words = ["--tiny", "--out", str(out), *files]
    assert [command[0] for command in here("skipalign.py", *words, "--datasets-only")] == ["service.cli"] * 4
    assert not (out / "runs").exists()
    assert [command[0] for command in here("skipalign.py", *words)] == ["training"] * 3
    configs = [yaml.safe_load((out / "configs" / f"{name}.yaml").read_text()) for name in names]
    assert len({(c["model"]["preset"], c["model"]["rope_base"], c["steps"]) for c in configs}) == 1
    assert [config["evaluate"]["before"] for config in configs] == [True, False, False]
    rows = [pq.read_table(out / "data" / name / "data").to_pylist() for name in names]
    skipped = [sum(row["skipped"] for row in of) for of in rows]
    assert skipped[:2] == [0, 0] < skipped[2:]
    assert len(rows[1]) < len(rows[0])
    measured(out, names)


@pytest.mark.slow
def test_it_is_one_command(tmp_path: Path):
    """As a user gives it, with the texts of our own: those of every tenth module are held back from the training."""
    out = tmp_path / "out"
    command = [sys.executable, str(RECIPES / "skipalign.py"), "--tiny", "--out", str(out), "--datasets-only"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    held = {json.loads(line)["id"] for line in (out / "held" / "documents.jsonl").read_text().splitlines()}
    documents = [json.loads(line)["id"] for line in (out / "documents.jsonl").read_text().splitlines()]
    talks = [json.loads(line)["id"].split("/")[0] for line in (out / "conversations.jsonl").read_text().splitlines()]
    assert len(held) > 10
    assert 8 < len(documents) / len(held) < 10
    assert held.isdisjoint(documents)
    assert held.isdisjoint(talks)
