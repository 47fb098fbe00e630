"""The report of a run: that its figures are those of the run's own files, and that it makes nothing up."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packing.dataset.manifest import NAME
from tests.training.conftest import token_rows, write_dataset
from training.config import parse_config
from training.loop import train
from training.report import pictures
from training.report.figures import beside, changes, curve, work
from training.report.markdown import to_markdown
from training.report.surroundings import peak_memory, shown, without_credentials

Build = Callable[..., dict[str, Any]]


class StoppedError(Exception):
    """What a test throws into a run, where a machine would fail."""


def run(value: dict[str, Any], *, stop_at: int | None = None) -> list[str]:
    lines: list[str] = []

    def record(measured: dict[str, Any]) -> None:
        if measured["step"] == stop_at:
            raise StoppedError

    train(parse_config(value), say=lines.append, record=record)
    return lines


def measured(step: int, loss: float | None = 2.0, *, targets: int = 10, **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "loss": loss,
        "tokens": 100,
        "targets": targets,
        "lr": 1e-3,
        "tokens_per_second": 50.0,
        "flops": 1e12,
        "losses": {"skipped": None, "unskipped": {"loss": 2.0, "targets": targets}, "distances": []},
        **more,
    }


def evaluation(step: int, *, texts: float | None = None, **recall: float) -> dict[str, Any]:
    """`recall` is n512=0.5, with ten probes a length."""
    lengths = [{"length": int(name[1:]), "recall": value, "count": 10} for name, value in recall.items()]
    found: dict[str, Any] = {"step": step}
    if texts is not None:
        found["texts"] = {"window": 1024, "loss": texts, "longer_windows": [{"window": 4096, "loss": texts + 1}]}
    return found | ({"needles": {"lengths": lengths}} if lengths else {})


def test_a_run_reports_what_its_own_files_say(config_of: Build, tmp_path: Path, dataset: Path):
    lines = run(config_of(data={"key": "hidden-key"}))
    folder = tmp_path / "run"
    report = json.loads((folder / "report.json").read_bytes())
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert report["tokens"] == sum(m["tokens"] for m in steps)
    assert report["targets"] == sum(m["targets"] for m in steps)
    assert (report["step"], report["of"]) == (8, 8)
    assert report["data"]["rows_in_split"] == 20
    assert report["data"]["fingerprint"] == json.loads((dataset / NAME).read_bytes())["fingerprint"]
    identity = json.loads((folder / "run.json").read_bytes())
    assert report["data"]["manifest_sha256"] == identity["/data (sha256 of its manifest)"]
    (session,) = report["sessions"]
    assert session["steps"] == [1, 8]
    assert session["seconds_in_steps"] == pytest.approx(sum(m["tokens"] / m["tokens_per_second"] for m in steps))
    assert session["peak_memory"]["bytes"] > 50 * 2**20
    assert session["peak_memory"]["counted_by"] == "VmHWM"
    assert (session["mfu"], session["peak_flops"]) == (None, None)
    assert {"python", "torch", "transformers", "numpy", "pyarrow"} <= session["versions"].keys()
    assert [stretch["steps"] for stretch in report["curve"]] == [[n, n] for n in range(1, 9)]
    text = (folder / "report.md").read_text()
    assert text.startswith("# Run on made for a test: step 8 of 8 (complete)\n")
    assert "unknown device: no MFU" in text
    assert f"| 1 to 1 | {steps[0]['loss']:.4f} |" in text
    assert "hidden-key" not in text + (folder / "report.json").read_text()
    assert f"report {folder / 'report.md'}" in lines
    assert not (folder / "report.png").exists()  # eight steps, and no evaluation


def test_a_run_that_was_cut_keeps_what_processes_before_did(config_of: Build, tmp_path: Path, monkeypatch: Any):
    """The steps that are taken again belong to the process that took them last."""
    value = config_of(steps=12, evaluate=None)
    monkeypatch.setattr("training.evaluation.measure.Evaluations.at", lambda self, step, model, ranks: step == 5)
    with pytest.raises(StoppedError):
        run(value, stop_at=6)
    first = json.loads((tmp_path / "run" / "report.json").read_bytes())
    assert [session["steps"] for session in first["sessions"]] == [[1, 5]]
    shutil.copytree(tmp_path / "run", tmp_path / "damaged")
    run(value)
    report = json.loads((tmp_path / "run" / "report.json").read_bytes())
    assert [(session["from_step"], session["steps"]) for session in report["sessions"]] == [(0, [1, 5]), (3, [4, 12])]
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert report["tokens"] == sum(m["tokens"] for m in steps)
    assert [m["step"] for m in steps] == list(range(1, 13))
    assert (tmp_path / "run" / "report.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "run" / "report.md").read_text()
    assert "![report.png](report.png)" in text
    assert re.findall(r"^\| ([\d to]+) \| cpu", text, re.M) == ["1 to 5", "4 to 12"]
    (tmp_path / "damaged" / "report.json").write_bytes(b"{")
    assert any(
        "report.json is damaged" in line for line in run(value | {"checkpoint": {"dir": str(tmp_path / "damaged")}})
    )
    found = json.loads((tmp_path / "damaged" / "report.json").read_bytes())
    assert [session["steps"] for session in found["sessions"]] == [[4, 12]]


def test_mfu_is_of_the_median_step_and_of_all_devices():
    steps = [measured(n, tokens_per_second=rate) for n, rate in enumerate((1.0, 50.0, 50.0, 100.0), 1)]
    found = work(steps, device="NVIDIA H100 80GB HBM3", processes=4)
    assert found["mfu"] == pytest.approx(1e12 / 2 / (4 * 989.4e12))  # 100 tokens at 50 a second
    assert found["tokens_per_second"] == 50.0
    assert work(steps, device="a card of next year", processes=1)["mfu"] is None
    assert work([], device="NVIDIA H100 80GB HBM3", processes=1)["mfu"] is None


def test_a_curve_is_of_means_by_targets():
    split = {"skipped": {"loss": 5.0, "targets": 1}, "unskipped": {"loss": 1.0, "targets": 3}}
    distances = [{"from": 4, "loss": 1.0, "targets": 3}, {"from": 1024, "loss": 5.0, "targets": 1}]
    steps = [
        measured(n, 1.0 + n % 2, targets=1 + 2 * (n % 2), losses=split | {"distances": distances}) for n in range(1, 41)
    ]
    found = curve(steps)
    assert [part["steps"] for part in found] == [[4 * n + 1, 4 * n + 4] for n in range(10)]
    assert found[0]["loss"] == pytest.approx((2 * 3 + 1 * 1) / 4)
    assert (found[0]["skipped"], found[0]["unskipped"]) == (5.0, 1.0)
    assert found[0]["distances"] == [
        {"from": 4, "loss": 1.0, "targets": 12},
        {"from": 1024, "loss": 5.0, "targets": 4},
    ]
    assert curve([measured(1, None, targets=0)])[0]["loss"] is None


def test_short_figures_stand_beside_long_ones():
    lines = [
        beside(evaluation(0, texts=3.0, n512=1.0, n2048=0.5, n16384=0.0)),
        beside(evaluation(9, texts=3.5, n512=0.75, n2048=0.5, n16384=1.0)),
    ]
    assert lines[1]["texts"] == {1024: 3.5, 4096: 4.5}
    assert (lines[1]["recall_short"], lines[1]["recall_long"]) == (0.625, 1.0)
    said = " ".join(changes(lines))
    assert "windows of 1,024): 3.0000 at step 0, 3.5000 at step 9 (+0.5000)" in said
    assert "up to 2,048: 0.750 at step 0, 0.625 at step 9 (-0.125)" in said
    assert "above 2,048: 0.000 at step 0, 1.000 at step 9 (+1.000)" in said
    assert "not measured" not in said
    alone = [beside(evaluation(9, n16384=1.0))]
    assert "Short context was not measured" in " ".join(changes(alone))
    assert changes([]) == []


def test_evaluations_are_a_table_with_short_and_long_named(config_of: Build, tmp_path: Path):
    run(config_of())
    report = json.loads((tmp_path / "run" / "report.json").read_bytes())
    tasks = {
        "qasper": {"lengths": {"0-4k": {"score": 10.0, "count": 3}, "8k+": {"score": 50.0, "count": 1}}},
        "lcc": {"lengths": {"0-4k": {"score": 30.0, "count": 1}}},
    }
    longbench = {"score": 27.5, "tasks": tasks}
    lines = [
        beside(evaluation(0, texts=3.0)),
        beside(evaluation(9, n512=0.75, n16384=1.0) | {"longbench": longbench}),
    ]
    assert lines[1]["longbench"] == {"all": 27.5, "0-4k": 15.0, "8k+": 50.0}
    text = to_markdown(report | {"evaluations": lines, "changes": []}, [])
    heads = "| step | loss on texts, windows of 1,024 | loss on texts, windows of 4,096 | recall at 512 (short) "
    heads += "| recall at 16,384 (long) | "
    assert heads + "LongBench, 0-4k words | LongBench, 8k+ words | LongBench, all |" in text
    assert "| 0 | 3.0000 | 4.0000 |  |  |  |  |  |" in text
    assert "| 9 |  |  | 0.750 | 1.000 | 15.00 | 50.00 | 27.50 |" in text


@pytest.mark.parametrize("installed", [True, False])
def test_the_picture_has_a_panel_for_everything_there_is(tmp_path: Path, monkeypatch: Any, installed: bool):
    steps = [measured(n) for n in range(1, 31)]
    lines = [beside(evaluation(n, texts=3.0, n512=0.5)) for n in (0, 30)]
    if installed:
        place, why = pictures.draw(steps, lines, tmp_path / "report.png")
        assert place is not None
        assert place.read_bytes().startswith(b"\x89PNG")
        assert why == ""
        return
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    place, why = pictures.draw(steps, lines, tmp_path / "report.png")
    assert "matplotlib is not installed" in why
    assert place == tmp_path / "report.vl.json"
    found = json.loads(place.read_bytes())["hconcat"]
    assert [panel["title"] for panel in found] == ["Loss by step", "Loss on texts", "Recall of needles"]
    assert {value["series"] for value in found[1]["data"]["values"]} == {"windows of 1,024", "windows of 4,096"}
    assert len(found[0]["data"]["values"]) == 30


def test_a_few_steps_make_no_picture(tmp_path: Path):
    assert pictures.draw([measured(n) for n in range(1, 10)], [], tmp_path / "report.png") == (None, "")
    assert not list(tmp_path.iterdir())


def test_no_secret_is_shown(config_of: Build):
    source = "https://user:word@host:8/v1/datasets/d?token=x#y"
    found = shown(parse_config(config_of(data={"source": source, "key": "k"})))
    assert found["data"]["source"] == "https://host:8/v1/datasets/d"
    assert "key" not in found["data"]
    assert found["data"]["shuffle_seed"] == 3
    assert without_credentials("s3://bucket/a/b") == "s3://bucket/a/b"
    assert without_credentials("some/folder") == "some/folder"


def test_memory_is_counted_or_said_not_to_be(tmp_path: Path, monkeypatch: Any):
    import torch

    size, by = peak_memory(torch.device("cpu"))
    assert size > 2**20
    monkeypatch.setattr("training.report.surroundings.STATUS", tmp_path / "none")
    assert peak_memory(torch.device("cpu")) == (0, "not counted on this system")
    assert by == "VmHWM"


def test_rows_without_jumps_have_no_skipped_loss(config_of: Build, tmp_path: Path):
    from tests.training.conftest import CIP

    folder = write_dataset(tmp_path / "plain", [token_rows(20, positions=False)], schema=CIP)
    run(config_of(data={"source": str(folder)}))
    report = json.loads((tmp_path / "run" / "report.json").read_bytes())
    assert all(stretch["skipped"] is None for stretch in report["curve"])
    assert all(stretch["unskipped"] == pytest.approx(stretch["loss"], rel=1e-5) for stretch in report["curve"])
