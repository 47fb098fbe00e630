"""Rows of a SynL dataset: made of fitted conversations, and held to their invariants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.dataset import schema as schemas
from packing.dataset.errors import DatasetError
from synth.audit.rows import final_answer
from synth.tables.fit import Fitted
from synth.tables.lengths import shortest
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
            {"question": question, "message": 0, "start": start, "end": end}
            for question, start, end in talk.evidence.tolist()
        ],
        "n_tokens": found.tokens,
    }


def batch_of(records: Sequence[Mapping[str, Any]], made: Sequence[Fitted]) -> pa.RecordBatch:
    """Rows as a batch, each with the conversation that it was made of, whose evidence is taken as arrays."""
    kind = schemas.SYNL.field("evidence").type
    spans = np.concatenate([found.conversation.evidence for found in made])
    ends = np.cumsum([0, *(len(found.conversation.evidence) for found in made)])
    columns = {
        "question": spans[:, 0],
        "message": np.zeros(len(spans), np.int64),
        "start": spans[:, 1],
        "end": spans[:, 2],
    }
    fields = list(kind.value_type)
    struct = pa.StructArray.from_arrays([pa.array(columns[f.name], f.type) for f in fields], fields=fields)
    evidence = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), struct, type=kind)
    arrays = [
        evidence if field.name == "evidence" else pa.array([row[field.name] for row in records], field.type)
        for field in schemas.SYNL
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schemas.SYNL)


def numbers(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """The number of each row, which its id ends with: int64 [n]; raises DatasetError for an id that ends with none."""
    found: list[int] = []
    for name in batch.column("id").to_pylist():
        number = name.rpartition("-")[2]
        if not (number.isascii() and number.isdigit()):
            message = f"the id {name!r} does not end with the number of a row"
            raise DatasetError(message, param=name)
        found.append(int(number))
    return np.array(found, np.int64)


def check(batch: pa.RecordBatch, *, lengths: Sequence[int], most_turns: int, shorter: bool = False) -> None:
    """Raise DatasetError naming the first row that breaks an invariant: known names, turns by turns, one query and one answer a
    question, responses that end with their answers, evidence inside the message it names, and as many tokens as were asked for:
    `lengths` are those of the batch's rows, upper bounds where rows may be `shorter`."""
    rows = batch.select([name for name in batch.schema.names if name != "evidence"]).to_pylist()
    misplaced = _faults_of_evidence(batch, rows)
    for number, (row, target) in enumerate(zip(rows, lengths, strict=True)):
        reason = _fault(row, (1 if shorter else shortest(target), target), most_turns) or misplaced.get(number, "")
        if reason:
            message = f"row {row['id']}: {reason}"
            raise DatasetError(message, param=row["id"])


def _fault(row: Mapping[str, Any], tokens: tuple[int, int], most_turns: int) -> str:
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
    least, most = tokens
    if not least <= row["n_tokens"] <= most:
        return f"it has {row['n_tokens']} tokens, and was to have {least} to {most}"
    return ""


def _faults_of_evidence(batch: pa.RecordBatch, rows: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """What is wrong with the evidence of rows, by their numbers in the batch: spans speak of questions that there are, and lie in the
    first message."""
    column = batch.column("evidence")
    spans, of = column.flatten(), np.repeat(np.arange(len(rows)), column.value_lengths().to_numpy())
    question, message, start, end = (spans.field(name).to_numpy() for name in ("question", "message", "start", "end"))
    counts = np.array([len(row["queries"]) for row in rows])[of]
    sizes = np.array([len(row["messages"][0]["content"]) if row["messages"] else 0 for row in rows])[of]
    unasked = (question < 0) | (question >= counts) | (message != 0)
    outside = (start < 0) | (start >= end) | (end > sizes)
    found: dict[int, str] = {}
    for place in np.flatnonzero(unasked | outside).tolist():
        told = f"evidence speaks of question {question[place]} and message {message[place]}"
        lies = f"evidence lies at {start[place]}..{end[place]}, outside its message"
        found.setdefault(int(of[place]), told if unasked[place] else lies)
    return found
