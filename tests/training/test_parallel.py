"""Many ranks as one run, over gloo: the losses and weights of one process, elastic resume after kill -9, one sentence
for an error."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from tests.training.conftest import token_rows, write_dataset
from training.batch import share, steps
from training.config import parse_config
from training.loop import train
from training.presets import tiny
from training.source import open_source
from training.stream import IGNORED, DataState, RowStream

ROOT = Path(__file__).parents[2]
Build = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.slow


def start(*jobs: tuple[int, Path], **more: str) -> Any:
    """Ranks as processes; each job is a world size and a config."""
    words = [str(word) for job in jobs for word in job]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.ranks", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: Any) -> tuple[list[int], list[str]]:
    """The exit codes of all ranks, and the lines of errors among stderr (torch has warnings of its own)."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    found = [json.loads(line) for line in out.splitlines() if line.startswith("[")]
    return [code for codes in found[1::2] for code in codes], [e for e in err.splitlines() if e.startswith("error")]


def written(tmp_path: Path, name: str, value: dict[str, Any]) -> Path:
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(value | {"checkpoint": value["checkpoint"] | {"dir": str(tmp_path / name)}}))
    return path


def alone(path: Path) -> None:
    """One process, without a group."""
    train(parse_config(yaml.safe_load(path.read_text())), say=lambda _: None, record=lambda _: None)


def losses(folder: Path) -> list[float]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in found] == list(range(1, len(found) + 1))
    return [m["loss"] for m in found]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(max(folder.glob("step-*")) / "model.safetensors")


def furthest(one: Path, two: Path) -> float:
    """The largest difference between two runs' last weights; their losses must agree to 1e-6."""
    assert losses(one) == pytest.approx(losses(two), abs=1e-6, rel=0)
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.fixture
def uneven(tmp_path: Path, config_of: Build) -> dict[str, Any]:
    """A config whose steps have four packed rows with very unlike counts of targets, some with none; the model's output
    layer is its own."""
    rows = token_rows(60, sequences=6)
    for number, row in enumerate(rows):
        if number % 3:
            row["labels"] = np.full(row["n_tokens"], IGNORED, np.int32)
    settings = LlamaConfig(**(tiny(64).to_dict() | {"tie_word_embeddings": False}))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(settings).save_pretrained(tmp_path / "model")
    value = config_of(
        model={"preset": None, "path": str(tmp_path / "model")},
        data={"source": str(write_dataset(tmp_path / "uneven", [rows]))},
        batch={"tokens_per_step": 4 * 144, "row_tokens": 144},
        checkpoint={"every": 100},
        loss={"normalize": "sequences"},
    )
    data = RowStream(open_source(value["data"]["source"]), seed=3).rows_from(DataState())
    planned = [step for step, _ in zip(steps(data, row_tokens=144, tokens_per_step=576), range(8), strict=False)]
    counts = [[int((b.targets != IGNORED).sum()) for b in share(s, r, 4).batches] for s in planned for r in range(4)]
    assert 3 <= sum(sum(count) == 0 for count in counts) <= 28
    return value


def test_any_number_of_ranks_trains_as_one_process(uneven: dict[str, Any], tmp_path: Path):
    """Losses and weights after eight steps to 1e-6, with weights spread and with whole copies, with layers computed again
    and MLPs in chunks too (which add up in an order of their own, in one process as well); metrics count alike."""
    thrifty = uneven | {"model": uneven["model"] | {"checkpointing": True, "mlp_chunk": 50}}
    alone(written(tmp_path, "alone", uneven))
    alone(written(tmp_path, "alone thrifty", thrifty))
    jobs = [(world, written(tmp_path, f"world {world}", thrifty if world == 2 else uneven)) for world in (1, 2, 4)]
    jobs.append((2, written(tmp_path, "copies", thrifty | {"parallel": {"shard": False}})))
    codes, errors = end(start(*jobs))
    assert (codes, errors) == ([0] * 9, [])
    reference = json.loads((tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()[-1])
    for _, path in jobs:
        folder = path.with_suffix("")
        same = "alone" if folder.name in {"world 1", "world 4"} else "alone thrifty"
        assert furthest(folder, tmp_path / same) <= 1e-6
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        assert last["grad_norm"] == pytest.approx(reference["grad_norm"], rel=1e-5)
        counts = ("tokens", "targets", "rows", "flops")
        assert [last[n] for n in counts] == [reference[n] for n in counts]
        assert last["losses"]["skipped"]["loss"] == pytest.approx(reference["losses"]["skipped"]["loss"], abs=1e-5)
        assert last["losses"]["skipped"]["targets"] == reference["losses"]["skipped"]["targets"] > 0


def test_ranks_that_share_rows_train_as_one_process(uneven: dict[str, Any], tmp_path: Path):
    """Each row's tokens over two ranks, alone (with layers computed again and MLPs in chunks) and beside two more; rows
    whose length is odd among them, with weights by sequences that lie with both. With an adapter too, saved behind."""
    thrifty = uneven | {"model": uneven["model"] | {"checkpointing": True, "offload": True, "mlp_chunk": 25}}
    adapter = thrifty | {"model": thrifty["model"] | {"lora": {"rank": 2}}, "optimizer": {"lr": 1e-2, "warmup": 1}}
    alone(written(tmp_path, "alone", uneven))
    alone(written(tmp_path, "alone with an adapter", adapter))
    shared = {"parallel": {"sequence": 2}}
    behind = {"checkpoint": adapter["checkpoint"] | {"every": 4, "background": True}}
    jobs = [(2, written(tmp_path, "world 2", thrifty | shared)), (4, written(tmp_path, "world 4", uneven | shared))]
    jobs.append((2, written(tmp_path, "shared with an adapter", adapter | shared | behind)))
    jobs.append((3, written(tmp_path, "heads", uneven | {"parallel": {"sequence": 3}})))
    jobs.append((2, written(tmp_path, "ranks", uneven | {"parallel": {"sequence": 3}})))
    codes, errors = end(start(*jobs))
    assert codes == [0] * 8 + [1] * 5
    assert furthest(tmp_path / "shared with an adapter", tmp_path / "alone with an adapter") <= 1e-6
    same_adapters(tmp_path / "shared with an adapter", tmp_path / "alone with an adapter")
    assert len(errors) == 2, errors
    assert "the model's 4 attention heads cannot be shared evenly by the 3 ranks of parallel.sequence" in errors[0]
    assert "parallel.sequence is 3, which does not divide the run's 2 processes" in errors[1]
    wanted = [json.loads(line) for line in (tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()]
    assert any(m["tokens"] % 2 for m in wanted)
    for _, path in jobs[:2]:
        folder = path.with_suffix("")
        assert furthest(folder, tmp_path / "alone") <= 1e-6
        found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for one, other in zip(found, wanted, strict=True):
            assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
            assert [one[n] for n in ("tokens", "targets", "rows", "flops")] == [
                other[n] for n in ("tokens", "targets", "rows", "flops")
            ]
            ours, theirs = one["losses"]["distances"], other["losses"]["distances"]
            assert [(p["from"], p["targets"]) for p in ours] == [(p["from"], p["targets"]) for p in theirs]
            assert [p["loss"] for p in ours] == pytest.approx([p["loss"] for p in theirs], abs=1e-5)


def cut(path: Path, victim: int, due: Callable[[], bool]) -> int:
    """Start two ranks, kill -9 one of them once it is due, and see the other end by itself; returns kills delivered."""
    process = start((2, path))
    ids = json.loads(process.stdout.readline())
    deadline = time.monotonic() + 120
    while not due():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(ids[victim], signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    codes = json.loads(out.splitlines()[-1])
    assert (codes[victim], codes[1 - victim]) == (-9, 1), err
    return codes.count(-9)


@pytest.mark.timeout(400)  # some seventeen processes start in it
def test_killed_anywhere_it_goes_on_with_as_many_ranks_and_with_others(config_of: Build, tmp_path: Path):
    """kill -9 of rank 1 between checkpoints and of rank 0 in the middle of a save, which from then on is in the
    background. Two ranks then end bit for bit like
    two never cut; one process and four ranks, from the same remains, to 1e-6."""
    value = config_of(batch={"tokens_per_step": 320}, steps=24, checkpoint={"every": 4, "keep": 2})
    path, folder = written(tmp_path, "cut", value), tmp_path / "cut"

    def taken(least: int) -> bool:
        metrics = folder / "metrics.jsonl"
        return metrics.exists() and metrics.read_bytes().count(b"\n") >= least

    kills = cut(path, 1, lambda: taken(6))
    path = written(tmp_path, "cut", value | {"checkpoint": value["checkpoint"] | {"background": True}})
    kills += cut(path, 0, lambda: taken(10) and any(folder.glob(".step-*.part")))
    assert kills == 2
    assert 10 <= len(losses(folder)) < 24
    jobs = [(2, path), (2, written(tmp_path, "whole", value))]
    for name, world in (("one", 1), ("four", 4)):
        shutil.copytree(folder, tmp_path / name)
        jobs.append((world, written(tmp_path, name, value)))
    single = jobs.pop(2)[1]
    alone(single)
    codes, errors = end(start(*jobs))
    assert (codes, errors) == ([0] * 8, [])
    assert losses(folder) == losses(tmp_path / "whole")
    assert furthest(folder, tmp_path / "whole") == 0.0
    for name in ("one", "four"):
        assert furthest(tmp_path / name, tmp_path / "whole") <= 1e-6
    names = {file.suffix for file in folder.glob("step-*/**/*") if file.is_file()}
    assert names == {".safetensors", ".json"}
    assert len(list(max(folder.glob("step-*")).glob("optimizer/*.safetensors"))) == 2


def same_adapters(one: Path, two: Path) -> None:
    """The adapters of two runs' last checkpoints agree to 1e-6."""
    a, b = (load_file(max(run.glob("step-*")) / "adapter" / "adapter_model.safetensors") for run in (one, two))
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[name], b[name], atol=1e-6, rtol=0) for name in a)


def test_one_process_becomes_two_and_two_become_one(config_of: Build, tmp_path: Path):
    """Whole weights, and an adapter's: then frozen ones are spread with it, and it alone has states. Two ranks save
    behind their work, and their remains are gone on from alone."""
    plain = config_of(batch={"tokens_per_step": 320}, checkpoint={"every": 4, "keep": 9})
    for name, value in (("plain", plain), ("adapter", plain | {"model": plain["model"] | {"lora": {"rank": 2}}})):
        alone(written(tmp_path, f"{name} alone", value))
        behind = value | {"checkpoint": value["checkpoint"] | {"background": True, "every": 2}}
        shutil.copytree(tmp_path / f"{name} alone", tmp_path / f"{name} two")
        shutil.rmtree(tmp_path / f"{name} two" / "step-00000008")
        written(tmp_path, f"{name} two", behind)
    jobs = [(2, tmp_path / f"{name} two.yaml") for name in ("plain", "adapter")]
    assert end(start(*jobs)) == ([0] * 4, [])
    for name in ("plain", "adapter"):
        one, two = tmp_path / f"{name} alone", tmp_path / f"{name} two"
        assert furthest(two, one) <= 1e-6
        assert losses(two)[0] != losses(two)[-1]
        assert (two / "step-00000008" / "optimizer").is_dir()
        shutil.rmtree(two / "step-00000008")
        assert sorted(path.name for path in two.glob("step-*"))[-1] == "step-00000006"
        alone(tmp_path / f"{name} two.yaml")
        assert furthest(two, one) <= 1e-6
    same_adapters(tmp_path / "adapter two", tmp_path / "adapter alone")


def test_an_error_is_one_line_whichever_rank_it_is_of(config_of: Build, tmp_path: Path, dataset: Path):
    value = config_of()
    indivisible = written(tmp_path, "indivisible", value)
    wrong = written(tmp_path, "wrong", value | {"steps": 0})
    codes, errors = end(start((4, indivisible), (2, wrong)))
    assert codes == [1] * 4 + [2] * 2
    assert len(errors) == 2, errors
    assert "a step's 2 packed rows cannot be shared evenly by 4 ranks" in errors[0]
    assert errors[1].startswith("error: /steps")
    codes, errors = end(start((2, written(tmp_path, "failing", value)), FAIL="1 5"))
    assert (codes, errors) == ([1, 1], ["error: rank 1 was told to fail"])
    assert len(losses(tmp_path / "failing")) == 4


def test_torchrun_starts_it(config_of: Build, tmp_path: Path):
    path = written(tmp_path, "run", config_of(steps=3))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "service.cli"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "train", str(path)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("step ")] == ["1/3", "2/3", "3/3"]
    assert done.stdout.count("attention follows the boundaries") == 1
