"""A whole run: its metrics and checkpoints, and that a run that was cut anywhere ends with the same bits."""

from __future__ import annotations

import fcntl
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from packing.dataset.errors import DatasetError
from tests.training.conftest import token_rows, write_dataset
from training import loop, step
from training.config import OptimizerConfig, parse_config
from training.errors import AttentionError, CheckpointError, TrainingError
from training.loop import train
from training.optimizer import learning_rate
from training.presets import tiny
from training.stream import Extent

Build = Callable[..., dict[str, Any]]
TIMED = "tokens_per_second"


class StoppedError(Exception):
    """What a test throws into a run, where a machine would fail."""


def run(value: dict[str, Any], *, stop_at: int | None = None) -> tuple[list[str], list[dict[str, Any]]]:
    """Run a config; returns its lines and its steps' metrics. `stop_at`: fail once that step is recorded."""
    lines: list[str] = []
    metrics: list[dict[str, Any]] = []

    def record(measured: dict[str, Any]) -> None:
        metrics.append(measured)
        if measured["step"] == stop_at:
            raise StoppedError

    train(parse_config(value), say=lines.append, record=record)
    return lines, metrics


def on_disk(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock decides."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in metrics.items() if name != TIMED} for metrics in found]


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(("step-", ".step-")))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "step-00000008" / "model.safetensors")


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_leaves_metrics_and_whole_checkpoints(config_of: Build, tmp_path: Path):
    lines, metrics = run(config_of())
    folder = tmp_path / "run"
    assert [m["step"] for m in metrics] == list(range(1, 9))
    assert on_disk(folder) == [{name: value for name, value in m.items() if name != TIMED} for m in metrics]
    assert set(metrics[0]) == {
        *("step", "loss", "tokens", "targets", "lr", "grad_norm", "epoch", "rows", "dropped", "flops", "losses"),
        TIMED,
    }
    assert all(0 < m["targets"] < m["tokens"] <= 160 for m in metrics)
    assert metrics[0]["loss"] == pytest.approx(np.log(64), abs=0.1)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert checkpoints(folder) == ["step-00000006", "step-00000008"]  # 3 has gone: two are kept
    assert any("attention follows the boundaries" in line for line in lines)
    assert any("RoPE base" in line for line in lines)
    model = AutoModelForCausalLM.from_pretrained(folder / "step-00000008", local_files_only=True)
    assert model.config.max_position_embeddings > 900
    assert not list(folder.rglob("*.pt")) + list(folder.rglob("*.bin")) + list(folder.rglob("*.pkl"))


def test_the_model_learns_what_the_rows_repeat(config_of: Build, tmp_path: Path):
    """Not only numbers that move: eight rows seen again and again are learnt by heart."""
    folder = write_dataset(tmp_path / "few", [token_rows(8, longest=8)])
    value = config_of(data={"source": str(folder)}, steps=40, optimizer={"lr": 1e-2}, checkpoint={"every": 100})
    _, metrics = run(value)
    assert metrics[-1]["epoch"] > 5
    assert metrics[-1]["loss"] < 1.0 < 4.0 < metrics[0]["loss"]


@pytest.mark.parametrize("stop_at", [1, 3, 5, 7])
def test_a_run_that_was_cut_ends_bit_for_bit_like_one_that_was_not(config_of: Build, tmp_path: Path, stop_at: int):
    run(config_of(checkpoint={"dir": str(tmp_path / "whole")}))
    value = config_of(checkpoint={"dir": str(tmp_path / "cut")})
    with pytest.raises(StoppedError):
        run(value, stop_at=stop_at)
    assert len(on_disk(tmp_path / "cut")) == stop_at
    lines, metrics = run(value)
    resumed = (stop_at - 1) // 3 * 3  # stopped before the step's own checkpoint was written
    assert metrics[0]["step"] == resumed + 1
    assert any("going on from" in line for line in lines) == (resumed > 0)
    assert on_disk(tmp_path / "cut") == on_disk(tmp_path / "whole")
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_a_run_that_is_complete_has_nothing_left_to_do(config_of: Build):
    value = config_of(steps=3)
    run(value)
    lines, metrics = run(value)
    assert metrics == []
    assert lines == [f"{value['checkpoint']['dir']}/step-00000003 holds all 3 steps: nothing is left to do"]


def test_a_checkpoint_cut_short_is_passed_over(config_of: Build, tmp_path: Path):
    run(config_of())
    folder = tmp_path / "run"
    before = weights(folder)
    path = folder / "step-00000008" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    (folder / ".step-00000008.1234").mkdir()
    lines, metrics = run(config_of())
    assert any("step-00000008 is not whole (optimizer.safetensors has another size" in line for line in lines)
    assert [m["step"] for m in metrics] == [7, 8]
    assert equal(weights(folder), before)
    (folder / "step-00000008" / "state.json").unlink()
    lines, metrics = run(config_of())
    assert any("step-00000008 is not whole" in line for line in lines)
    assert [m["step"] for m in metrics] == [7, 8]
    assert checkpoints(folder) == ["step-00000006", "step-00000008"]


def test_a_save_that_fails_leaves_the_checkpoints_as_they_were(
    config_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*args: Any) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr("training.checkpoint.save_file", full)
        with pytest.raises(StoppedError):
            run(config_of())
    folder = tmp_path / "run"
    assert [name for name in checkpoints(folder) if not name.startswith(".")] == []
    assert len(checkpoints(folder)) == 1
    run(config_of())
    assert checkpoints(folder) == ["step-00000006", "step-00000008"]


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"optimizer": {"lr": 2e-3}}, "/optimizer/lr was 0.001 and is 0.002"),
        ({"steps": 9}, "/steps was 8 and is 9"),
        ({"data": {"shuffle_seed": 4}}, "/data/shuffle_seed was 3 and is 4"),
        ({"batch": {"tokens_per_step": 80}}, "/batch/tokens_per_step was 160 and is 80"),
    ],
)
def test_another_config_is_refused_by_field(config_of: Build, sections: dict[str, Any], named: str):
    with pytest.raises(StoppedError):
        run(config_of(), stop_at=1)
    with pytest.raises(CheckpointError, match=f"belongs to another run .*{named}.*set another checkpoint.dir"):
        run(config_of(**sections))


def test_the_same_data_elsewhere_are_the_same_run_and_other_data_are_not(config_of: Build, tmp_path: Path):
    with pytest.raises(StoppedError):
        run(config_of(), stop_at=4)
    shutil.copytree(tmp_path / "dataset", tmp_path / "moved")
    _, metrics = run(config_of(data={"source": str(tmp_path / "moved"), "key": "k"}, checkpoint={"every": 5}))
    assert [m["step"] for m in metrics] == [4, 5, 6, 7, 8]
    other = write_dataset(tmp_path / "other", [token_rows(20, seed=9)])
    with pytest.raises(CheckpointError, match="sha256 of its manifest"):
        run(config_of(data={"source": str(other)}))
    assert "secret" not in (tmp_path / "run" / "run.json").read_text()


def test_two_runs_do_not_share_a_folder(config_of: Build, tmp_path: Path):
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="another run is at work"):
            run(config_of())


def test_a_row_that_is_too_long_ends_the_run_before_a_model_is_loaded(
    config_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loop, "load_model", None)
    with pytest.raises(DatasetError, match=r"row \d+ \(counted from 0\) has \d+ tokens, more than batch.row_tokens"):
        run(config_of(batch={"row_tokens": 20, "tokens_per_step": 40}))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    monkeypatch.undo()
    _, metrics = run(config_of())  # mended as the sentence says: nothing was trained, so it is no other run
    assert len(metrics) == 8


def test_damage_met_on_the_way_ends_the_run(config_of: Build, tmp_path: Path, dataset: Path):
    path = dataset / "data" / "train-00002-of-00004.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DatasetError, match=r"train-00002-of-00004\.parquet is damaged"):
        run(config_of())


def blanked(count: int) -> list[dict[str, Any]]:
    return [row | {"labels": np.full(row["n_tokens"], -100, np.int32)} for row in token_rows(count)]


def test_data_without_any_target_are_refused(config_of: Build, tmp_path: Path):
    with pytest.raises(DatasetError, match="has nothing to learn"):
        run(config_of(data={"source": str(write_dataset(tmp_path / "blank", [blanked(6)]))}))


def test_a_split_that_is_not_there_is_refused_and_one_that_is_there_is_trained_on(config_of: Build):
    with pytest.raises(DatasetError, match=r"has no split 'tests'; it has test, train: set data\.split"):
        run(config_of(data={"split": "tests"}))
    lines, metrics = run(config_of(data={"split": "test"}, steps=3))
    assert any("3 rows" in line for line in lines)
    assert metrics[-1]["epoch"] > 0


def test_a_step_without_targets_changes_nothing(config_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "training.stream.RowStream.extent", lambda *_: Extent(position=2000, token_id=63, row_tokens=72)
    )
    value = config_of(data={"source": str(write_dataset(tmp_path / "blank", [blanked(6)]))}, steps=3)
    _, metrics = run(value)
    assert [(m["loss"], m["targets"], m["grad_norm"]) for m in metrics] == [(None, 0, 0.0)] * 3
    assert "no targets" in loop.progress(metrics[0], 3)


def test_a_loss_that_is_not_finite_ends_the_run(config_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def infinite(*args: Any, **options: Any) -> tuple[float, int]:
        return float("inf"), 3

    monkeypatch.setattr(step, "accumulate", infinite)
    with pytest.raises(TrainingError, match="step 1: the loss is inf"):
        run(config_of())


def test_a_folder_that_cannot_be_written_is_said_in_a_sentence(config_of: Build, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"the run could not go on: .*file"):
        run(config_of(checkpoint={"dir": str(tmp_path / "file" / "run")}))


@pytest.mark.parametrize("background", [False, True])
def test_weights_that_find_no_room_are_said_in_a_sentence(config_of: Build, tmp_path: Path, background: bool):
    """Whoever writes them says it in words of his own: a limit on a file's size is seen here as a full disk is."""
    value = config_of(checkpoint={"dir": str(tmp_path / "run"), "every": 1, "background": background}, steps=3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    try:
        with pytest.raises(TrainingError, match=r"the run could not go on: .*File too large"):
            run(value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "run").glob("step-*"))
    _, metrics = run(value)
    assert [m["step"] for m in metrics] == [1, 2, 3], "nothing was kept, so nothing was lost"


def test_the_optimizer_steps_with_the_schedules_rate_and_a_clipped_gradient(
    config_of: Build, monkeypatch: pytest.MonkeyPatch
):
    rates: list[set[float]] = []
    norms: list[float] = []
    take = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW) -> Any:
        rates.append({group["lr"] for group in self.param_groups})
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())
        return take(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    _, metrics = run(config_of(optimizer={"clip": 0.25}))
    assert norms == pytest.approx([0.25] * 8, rel=1e-3)
    assert all(m["grad_norm"] > 0.3 for m in metrics)
    assert rates == [{m["lr"]} for m in metrics]
    assert len({m["lr"] for m in metrics}) > 5


def test_a_checkpoint_of_a_models_directory_is_a_model_to_run(config_of: Build, tmp_path: Path):
    """With its tokenizer's files, also after a resume, when the checkpoint is all that is read."""
    model = tmp_path / "model"
    AutoModelForCausalLM.from_config(tiny(64)).save_pretrained(model)
    (model / "tokenizer.json").write_text("{}")
    value = config_of(model={"preset": None, "path": str(model)}, data={"tokenizer": "any"})
    with pytest.raises(StoppedError):
        run(value, stop_at=4)
    run(value)
    assert (tmp_path / "run" / "step-00000008" / "tokenizer.json").read_text() == "{}"
    assert not (tmp_path / "run" / "step-00000008" / "chat_template.jinja").exists()


def test_attention_is_checked_at_every_start(config_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checked: list[int] = []

    def counted(model: Any, batch: Any, anywhere: Any) -> None:
        checked.append(batch.tokens)
        if len(checked) == 3:
            raise AttentionError("wrong")

    monkeypatch.setattr(loop, "preflight", counted)
    with pytest.raises(StoppedError):
        run(config_of(), stop_at=4)
    _, metrics = run(config_of())
    assert metrics[0]["step"] == 4
    assert len(checked) == 2
    assert min(checked) > 20
    with pytest.raises(AttentionError):
        run(config_of(checkpoint={"dir": str(tmp_path / "third")}))
    assert not (tmp_path / "third" / "metrics.jsonl").exists()


def test_schedules():
    def rates(schedule: str) -> list[float]:
        config = OptimizerConfig(lr=1.0, warmup=4, schedule=schedule)
        return [learning_rate(config, step, 20) for step in range(1, 21)]

    for schedule in ("constant", "cosine", "wsd"):
        assert rates(schedule)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates("constant")[4:] == [1.0] * 16
    assert rates("wsd")[4:] == [1.0] * 15 + [0.5]
    cosine = rates("cosine")[4:]
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[8] == pytest.approx(0.5)
    assert 0 < cosine[-1] < 0.01
