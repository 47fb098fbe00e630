"""Rows of a SynL dataset: made of fitted conversations, and held to their invariants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from packing.dataset.errors import DatasetError
from synth.audit.rows import final_answer
from synth.tables.fit import Fitted
from synth.tables.render.formats import FORMATS
from synth.tables.tasks.catalogue import TASKS

SPLITS = ("train", "test")


def record(row: int, split: str, found: Fitted) -> dict[str, Any]:
    """A row as plain data, in the order of the columns."""
    outline, talk = found.outline, found.conversation
    task = outline.turns[0][0]
    return {
        "id": f"{split}-{row:08d}",
        "split": split,
        "task": task.name,
        "family": task.family,
        "format": outline.format.name,
        "locale": outline.locale,
        "messages": talk.messages,
        "queries": talk.queries,
        "answers": talk.answers,
        "evidence": [
            {"question": question, "message": 0, "start": start, "end": end} for question, start, end in talk.evidence
        ],
        "n_tokens": found.tokens,
    }


def check(batch: pa.RecordBatch, *, most_tokens: int, most_turns: int) -> None:
    """Raise DatasetError naming the first row that breaks an invariant: known names, turns by turns, one query and one answer a
    question, responses that end with their answers, evidence inside the message it names, a length the spec allows."""
    for row in batch.to_pylist():
        reason = _fault(row, most_tokens, most_turns)
        if reason:
            message = f"row {row['id']}: {reason}"
            raise DatasetError(message, param=row["id"])


def _fault(row: Mapping[str, Any], most_tokens: int, most_turns: int) -> str:
    """What is wrong with a row; empty where nothing is."""
    messages, count = row["messages"], len(row["queries"])
    task = TASKS.get(row["task"])
    if row["split"] not in SPLITS or row["format"] not in FORMATS:
        return f"its split is {row['split']!r} and its format {row['format']!r}"
    if task is None or task.family != row["family"]:
        return f"its task {row['task']!r} is of no family {row['family']!r}"
    if not 1 <= count <= most_turns or len(row["answers"]) != count:
        return f"it has {count} queries and {len(row['answers'])} answers"
    if [message["role"] for message in messages] != ["user", "assistant"] * count:
        return "its messages are not a question and a response, turn by turn"
    for answer, message in zip(row["answers"], messages[1::2], strict=True):
        if final_answer(message["content"]) != answer:
            return f"a response does not end with its answer {answer!r}"
    if not 0 < row["n_tokens"] <= most_tokens:
        return f"it has {row['n_tokens']} tokens, the spec allows {most_tokens}"
    return _fault_of_evidence(row, count)


def _fault_of_evidence(row: Mapping[str, Any], count: int) -> str:
    for span in row["evidence"]:
        if not (0 <= span["question"] < count and span["message"] == 0):
            return f"evidence speaks of question {span['question']} and message {span['message']}"
        if not 0 <= span["start"] < span["end"] <= len(row["messages"][0]["content"]):
            return f"evidence lies at {span['start']}..{span['end']}, outside its message"
    return ""
