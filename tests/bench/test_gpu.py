"""The GPU benchmark's arithmetic against torch's own count, the whole script on tiny shapes, and what it says of runs that fail."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM

from tests.bench import gpu, gpu_runs
from tests.bench.gpu_tasks import RECIPE_AFTER, Shape, Task, as_words, sample_lengths, tasks, write_rows

QUIET = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)  # of the Trainer's own
FOUND = {
    "tokens_per_second": 40_000.0,
    "flops_per_second": 0.5 * 989.4e12,
    "steps": 4,
    "memory": 2**35,
    "attention": "a kernel",
    "device": "NVIDIA H100 80GB HBM3",
}


def test_flops_are_those_torch_counts():
    shape, length = Shape(name="s", hidden=64, inner=96, layers=3, heads=4, key_heads=2, vocabulary=128), 48
    config = shape.config(length)
    config._attn_implementation = "eager"  # the products of attention are then matrix products torch counts
    model = LlamaForCausalLM(config)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.long), use_cache=False).logits.sum().backward()
    # Eager attention computes the half above the diagonal too, RoPE takes a small product of its own, and the first token,
    # which is no target, meets the output layer.
    causal, first = 6 * shape.layers * shape.hidden * length * length, 6 * 128 * 64
    assert counter.get_total_flops() == pytest.approx(shape.flops([length]) + causal + first, rel=0.01)
    matrices = 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)
    assert shape.flops([1]) == 6 * matrices + 6 * 3 * 64  # a token alone is no target
    two = shape.flops([length, 2 * length])
    assert two == pytest.approx(shape.flops([length]) + shape.flops([2 * length]))


def test_packed_rows_are_whole_and_of_several_samples(tmp_path: Path):
    task = next(t for t in tasks("", rehearse=False) if t.sample)
    lengths = sample_lengths(task)
    assert len(lengths) == task.rows * task.passes * task.steps
    assert {sum(row) for row in lengths} == {4096}
    assert 3 < np.mean([len(row) for row in lengths]) < 7
    assert min(min(row) for row in lengths) >= 2
    rows = pq.read_table(write_rows(tmp_path, lengths[:3], 64) / "data").to_pylist()
    for row, of in zip(rows, lengths, strict=False):
        assert row["seq_lengths"] == of
        assert [n for n, label in enumerate(row["labels"]) if label == -100] == (np.cumsum(of) - of).tolist()
        assert row["position_ids"] == [n for size in of for n in range(size)]


def test_short_samples_never_leave_a_token_alone():
    lengths = sample_lengths(Task(who="ours", shape="tiny", folder="", row=33, sample=3, rows=300))
    assert {sum(row) for row in lengths} == {33}
    assert min(min(row) for row in lengths) == 2


def test_what_is_worth_most_comes_first():
    plan = tasks("", rehearse=False)
    first = [(task.shape, task.row) for task in plan[:RECIPE_AFTER]]
    assert first[:4] == [("1B", 4096)] * 2 + [("0.5B", 4096)] * 2
    assert ("1B", 131_072) in first
    assert plan[-1].row == 524_288
    assert {(t.shape, t.row, t.who) for t in plan} >= {
        (shape, row, who) for shape in ("0.5B", "1B") for row in (4096, 32_768, 131_072) for who in ("ours", "Trainer")
    }
    assert all(task.tokens == max(task.row, 32_768) for task in plan)


@QUIET
def test_a_rehearsal_runs_every_line(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    code = gpu.main(
        ["--rehearse", "--parts", "speed", "stretch", "--out", str(tmp_path)],
        start=lambda task, _: gpu_runs.measured(task),
    )
    said = capsys.readouterr().out
    rows = re.findall(r"^\| tiny \| ([\d,]*\d)[^|]* \| (ours|Trainer) \| ([\d,]+) \| none \| none \|(.*)$", said, re.M)
    assert [(length, who) for length, who, *_ in rows] == [
        ("32", "ours"), ("32", "Trainer"), ("1,024", "ours"), ("256", "ours"), ("256", "Trainer"),
        ("1,024", "Trainer"), ("4,096", "ours"),
    ]  # fmt: skip
    assert all(int(rate.replace(",", "")) > 0 for *_, rate, _ in rows)
    assert all((" times |" in rest) == (who == "Trainer") for _, who, _, rest in rows)
    assert [("on the CPU" in rest) for *_, rest in rows] == [False] * 6 + [True]
    assert all(("MLPs by 128" in rest) == (who == "ours" and len(length) > 3) for length, who, _, rest in rows)
    assert rows[0][3].endswith("scaled_dot_product_attention, a sequence at a time |")
    assert "times the Trainer at packed 32 with tiny: " in said
    assert code == 0
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert [run["steps"] for run in kept["runs"]] == [6, 6, 1, 3, 3, 1, 1]
    assert (tmp_path / "gpu.md").read_text().splitlines()[-2:] == said.splitlines()[-2:]


@QUIET
@pytest.mark.slow
def test_a_run_is_a_process_of_its_own(tmp_path: Path):
    task = Task(who="ours", shape="tiny", folder=str(tmp_path), row=32, steps=3, warm=1)
    found = gpu.in_a_child(task, 120)
    assert found["tokens_per_second"] > 0
    assert found["device"] == "cpu"
    assert (tmp_path / "tiny" / "config.json").exists()


def test_what_children_say_at_their_end(tmp_path: Path):
    def child(code: str, seconds: float = 60) -> dict[str, Any]:
        return gpu.last_line([sys.executable, "-c", code], seconds)

    assert child("print('noise'); print('{\"why_not\": \"does not fit\"}')") == {"why_not": "does not fit"}
    assert child("raise ValueError('no such kernel')") == {"why_not": "failed: ValueError: no such kernel"}
    assert child("import time; time.sleep(60)", 0.1) == {"why_not": "time was up"}


def alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_child_has_started_ends_with_it(tmp_path: Path):
    """A recipe's training would go on holding the GPU."""
    code = (
        "import pathlib, subprocess, sys, time\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(other.pid))\n"
        "time.sleep(600)"
    )
    assert gpu.ended([sys.executable, "-c", code], 5) == ("", "time was up")
    other = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 20  # the kernel ends it when it gets to it
    while alive(other):
        assert time.monotonic() < deadline, f"process {other} goes on"
        time.sleep(0.05)


def test_a_run_that_does_not_fit_says_so_and_other_errors_are_errors():
    def full(task: Task) -> dict[str, Any]:
        raise gpu_runs.TrainingError("too much") from torch.OutOfMemoryError("full")

    def broken(task: Task) -> dict[str, Any]:
        raise gpu_runs.TrainingError("broken")

    task = Task(who="ours", shape="tiny", folder="", row=32)
    assert gpu_runs.measured(task, {"ours": full}) == {"why_not": "does not fit"}
    with pytest.raises(gpu_runs.TrainingError, match="broken"):
        gpu_runs.measured(task, {"ours": broken})


def fed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, results: Iterable[dict[str, Any]], *words: str) -> int:
    """The script with results in the place of runs, the real plan in the place of the rehearsal's."""
    monkeypatch.setattr(gpu, "tasks", lambda folder, rehearse: tasks(folder, rehearse=False))
    feed = iter(results)
    return gpu.main(
        ["--rehearse", "--parts", "speed", "stretch", "--out", str(tmp_path), *words], start=lambda *_: next(feed)
    )


def test_figures_are_computed_and_aims_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slower = FOUND | {"tokens_per_second": 32_000.0, "flops_per_second": 0.4 * 989.4e12}
    none: list[dict[str, Any]] = [{"why_not": "does not fit"}] * 9
    code = fed(monkeypatch, tmp_path, [FOUND, slower, slower, FOUND, *none])
    said = capsys.readouterr().out
    assert "| 1B | 4,096, packed of about 5 samples | ours | 40,000 | 50.0% | 32.0 GiB |  | a kernel |" in said
    assert (
        "| 1B | 4,096, packed of about 5 samples | Trainer | 32,000 | 40.0% | 32.0 GiB | 1.25 times | a kernel |"
        in said
    )
    assert "device: NVIDIA H100 80GB HBM3\n" in said
    assert "MFU at packed 4,096 with 1B: 50.0%, aim of at least 45.0% reached" in said
    assert "MFU at packed 4,096 with 0.5B: 40.0%, aim of at least 45.0% missed" in said
    assert "times the Trainer at packed 4,096 with 1B: 1.25, aim of at least 1.30 missed" in said
    assert "1B in full at 131,072 real tokens on one card: does not fit" in said
    assert "1B in full at 524,288 real tokens on one card: does not fit" in said
    assert code == 0


def test_a_run_that_failed_is_no_success(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert fed(monkeypatch, tmp_path, [FOUND, {"why_not": "failed: no kernel"}, *[FOUND] * 11]) == 1


def test_no_run_begins_after_its_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    assert fed(monkeypatch, tmp_path, [], "--minutes", "0") == 0
    said = capsys.readouterr().out
    assert said.count("| time was up |") == 13
    assert "MFU at packed 4,096 with 1B: not measured" in said


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A recipe's folder with its datasets, as far as the script looks."""
    for name in gpu.RECIPE_DATA:
        (tmp_path / "recipe" / "data" / name).mkdir(parents=True)
        (tmp_path / "recipe" / "data" / name / "manifest.json").touch()
    return tmp_path / "recipe"


def recipe(
    folder: Path, model: str, monkeypatch: pytest.MonkeyPatch, *, why_not: str = ""
) -> tuple[str, list[list[str]]]:
    """What is said of a recipe whose command is only looked at, and the command."""
    started: list[list[str]] = []
    out = folder.parent / "out"
    out.mkdir(exist_ok=True)

    def start(command: list[str], seconds: float) -> tuple[str, str]:
        started.append(command)
        assert seconds == 60 + gpu.GRACE
        (folder / "runs.md").write_text("| model |\n|---|\n| before |\n\n![needles](needles.png)\n")
        (folder / "needles.png").write_bytes(b"png")
        (folder / "runs.json").write_text("{}")
        return "", why_not

    monkeypatch.setattr(gpu, "ended", start)
    return gpu.recipe(folder, folder.parent / model, out, steps=7, seconds=60), started


def test_the_recipe_starts_from_the_model_where_there_is_one(prepared: Path, monkeypatch: pytest.MonkeyPatch):
    (prepared.parent / "model").mkdir()
    (prepared.parent / "model" / "config.json").touch()
    said, ((_, script, *words),) = recipe(prepared, "model", monkeypatch)
    assert Path(script).is_file()
    assert words == ["--model", str(prepared.parent / "model"), "--out", str(prepared), "--steps", "7"]
    assert "from the model in" in said
    assert "| before |" in said
    found = {path.name for path in (prepared.parent / "out").iterdir()}
    assert found == {"recipe-needles.png", "recipe-runs.json", "recipe-runs.md"}
    said, ((*_, start, _, _, _, _),) = recipe(prepared, "none", monkeypatch)
    assert start == "--tiny"
    assert "from the preset tiny, drawn at random" in said
    said, _ = recipe(prepared, "none", monkeypatch, why_not="failed: error: broken")
    assert said.endswith("failed: error: broken")
    said, _ = recipe(prepared, "none", monkeypatch, why_not=gpu.LATE)
    assert said.endswith("time was up; the same command goes on with it")


def test_a_recipe_without_datasets_where_the_service_is_not_says_what_to_do(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
):
    (prepared / "data" / "packed" / "manifest.json").unlink()
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    said, started = recipe(prepared, "none", monkeypatch)
    assert "lacks its datasets" in said
    assert "--datasets-only" in said
    assert started == []


def test_a_task_travels_as_a_word():
    task = replace(tasks("here", rehearse=False)[4], mlp_chunk=None)
    assert Task(**json.loads(as_words(task))) == task
