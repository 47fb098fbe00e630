"""The heat map of recall by length and depth, as Vega-Lite: one panel a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
NO_DEPTH = "any"
"""What stands for the depth of tasks that have none."""
RED, YELLOW, GREEN = "#c0392b", "#f4d35e", "#2e8b57"


def heat_map(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A Vega-Lite spec of the cells of a report (synth.needles.scoring.Report.to_json); its values lie inside."""
    values = [
        {**cell, "depth": NO_DEPTH if cell["depth"] is None else f"{cell['depth']:g}", "length": str(cell["length"])}
        for cell in cells
    ]
    return {
        "$schema": SCHEMA,
        "title": "Recall by length and depth",
        "data": {"values": values},
        "mark": {"type": "rect", "tooltip": True},
        "encoding": {
            "facet": {"field": "task", "type": "nominal", "columns": 3, "title": None},
            "x": {"field": "length", "type": "ordinal", "title": "length (tokens)", "sort": _sorted(values, "length")},
            "y": {"field": "depth", "type": "ordinal", "title": "depth (%)", "sort": _sorted(values, "depth")},
            "color": {
                "field": "recall",
                "type": "quantitative",
                "scale": {"domain": [0, 0.5, 1], "range": [RED, YELLOW, GREEN]},
            },
        },
        "resolve": {"scale": {"x": "shared", "y": "independent"}},
    }


def _sorted(values: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """The values of a field in the order of their numbers."""
    return sorted({value[name] for value in values}, key=lambda text: -1.0 if text == NO_DEPTH else float(text))
