"""A report as Markdown: tables, the sentences that matter, the config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from training.report.figures import SHORT

NO_MAPS: Mapping[int, str] = {}


def to_markdown(report: Mapping[str, Any], pictures: Sequence[str], heat_maps: Mapping[int, str] = NO_MAPS) -> str:
    """The whole report; `pictures` are file names beside it, `heat_maps` those of the first and the last evaluation by
    step, which stand side by side where there are two."""
    data = report["data"]
    state = "complete" if report["step"] == report["of"] else "under way or cut"
    parts = [
        f"# Run on {data['name'] or data['kind']}: step {report['step']:,} of {report['of']:,} ({state})",
        *report["changes"],
        _pictures(pictures, heat_maps),
        "## Data and model",
        _table(("what", "which"), _data(report)),
        "## Work",
        _table(("steps", "device", "processes", "tokens", "tokens/s", "MFU", "peak memory"), _sessions(report)),
        _notes(report),
        "## Loss",
        _table(("steps", "loss", "unskipped", "skipped", "lr at the end"), _curve(report)),
        *_distances(report["curve"]),
        *_evaluations(report["evaluations"]),
        "## Config",
        f"```yaml\n{yaml.safe_dump(report['config'], sort_keys=False, allow_unicode=True)}```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _pictures(pictures: Sequence[str], heat_maps: Mapping[int, str]) -> str:
    pair = len(heat_maps) > 1
    shown = [name for name in pictures if name.endswith(".png") and not (pair and name == "needles.png")]
    single = "\n".join(f"![{name}]({name})" for name in shown)
    if not pair:
        return single
    heads = [f"needles at step {step:,}" for step in heat_maps]
    beside = _table(heads, [[f"![step {step:,}]({place})" for step, place in heat_maps.items()]])
    return f"{single}\n\n{beside}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _number(value: float | None, form: str = ".4f") -> str:
    return "" if value is None else format(value, form)


def _data(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    data, tokenizer = report["data"], report["data"]["tokenizer"]
    return [
        ("data", f"{data['name'] or 'unnamed'} ({data['kind']}), {data['source']}, split {data['split']}"),
        ("rows in the split", f"{data['rows_in_split']:,}"),
        ("sha256 of the manifest", data["manifest_sha256"]),
        ("fingerprint", data["fingerprint"]),
        ("tokenizer of the data", f"{tokenizer.get('name')}, sha256 {tokenizer.get('sha256')}"),
        ("model", report["model"]),
        ("seeds", ", ".join(f"{name}: {value}" for name, value in report["seeds"].items())),
        ("tokens trained on", f"{report['tokens']:,}, {report['targets']:,} of them targets"),
        ("versions", ", ".join(f"{name} {text}" for name, text in report["sessions"][-1]["versions"].items())),
    ]


def _sessions(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            f"{session['steps'][0]:,} to {session['steps'][1]:,}" if session["steps"] else "none",
            session["device"],
            str(session["processes"]),
            f"{session['tokens']:,}",
            _number(session["tokens_per_second"], ",.0f"),
            "unknown device: no MFU" if session["peak_flops"] is None else _number(session["mfu"], ".1%"),
            f"{session['peak_memory']['bytes'] / 2**30:.2f} GiB",
        )
        for session in report["sessions"]
    ]


def _notes(report: Mapping[str, Any]) -> str:
    last = report["sessions"][-1]
    return (
        f"Tokens are real ones: nothing is padded. Tokens/s and MFU are of the median step, evaluations and checkpoints left out. MFU: "
        f"{last['convention']}. Peak memory: {last['peak_memory']['counted_by']} of {last['peak_memory']['of']}."
    )


def _curve(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            f"{part['steps'][0]:,} to {part['steps'][1]:,}",
            _number(part["loss"]),
            _number(part["unskipped"]),
            _number(part["skipped"]),
            _number(part["lr"], ".3g"),
        )
        for part in report["curve"]
    ]


def _distances(curve: Sequence[Mapping[str, Any]]) -> list[str]:
    """Loss by distance, of the first stretch and the last."""
    if not curve:
        return []
    first, last = ({part["from"]: part for part in stretch["distances"]} for stretch in (curve[0], curve[-1]))
    rows = [
        (
            f"{start:,} to {2 * start - 1:,}",
            *(_number(found[start]["loss"]) if start in found else "" for found in (first, last)),
            f"{last[start]['targets']:,}" if start in last else "0",
        )
        for start in sorted({*first, *last})
    ]
    steps = [f"steps {stretch['steps'][0]:,} to {stretch['steps'][1]:,}" for stretch in (curve[0], curve[-1])]
    return ["## Loss by distance from the sequence's first token", _table(("positions", *steps, "targets"), rows)]


def _evaluations(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The short figures beside the long ones, a line an evaluation."""
    if not lines:
        return []
    windows = sorted({window for line in lines for window in line["texts"]})
    lengths = sorted({length for line in lines for length in line["recall"]})
    parts = sorted({name for line in lines for name in line["longbench"]})
    heads = ["step", *(f"loss on texts, windows of {window:,}" for window in windows)]
    heads += [f"recall at {length:,} ({'short' if length <= SHORT else 'long'})" for length in lengths]
    heads += [f"LongBench, {name}{'' if name == 'all' else ' words'}" for name in parts]
    rows = [
        (
            f"{line['step']:,}",
            *(_number(line["texts"].get(window)) for window in windows),
            *(_number(line["recall"].get(length), ".3f") for length in lengths),
            *(_number(line["longbench"].get(name), ".2f") for name in parts),
        )
        for line in lines
    ]
    return ["## Evaluations", _table(heads, rows)]
