"""Evaluation by several ranks, over gloo: the answers and losses of one process, each question asked once."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.training.evaluation.conftest import probe
from tests.training.test_parallel import alone, end, start, written

pytestmark = pytest.mark.slow


def test_two_ranks_evaluate_as_one_process(
    config_of: Callable[..., dict[str, Any]], model_folder: Path, needles_of: Any, tmp_path: Path
):
    """With weights spread, and beside rows over both ranks with layers computed again; on batches and windows of uneven
    number and length; and nobody waits for ever."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("It was short, and it was told. " * 9)
    rows = [probe(n, filler=2 + 9 * (n % 3), answer_budget=[1, 7, 4][n % 3]) for n in range(7)]
    value = config_of(
        model={"preset": None, "path": str(model_folder)},
        steps=4,
        evaluate={
            "needles": str(needles_of(rows)),
            "texts": str(folder),
            "window": 64,
            "stride": 32,
            "batch_tokens": 700,
            "prefill": 50,
        },
    )
    alone(written(tmp_path, "alone", value))
    thrifty = value | {"parallel": {"sequence": 2}, "model": value["model"] | {"checkpointing": True}}
    jobs = [(2, written(tmp_path, "two", value)), (2, written(tmp_path, "shared", thrifty))]
    assert end(start(*jobs)) == ([0] * 4, [])
    for step, other in product((0, 4), ("two", "shared")):
        places = [tmp_path / name / "evaluations" / f"step-{step:08d}" for name in ("alone", other)]
        assert [sorted(path.name for path in place.iterdir()) for place in places][1] == sorted(
            ["answers.jsonl", "done.json", "needles.json", "needles.png", "settings.json", "texts.json"]
        )
        lines = [sorted((place / "answers.jsonl").read_text().splitlines()) for place in places]
        assert lines[0] == lines[1]
        assert len({json.loads(line)["prediction"] for line in lines[0]}) > 3
        texts = [json.loads((place / "texts.json").read_bytes()) for place in places]
        assert texts[0]["tokens"] == texts[1]["tokens"]
        assert texts[1]["loss"] == pytest.approx(texts[0]["loss"], abs=0 if step == 0 else 1e-6, rel=0)
    reports = [json.loads((tmp_path / name / "report.json").read_bytes()) for name in ("alone", "two")]
    assert [report["sessions"][0]["processes"] for report in reports] == [1, 2]
    assert reports[0]["evaluations"][0] == reports[1]["evaluations"][0]
    assert reports[0]["tokens"] == reports[1]["tokens"]
