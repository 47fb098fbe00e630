"""The figures of a report, computed from what a run has left: its metrics line by line, and its evaluations."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.flops import CONVENTION, peak_flops

SHORT = 2048
"""Tokens up to which a probe counts as short: what a model could do before it was made long."""
TENTHS = 10

Metrics = Sequence[Mapping[str, Any]]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics.jsonl."""
    if not path.is_file():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def work(metrics: Metrics, *, device: str, processes: int) -> dict[str, Any]:
    """Speed of some steps: the median step's tokens a second, and MFU where the device's peak is known."""
    seconds = [m["tokens"] / m["tokens_per_second"] for m in metrics if m["tokens_per_second"] > 0]
    rates = [m["tokens_per_second"] for m in metrics]
    flops = [m["flops"] * m["tokens_per_second"] / m["tokens"] for m in metrics if m["tokens"] and "flops" in m]
    peak = peak_flops(device)
    return {
        "tokens": sum(m["tokens"] for m in metrics),
        "targets": sum(m["targets"] for m in metrics),
        "seconds_in_steps": sum(seconds),
        "tokens_per_second": statistics.median(rates) if rates else None,
        "mfu": statistics.median(flops) / (peak * processes) if flops and peak else None,
        "peak_flops": peak,
        "convention": CONVENTION,
    }


def curve(metrics: Metrics) -> list[dict[str, Any]]:
    """The run in up to ten stretches of steps: mean loss by targets, in all and by skips, and the learning rate at the end."""
    parts = [metrics[len(metrics) * n // TENTHS : len(metrics) * (n + 1) // TENTHS] for n in range(TENTHS)]
    return [
        {
            "steps": [part[0]["step"], part[-1]["step"]],
            "loss": mean([(m["loss"], m["targets"]) for m in part if m["loss"] is not None]),
            "lr": part[-1]["lr"],
            **{name: mean(_pairs(part, name)) for name in ("unskipped", "skipped")},
            "distances": by_distance(part),
        }
        for part in parts
        if part
    ]


def mean(pairs: Sequence[tuple[float, int]]) -> float | None:
    """The mean of losses by their targets; None without any."""
    targets = sum(count for _, count in pairs)
    return sum(loss * count for loss, count in pairs) / targets if targets else None


def _pairs(metrics: Metrics, name: str) -> list[tuple[float, int]]:
    found = [m.get("losses", {}).get(name) for m in metrics]
    return [(part["loss"], part["targets"]) for part in found if part is not None]


def by_distance(metrics: Metrics) -> list[dict[str, Any]]:
    """Mean loss and targets of some steps in every bucket of distances."""
    buckets: dict[int, list[tuple[float, int]]] = {}
    for measured in metrics:
        for part in measured.get("losses", {}).get("distances", ()):
            buckets.setdefault(part["from"], []).append((part["loss"], part["targets"]))
    return [
        {"from": start, "loss": mean(pairs), "targets": sum(count for _, count in pairs)}
        for start, pairs in sorted(buckets.items())
    ]


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """The whole evaluations in a folder by step: what each measured."""
    found: list[dict[str, Any]] = []
    for place in sorted(folder.glob("step-*")):
        if (place / "done.json").is_file():
            parts = {name: place / f"{name}.json" for name in ("texts", "needles", "longbench")}
            values = {name: json.loads(path.read_bytes()) for name, path in parts.items() if path.is_file()}
            found.append({"step": int(place.name.removeprefix("step-"))} | values)
    return found


def beside(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation as one line: losses on texts by window, recall by length, short and long ones apart, and LongBench's
    score by its rows' lengths."""
    texts, needles = evaluation.get("texts"), evaluation.get("needles")
    lengths = {cell["length"]: cell["recall"] for cell in needles["lengths"]} if needles else {}
    counts = {cell["length"]: cell["count"] for cell in needles["lengths"]} if needles else {}
    return {
        "step": evaluation["step"],
        "texts": {part["window"]: part["loss"] for part in (texts, *texts.get("longer_windows", ()))} if texts else {},
        "recall": lengths,
        "recall_short": mean([(recall, counts[n]) for n, recall in lengths.items() if n <= SHORT]),
        "recall_long": mean([(recall, counts[n]) for n, recall in lengths.items() if n > SHORT]),
        "longbench": longbench(evaluation.get("longbench")),
    }


def longbench(measured: Mapping[str, Any] | None) -> dict[str, float]:
    """LongBench's mean over the tasks as `all`, and the means over the rows of each range of lengths."""
    if measured is None:
        return {}
    ranges: dict[str, list[tuple[float, int]]] = {}
    for task in measured["tasks"].values():
        for name, part in task["lengths"].items():
            ranges.setdefault(name, []).append((part["score"], part["count"]))
    found = {name: mean(ranges[name]) for name in sorted(ranges)}
    return {"all": measured["score"]} | {name: score for name, score in found.items() if score is not None}


def changes(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the last evaluation has and the first had not, in sentences; and what was not measured beside the long."""
    if not lines:
        return []
    first, last = lines[0], lines[-1]
    found = [
        f"Loss on texts (windows of {window:,}): {first['texts'][window]:.4f} at step {first['step']}, {loss:.4f} at step "
        f"{last['step']} ({loss - first['texts'][window]:+.4f})."
        for window, loss in last["texts"].items()
        if len(lines) > 1 and window in first["texts"]
    ]
    for name, words in (("recall_short", f"up to {SHORT:,}"), ("recall_long", f"above {SHORT:,}")):
        if len(lines) > 1 and first[name] is not None and last[name] is not None:
            found.append(
                f"Recall at lengths {words}: {first[name]:.3f} at step {first['step']}, {last[name]:.3f} at step "
                f"{last['step']} ({last[name] - first[name]:+.3f})."
            )
    if last["recall_long"] is not None and last["recall_short"] is None and not last["texts"]:
        found.append(
            f"Short context was not measured: neither evaluate.texts nor a probe of at most {SHORT:,} tokens. Long context "
            "can be bought with it, unseen."
        )
    return found
