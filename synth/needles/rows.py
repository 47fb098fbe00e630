"""Probes as rows, and what every row must keep to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from synth.needles.fit import least_fill
from synth.needles.probes import Probe


def row_id(task: str, length: int, depth: float | None, repeat: int) -> str:
    """A probe's id: its place in the grid."""
    return f"{task}-{length}-{repeat}" if depth is None else f"{task}-{length}-{depth:g}-{repeat}"


def row(probe: Probe, split: str) -> dict[str, Any]:
    """A probe as a row (packing.dataset.schema.NEEDLE)."""
    cell, fitted, draft = probe.cell, probe.fitted, probe.draft
    outputs = [*draft.outputs, *fitted.more]
    return {
        "id": row_id(cell.task, cell.length, cell.depth, probe.repeat),
        "split": split,
        "task": cell.task,
        "length": cell.length,
        "depth": cell.depth,
        "locale": probe.locale,
        "input": fitted.input,
        "answer_prefix": draft.answer_prefix,
        "answer_budget": probe.budget,
        "outputs": outputs,
        "distractors": list(draft.others),
        "question_start": len(fitted.input) - len(draft.tail),
        "messages": [
            {"role": "user", "content": fitted.input},
            {"role": "assistant", "content": answer(probe, outputs)},
        ],
        "needles": [{"start": span.start, "end": span.end, "depth": span.depth} for span in fitted.needles],
        "n_tokens": fitted.n_tokens,
        "seed": probe.seed,
    }


def answer(probe: Probe, outputs: Sequence[str]) -> str:
    """The right answer as an assistant would say it: behind the answer prefix, in a sentence."""
    if probe.draft.say is not None:
        return probe.draft.say(outputs)
    prefix, chinese = probe.draft.answer_prefix.strip(), probe.locale == "zh_CN"
    listed = outputs[:1] if probe.task.startswith("qa_") else outputs
    text = ("、" if chinese else ", ").join(listed)
    return f"{prefix}{text}" if chinese else f"{prefix} {text}".strip()


def problem(batch: pa.RecordBatch, *, lengths: Sequence[int], tasks: Sequence[str], split: str) -> str:
    """What is wrong with the first row that breaks an invariant; empty where none does."""
    columns = [name for name in batch.schema.names if name != "messages"]
    for number, record in enumerate(batch.select(columns).to_pylist()):
        found = _row_problem(record, lengths, tasks, split)
        if found:
            return f"row {number} ({record['id']}) {found}"
    inputs = batch.column("input")
    for number in range(batch.num_rows):
        said = batch.column("messages")[number]
        if said[0]["content"] != inputs[number]:
            return f"row {number} asks its messages something else than its input"
    return ""


def _row_problem(row: Mapping[str, Any], lengths: Sequence[int], tasks: Sequence[str], split: str) -> str:
    length, total = row["length"], row["n_tokens"] + row["answer_budget"]
    if length not in lengths or row["task"] not in tasks or row["split"] != split:
        return "is of a length, task or split that the spec does not name"
    if not least_fill(length) <= total <= length:
        return f"has {total} tokens with its answer, for a length of {length}"
    if not row["outputs"] or not all(row["outputs"]):
        return "has no answer"
    if any(not 0 <= n["start"] < n["end"] <= row["n_tokens"] or not 0 <= n["depth"] <= 100 for n in row["needles"]):
        return "has a needle outside of its input"
    if not 0 < row["question_start"] < len(row["input"]):
        return "has no question at question_start"
    return ""
