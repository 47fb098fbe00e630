"""Heat maps as files: PNG where matplotlib is installed, Vega-Lite where it is not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from synth.needles.heatmap import GREEN, NO_DEPTH, RED, YELLOW, heat_map

COLUMNS = 4


def write_heat_map(cells: Sequence[Mapping[str, Any]], path: Path) -> tuple[Path, str]:
    """Draw the cells of a report; returns where the picture is and, where it is no PNG, why.

    A path that ends with .json asks for Vega-Lite.
    """
    if path.suffix == ".json":
        path.write_text(json.dumps(heat_map(cells), indent=1) + "\n", encoding="utf-8")
        return path, ""
    if find_spec("matplotlib") is None:
        place = path.with_suffix(".vl.json")
        place.write_text(json.dumps(heat_map(cells), indent=1) + "\n", encoding="utf-8")
        return place, "matplotlib is not installed (pip install 'longweave[plots]'): the heat map is Vega-Lite"
    _draw(cells, path)
    return path, ""


def _draw(cells: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One panel a task, lengths to the right, depths downwards, the recall in every cell."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    tasks = sorted({cell["task"] for cell in cells})
    columns = min(COLUMNS, max(1, len(tasks)))
    rows = -(-len(tasks) // columns)
    tall = 1.1 + 0.3 * max(1, *(len({c["depth"] for c in cells if c["task"] == task}) for task in tasks), 1)
    figure: Any = Figure(figsize=(1.2 + 3.0 * columns, 0.8 + tall * rows), layout="constrained")
    FigureCanvasAgg(figure)
    colours = LinearSegmentedColormap.from_list("recall", [RED, YELLOW, GREEN])
    panels: Any = figure.subplots(rows, columns, squeeze=False)
    drawn: Any = None
    for number, panel in enumerate(panels.ravel()):
        if number >= len(tasks):
            panel.set_axis_off()
            continue
        drawn = _panel(panel, tasks[number], [c for c in cells if c["task"] == tasks[number]], colours)
    figure.colorbar(drawn, ax=panels, label="recall", shrink=0.6)
    figure.savefig(path, dpi=140, metadata={"Software": None})


def _panel(panel: Any, task: str, cells: Sequence[Mapping[str, Any]], colours: Any) -> Any:
    lengths = sorted({cell["length"] for cell in cells})
    depths = sorted({cell["depth"] for cell in cells}, key=lambda depth: -1.0 if depth is None else depth)
    values = [[float("nan")] * len(lengths) for _ in depths]
    for cell in cells:
        values[depths.index(cell["depth"])][lengths.index(cell["length"])] = cell["recall"]
    drawn = panel.imshow(values, cmap=colours, vmin=0.0, vmax=1.0, aspect="auto")
    panel.set_title(task, fontsize=9)
    panel.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], fontsize=7, rotation=30)
    panel.set_yticks(range(len(depths)), [NO_DEPTH if d is None else f"{d:g}" for d in depths], fontsize=7)
    panel.set_ylabel("depth (%)", fontsize=7)
    panel.set_xlabel("length (tokens)", fontsize=7)
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            if value == value:
                panel.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=6)
    return drawn
