"""Checkpoints in the background: the same bytes, of the step they were taken at, and errors that are not lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training import checkpoint
from training.config import parse_config
from training.loop import train

Build = Callable[..., dict[str, Any]]


class FullError(Exception):
    """What a test throws into the writing, where a disk would fail."""


def run(value: dict[str, Any], record: Callable[[dict[str, Any]], None] = lambda _: None) -> list[str]:
    lines: list[str] = []
    train(parse_config(value), say=lines.append, record=record)
    return lines


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of every checkpoint; state.json among them names the sizes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.glob("step-*/*")) if p.is_file()}


def test_it_writes_what_the_run_had_while_the_run_goes_on(
    config_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Step 3's checkpoint is held up until step 5 is trained, and is still step 3's, to the last byte."""
    run(config_of(checkpoint={"dir": str(tmp_path / "waiting"), "keep": 9}))
    trained = threading.Event()
    threads: list[str] = []
    write = checkpoint._write_model

    def held_up(*arguments: Any) -> None:
        threads.append(threading.current_thread().name)
        assert trained.wait(120), "no step was trained while the checkpoint was written"
        write(*arguments)

    def record(metrics: dict[str, Any]) -> None:
        if metrics["step"] == 5:
            assert not list((tmp_path / "behind").glob("step-*"))
            trained.set()

    monkeypatch.setattr(checkpoint, "_write_model", held_up)
    lines = run(config_of(checkpoint={"dir": str(tmp_path / "behind"), "keep": 9, "background": True}), record)
    assert len(threads) == 3
    assert all(name.startswith("checkpoint") for name in threads)
    found = contents(tmp_path / "behind")
    assert found == contents(tmp_path / "waiting")
    assert {name.split("/")[0] for name in found} == {"step-00000003", "step-00000006", "step-00000008"}
    assert sum(line.startswith("checkpoint ") for line in lines) == 3


def test_one_that_fails_ends_the_run_and_leaves_the_older_ones(
    config_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    value = config_of(checkpoint={"every": 2, "background": True})
    folder = tmp_path / "run"
    write = checkpoint._write_model

    def full(work: Path, *arguments: Any) -> None:
        if work.name.startswith(".step-00000004"):
            raise FullError
        write(work, *arguments)

    taken: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write_model", full)
        with pytest.raises(FullError):
            run(value, lambda metrics: taken.append(metrics["step"]))
    assert taken == [1, 2, 3, 4, 5, 6]  # the next one asks for it
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-00000002"]
    lines = run(value)
    assert any("going on from" in line and "step-00000002" in line for line in lines)
    assert sorted(path.name for path in folder.iterdir() if "step-" in path.name) == ["step-00000006", "step-00000008"]


def test_an_error_of_the_run_waits_for_what_is_being_written(config_of: Build, tmp_path: Path):
    def record(metrics: dict[str, Any]) -> None:
        if metrics["step"] == 4:
            raise FullError

    with pytest.raises(FullError):
        run(config_of(checkpoint={"background": True}), record)
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if "step-" in path.name) == ["step-00000003"]


def test_what_fails_beside_an_error_of_the_run_is_told(
    config_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*arguments: Any) -> None:
        message = "the disk is full"
        raise FullError(message)

    def record(metrics: dict[str, Any]) -> None:
        if metrics["step"] == 4:
            raise KeyError(metrics["step"])

    monkeypatch.setattr(checkpoint, "_write_model", full)
    lines: list[str] = []
    with pytest.raises(KeyError):
        train(parse_config(config_of(checkpoint={"background": True})), say=lines.append, record=record)
    assert lines[-1] == "a checkpoint could not be written (the disk is full)"
