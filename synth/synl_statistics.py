"""What is counted while SynL rows are built: lengths, tables, where evidence lies, and questions by task, format, locale and family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from packing.dataset.charts import SCHEMA
from packing.dataset.statistics import Histogram, even_edges, powers_of_two
from packing.plan import Tally
from synth.synl_spec import Span, Spec
from synth.tables.fit import Fitted
from synth.tables.tasks.catalogue import TASKS
from synth.tables.wording import NOT_IN_TABLE


def count_rows(spec: Spec, records: Sequence[Mapping[str, Any]], fitted: Sequence[Fitted], tally: Tally) -> None:
    """Count some rows, each with the conversation that it was made of."""
    longest = spec.length.max if isinstance(spec.length, Span) else max(spec.length)
    counts: Counter[str] = Counter()
    for record, found in zip(records, fitted, strict=True):
        counts.update([f"{name}_{record[name]}" for name in ("split", "format", "locale")])
        counts["questions"] += len(record["answers"])
        _count_questions(record, found, counts)
    for name, count in counts.items():
        tally.count(name, count)
    tally.histogram("row_tokens", Histogram(powers_of_two(longest))).add([record["n_tokens"] for record in records])
    tally.histogram("table_rows", Histogram(powers_of_two(65536))).add([found.table_rows for found in fitted])
    tally.histogram("turns", Histogram(list(range(1, 66)))).add([len(record["answers"]) for record in records])
    depths = [
        found.conversation.evidence[:, 1] * 100 // len(record["messages"][0]["content"])
        for record, found in zip(records, fitted, strict=True)
    ]
    tally.histogram("evidence_depth_percent", Histogram(even_edges(99, 20))).add(np.concatenate(depths))


def _count_questions(record: Mapping[str, Any], found: Fitted, counts: Counter[str]) -> None:
    """Count the questions of one row."""
    absent = NOT_IN_TABLE[found.outline.language]
    responses = record["messages"][1::2]
    for (task, _), answer, response in zip(found.outline.turns, record["answers"], responses, strict=True):
        counts[f"task_{task.name}"] += 1
        counts[f"family_{task.family}"] += 1
        counts["questions_unanswerable"] += answer == absent
        counts["questions_with_steps"] += response["content"] != answer


def charts(tally: Tally) -> dict[str, Any]:
    """A bar chart of questions by task and family."""
    values = [
        {"task": name, "family": task.family, "questions": tally.counts.get(f"task_{name}", 0)}
        for name, task in TASKS.items()
    ]
    return {
        "questions_by_task": {
            "$schema": SCHEMA,
            "title": "questions by task",
            "width": 480,
            "height": 240,
            "data": {"values": values},
            "mark": {"type": "bar", "tooltip": True},
            "encoding": {
                "y": {"field": "task", "type": "nominal", "sort": None, "title": None},
                "x": {"field": "questions", "type": "quantitative"},
                "color": {"field": "family", "type": "nominal"},
            },
        }
    }
