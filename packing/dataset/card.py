"""The dataset card: what a dataset is, how it was made, how to read it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

WORD = re.compile(r"[A-Za-z][A-Za-z0-9.+-]*")
YAML_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


def card(
    title: str,
    spec: Mapping[str, Any],
    *,
    statistics: Mapping[str, Any],
    schema: pa.Schema,
    splits: Sequence[str],
    warnings: Sequence[str],
) -> str:
    """README.md of a dataset, with the front matter that dataset hubs read. It says nothing of time or place."""
    counts = statistics["counts"]
    front = [
        "---",
        f"license: {_scalar(spec.get('license') or 'unknown')}",
        "configs:",
        "- config_name: default",
        "  data_files:",
    ]
    front += [f"  - split: {split}\n    path: data/{split}-*.parquet" for split in splits]
    parts = [
        "\n".join([*front, "---"]),
        f"# {_plain(title)}",
        f"A dataset of kind `{spec['kind']}` made by Longweave: {counts['rows']:,} rows, {counts['tokens']:,} tokens in "
        f"{counts['files']} files. The same spec on the same inputs gives the same bytes.",
        "## Columns\n\n| column | type |\n|---|---|\n" + "\n".join(f"| `{f.name}` | `{f.type}` |" for f in schema),
        "## Counts\n\n| what | number |\n|---|---|\n"
        + "\n".join(f"| {k} | {v:,} |" for k, v in sorted(counts.items())),
        _histograms(statistics["histograms"]),
        "## Warnings\n\n" + "\n".join(f"- {w}" for w in warnings) if warnings else "",
        "## Reading it\n\n```python\nfrom datasets import load_dataset\n\n"
        'rows = load_dataset("parquet", data_files="data/*.parquet")\n```\n\n'
        "polars, pyarrow and DuckDB read the same files. Trainers that infer document borders from position ids must be given "
        "`seq_lengths` instead: positions may jump inside a sequence on purpose.",
        "## Spec\n\n```json\n" + json.dumps(spec, indent=1, sort_keys=True, ensure_ascii=False) + "\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _histograms(histograms: Mapping[str, Any]) -> str:
    if not histograms:
        return ""
    rows = [
        f"| {name} | {h['min']:,} | {h['mean']:,.1f} | {h['max']:,} | {h['total']:,} |"
        for name, h in sorted(histograms.items())
        if h["total"]
    ]
    shown = "\n\nEach is a histogram in `statistics.json` and a Vega-Lite chart in `charts/`."
    return (
        "## Distributions\n\n| what | least | mean | largest | of |\n|---|---|---|---|---|\n" + "\n".join(rows) + shown
    )


def _scalar(text: str) -> str:
    """A text as one YAML scalar: as it is where it is a plain word, such as Apache-2.0, else as JSON would write it."""
    plain = WORD.fullmatch(text) and text.lower() not in YAML_WORDS
    return text if plain else json.dumps(text)


def _plain(text: str) -> str:
    """One line without Markdown or HTML of the user's."""
    return "".join(c for c in " ".join(text.split()) if c not in "<>[]`#|\\")
