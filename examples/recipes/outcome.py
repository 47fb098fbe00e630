"""What came of a recipe's runs: a table of losses, one of recall and loss on short texts before and after, heat maps side by
side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from synth.needles.pictures import write_heat_map
from training.report.figures import SHORT, beside

Run = dict[str, Any]


def write_outcome(out: Path, runs: Sequence[Run]) -> str:
    """Write runs.md, runs.json and needles.png (Vega-Lite without matplotlib) of runs in their order; returns the tables.

    A run: its name as `run`, steps, tokens, loss ([first, last]), checkpoint, and evaluations as
    training.report.figures.evaluations reads them.
    """
    measured = list(_measured(runs))
    cells = [
        cell | {"task": f"{cell['task']} {number}: {name}"}
        for number, (name, evaluation) in enumerate(measured)
        for cell in evaluation["needles"]["cells"]
    ]
    picture, why = write_heat_map(cells, out / "needles.png")
    lines = [{"model": name, **beside(evaluation)} for name, evaluation in measured]
    plain = [{name: value for name, value in run.items() if name != "evaluations"} for run in runs]
    (out / "runs.json").write_text(json.dumps({"runs": plain, "measured": lines}, indent=1) + "\n", encoding="utf-8")
    tables = f"{_losses(runs)}\n\n{_before_and_after(lines)}"
    shown = f"![needles before and after]({picture.name})" if not why else f"{picture.name}: {why}"
    (out / "runs.md").write_text(f"{tables}\n\n{shown}\n", encoding="utf-8")
    return tables


def _measured(runs: Sequence[Run]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The evaluations in the order they stand for: before anything, then after each run."""
    for run in runs:
        for evaluation in run["evaluations"]:
            yield ("before" if evaluation["step"] == 0 else run["run"]), evaluation


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *rest])


def _losses(runs: Sequence[Run]) -> str:
    head = ("run", "steps", "tokens", "loss, first step", "last step", "checkpoint")
    rows = [
        (
            run["run"],
            str(run["steps"]),
            f"{run['tokens']:,}",
            *(f"{loss:.4f}" for loss in run["loss"]),
            run["checkpoint"],
        )
        for run in runs
    ]
    return _table([head, *rows])


def _before_and_after(lines: Sequence[dict[str, Any]]) -> str:
    """The short figures beside the long ones, a line a model."""
    windows, lengths = list(lines[0]["texts"]), list(lines[0]["recall"])
    head = ["model", *(f"loss on short texts, windows of {window:,}" for window in windows)]
    head += [f"recall at {length:,} ({'short' if length <= SHORT else 'long'})" for length in lengths]
    rows = [
        (
            line["model"],
            *(f"{line['texts'][window]:.4f}" for window in windows),
            *(f"{line['recall'][length]:.3f}" for length in lengths),
        )
        for line in lines
    ]
    return _table([head, *rows])
