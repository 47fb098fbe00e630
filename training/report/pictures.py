"""A report's picture: loss by step and by distance, and the evaluations. PNG where matplotlib is installed, else Vega-Lite.

matplotlib is none of the five packages the worker needs; what it draws better than we would is worth an extra, not a must.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from training.report.figures import SHORT, TENTHS, by_distance

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
BLUE, RED, GREY, GREEN = "#2c6fbb", "#c0392b", "#9aa0a6", "#2e8b57"

FEWEST = 10
"""Steps from which on there is a curve to see, where nothing was evaluated."""

Lines = Sequence[Mapping[str, Any]]
Panel = tuple[str, str, str, dict[str, list[tuple[float, float]]]]
"""Title, names of the axes, and points (x, y) by series."""


def draw(metrics: Lines, evaluations: Lines, path: Path) -> tuple[Path | None, str]:
    """Draw what there is to see; returns where the picture is and, where it is no PNG, why. Under ten steps without an
    evaluation make none."""
    if len(metrics) < FEWEST and not evaluations:
        return None, ""
    panels = [panel for panel in _panels(metrics, evaluations) if any(panel[3].values())]
    if find_spec("matplotlib") is None:
        place = path.with_suffix(".vl.json")
        place.write_text(json.dumps(_vega(panels), indent=1) + "\n", encoding="utf-8")
        return place, "matplotlib is not installed (pip install 'longweave[plots]'): the report's picture is Vega-Lite"
    _png(panels, path)
    return path, ""


def _panels(metrics: Lines, evaluations: Lines) -> list[Panel]:
    steps: dict[str, list[tuple[float, float]]] = {"all targets": []}
    for measured in metrics:
        if measured["loss"] is not None:
            steps["all targets"].append((measured["step"], measured["loss"]))
        for name in ("unskipped", "skipped"):
            part = measured.get("losses", {}).get(name)
            if part is not None:
                steps.setdefault(name, []).append((measured["step"], part["loss"]))
    if "skipped" not in steps:
        steps.pop("unskipped", None)  # then it is all there is
    stretch = max(1, len(metrics) // TENTHS)
    distances = {
        name: [(part["from"], part["loss"]) for part in by_distance(part)]
        for name, part in (("first tenth", metrics[:stretch]), ("last tenth", metrics[-stretch:]))
    }
    windows = sorted({window for line in evaluations for window in line["texts"]})
    texts = {f"windows of {w:,}": [(e["step"], e["texts"][w]) for e in evaluations if w in e["texts"]] for w in windows}
    recall = {
        name: [(e["step"], e[key]) for e in evaluations if e[key] is not None]
        for key, name in (("recall_short", f"up to {SHORT:,} tokens"), ("recall_long", f"above {SHORT:,} tokens"))
    }
    return [
        ("Loss by step", "step", "nats", steps),
        ("Loss by distance from the sequence's start", "positions", "nats", distances),
        ("Loss on texts", "step", "nats", texts),
        ("Recall of needles", "step", "recall", recall),
    ]


def _png(panels: Sequence[Panel], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(4.4 * max(1, len(panels)), 3.4))
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for axis, (title, x, y, series) in zip(axes, panels, strict=False):
        colours = (GREY, BLUE, RED) if len(series) == 3 else (BLUE, RED, GREEN)
        for number, (name, points) in enumerate(series.items()):
            if points:
                axis.plot(
                    *zip(*points, strict=True),
                    label=name,
                    color=colours[number % 3],
                    marker=_marker(points),
                    linewidth=1.4,
                )
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(x, fontsize=8)
        axis.set_ylabel(y, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        if x == "positions":
            axis.set_xscale("log", base=2)
        if y == "recall":
            axis.set_ylim(-0.03, 1.03)
        axis.legend(fontsize=7)
    figure.subplots_adjust(left=0.2 / max(1, len(panels)), right=0.99, bottom=0.16, top=0.9, wspace=0.25)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _marker(points: Sequence[Any]) -> str:
    return "o" if len(points) <= 25 else ""


def _vega(panels: Sequence[Panel]) -> dict[str, Any]:
    return {"$schema": SCHEMA, "hconcat": [_vega_panel(panel) for panel in panels]}


def _vega_panel(panel: Panel) -> dict[str, Any]:
    title, x, y, series = panel
    scale = {"type": "log", "base": 2} if x == "positions" else {"zero": False}
    values = [{"x": a, "y": b, "series": name} for name, points in series.items() for a, b in points]
    return {
        "title": title,
        "data": {"values": values},
        "mark": {"type": "line", "tooltip": True, "point": len(values) <= 75},
        "encoding": {
            "x": {"field": "x", "type": "quantitative", "title": x, "scale": scale},
            "y": {"field": "y", "type": "quantitative", "title": y, "scale": {"zero": y == "recall"}},
            "color": {"field": "series", "type": "nominal", "title": None},
        },
    }
