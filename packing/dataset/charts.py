"""Histograms as Vega-Lite specs: pictures that need no library here and open in any Vega viewer."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


def histogram_chart(name: str, histogram: Mapping[str, Any]) -> dict[str, Any]:
    """A Vega-Lite spec of a histogram as `Histogram.to_json` gives it; its bins lie inside, so that the file stands alone."""
    edges = histogram["edges"]
    bins = [
        {"from": low, "to": high, "count": count}
        for low, high, count in zip(edges[:-1], edges[1:], histogram["counts"], strict=True)
    ]
    title = name.replace("_", " ")
    doubling = len(edges) > 3 and all(b == 2 * a for a, b in pairwise(edges[1:]))
    scale = {"type": "symlog"} if doubling else {"type": "linear", "nice": False}
    axis = {"format": "~s", "labelOverlap": True}
    return {
        "$schema": SCHEMA,
        "title": {"text": title, "subtitle": _summary(histogram)},
        "width": 480,
        "height": 200,
        "data": {"values": bins},
        "mark": {"type": "bar", "binSpacing": 1, "tooltip": True},
        "encoding": {
            "x": {
                "field": "from",
                "type": "quantitative",
                "bin": {"binned": True},
                "title": title,
                "scale": scale,
                "axis": axis,
            },
            "x2": {"field": "to"},
            "y": {"field": "count", "type": "quantitative", "title": "count"},
        },
    }


def _summary(histogram: Mapping[str, Any]) -> str:
    if not histogram["total"]:
        return "nothing was counted"
    return f"{histogram['total']:,} values, {histogram['min']:,} to {histogram['max']:,}, mean {histogram['mean']:,.1f}"
