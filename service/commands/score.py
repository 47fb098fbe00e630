"""`longweave score DATASET PREDICTIONS`: recall by task, length and depth, without a judge."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packing.dataset.errors import InputError
from service.datasets import KEY_COLUMNS, dataset_rows, key_of, open_dataset
from synth.needles.pictures import write_heat_map
from synth.needles.scoring import LONGEST_LINE, Prediction, PredictionError, Report, evaluate, read_predictions

PICTURES = (".png", ".svg", ".pdf", ".json", "")
"""How the names of heat maps may end; without an end matplotlib adds .png."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("dataset", type=Path, help="the dataset's directory")
    parser.add_argument(
        "predictions", type=Path, help="JSON lines {id, prediction}, RULER's prediction file, or a folder of such files"
    )
    plot_argument(parser)
    parser.add_argument(
        "--without-thinking", action="store_true", help="score what stands behind </think> only; all of it otherwise"
    )


def plot_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --plot."""
    parser.add_argument(
        "--plot",
        type=_picture,
        help="draw the heat map here: .png, .svg or .pdf, or Vega-Lite for a name that ends with .json",
    )


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in PICTURES or not path.name:
        message = f"{text!r} is no name of a picture: one ends with {', '.join(filter(None, PICTURES))}"
        raise argparse.ArgumentTypeError(message)
    return path


def run(options: argparse.Namespace) -> int:
    """Score, print the table, draw."""
    report = score_file(options.dataset, options.predictions, without_thinking=options.without_thinking)
    show(report, as_json=options.json, plot=options.plot)
    return 0


def score_file(folder: Path, path: Path, *, without_thinking: bool = False) -> Report:
    """Score the predictions in a file; raises InputError naming file and line for what cannot be used."""
    manifest = open_dataset(folder, kinds=["needle"])
    found: list[tuple[Path, list[Prediction]]] = []
    for file in _files(path):
        try:
            found.append((file, read_predictions(_lines(file))))
        except PredictionError as error:
            raise InputError(f"{file}, {error}", param=str(file)) from error
        except OSError as error:
            raise InputError(f"{file} cannot be read ({error.strerror})", param=str(file)) from error
    predictions = [prediction for _, some in found for prediction in some]
    nameless = any(not prediction.id for prediction in predictions)
    by_input = {r["input"]: r["id"] for r in dataset_rows(folder, manifest, ("id", "input"))} if nameless else None
    keys = [key_of(row) for row in dataset_rows(folder, manifest, KEY_COLUMNS)]
    try:
        return evaluate(keys, predictions, by_input=by_input, without_thinking=without_thinking)
    except PredictionError as error:
        raise InputError(f"{path}, {error}", param=str(path)) from error


def _files(path: Path) -> Sequence[Path]:
    """The file itself, or the JSONL files of a folder by name."""
    if not path.is_dir():
        return [path]
    files = sorted(path.rglob("*.jsonl"))
    if not files:
        raise InputError(f"{path} holds no .jsonl files", param=str(path))
    return files


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of a file; one that is too long is cut just behind the limit, where it is refused."""
    with path.open("rb") as stream:
        while line := stream.readline(LONGEST_LINE + 1):
            yield line


def show(report: Report, *, as_json: bool, plot: Path | None) -> None:
    """Print a report and draw its heat map where one is wanted."""
    value = report.to_json()
    drawn, why = write_heat_map(value["cells"], plot) if plot is not None and value["cells"] else (None, "")
    if as_json:
        print(json.dumps({**value, "plot": str(drawn) if drawn else None}))
        return
    print("\n".join(table(value)))
    for name in ("missing", "duplicates"):
        if value[name]["count"]:
            more = ", …" if value[name]["count"] > len(value[name]["first"]) else ""
            print(f"{name}: {value[name]['count']:,} ({', '.join(value[name]['first'])}{more})")
    if why:
        print(why)
    if drawn:
        print(f"heat map: {drawn}")


def table(value: dict[str, Any]) -> list[str]:
    """Recall by task and length as lines: the mean of all depths, with its interval; then what went wrong."""
    tasks = value["tasks"]
    width = max([len("task"), *(len(cell["task"]) for cell in tasks)])
    lines = [f"{'task':<{width}}  {'length':>9}  {'count':>6}  recall  95% interval"]
    lines += [
        f"{cell['task']:<{width}}  {cell['length']:>9,}  {cell['count']:>6,}  {100 * cell['recall']:>5.1f}%  "
        f"{100 * cell['low']:.1f}% to {100 * cell['high']:.1f}%"
        for cell in tasks
    ]
    for task, errors in value["errors"].items():
        lines.append(f"{task}: " + ", ".join(f"{count} {name}" for name, count in errors.items()))
    return lines
