"""The audit of rows: every answer recomputed from the messages and the queries alone, and the evidence compared with the rows needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from packing.dataset.errors import DatasetError
from synth.audit.evaluate import Result, UnknownQueryError, evaluate
from synth.audit.parse import Grid, UnreadableError, record_cells, table_named

NOT_IN_TABLE = {"zh_CN": "表中没有"}
NOT_IN_TABLE_ELSE = "Not in the table"
YES_NO = {"zh_CN": {"yes": "是", "no": "否"}}
YES_NO_ELSE = {"yes": "Yes", "no": "No"}
LAST_LINES = ("Answer: ", "答案：")


class AnswerError(DatasetError):
    """An answer, a piece of evidence or a response that is not what the table says."""

    code = "wrong_answer"


def recomputed(row: Mapping[str, Any]) -> list[str]:
    """The answers of a row's questions, from its messages and queries alone; raises AnswerError where they cannot be computed."""
    return [_text(row, result) for result in _results(row)[0]]


def audit(row: Mapping[str, Any]) -> int:
    """How many answers of a row were recomputed and found right. Raises AnswerError naming the first that is wrong, or whose response
    does not end with it, or whose evidence is not exactly the rows it needs."""
    results, tables = _results(row)
    responses = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
    if not len(results) == len(row["answers"]) == len(responses):
        raise AnswerError(_where(row, 0, "queries, answers and responses differ in number"), param=row["id"])
    for number, (result, answer, response) in enumerate(zip(results, row["answers"], responses, strict=True)):
        right = _text(row, result)
        if answer != right:
            raise AnswerError(_where(row, number, f"the answer is {right!r}, the row says {answer!r}"), param=row["id"])
        if final_answer(response) != answer:
            raise AnswerError(_where(row, number, "the response does not end with the answer"), param=row["id"])
        _check_evidence(row, number, result, tables)
    return len(results)


def final_answer(response: str) -> str:
    """The answer in a response: what follows "Answer:" in its last line, else the whole of it."""
    last = response.rsplit("\n", 1)[-1]
    for beginning in LAST_LINES:
        if last.startswith(beginning):
            return last[len(beginning) :]
    return response


def _where(row: Mapping[str, Any], number: int, what: str) -> str:
    return f"row {row['id']}, question {number + 1}: {what}"


def _results(row: Mapping[str, Any]) -> tuple[list[Result], dict[str, Grid]]:
    """The result of every query, and the tables they read, parsed once."""
    content, tables = row["messages"][0]["content"], dict[str, Grid]()
    results: list[Result] = []
    for number, text in enumerate(row["queries"]):
        try:
            query = json.loads(text)
            for name in {query["table"], query.get("join", query)["table"]}:
                if name not in tables:
                    tables[name] = table_named(content, name, row["format"])
            results.append(evaluate(query, tables))
        except (UnreadableError, UnknownQueryError, KeyError, ValueError) as error:
            raise AnswerError(_where(row, number, f"it cannot be recomputed ({error})"), param=row["id"]) from error
    return results, tables


def _text(row: Mapping[str, Any], result: Result) -> str:
    """An answer as the row's language writes it."""
    if result.values is None:
        return NOT_IN_TABLE.get(row["locale"], NOT_IN_TABLE_ELSE)
    if result.values in (["yes"], ["no"]):
        return YES_NO.get(row["locale"], YES_NO_ELSE)[result.values[0]]
    return ", ".join(result.values)


def _check_evidence(row: Mapping[str, Any], number: int, result: Result, tables: Mapping[str, Grid]) -> None:
    spans: Sequence[Mapping[str, int]] = [span for span in row["evidence"] if span["question"] == number]
    if len(spans) != len(result.evidence):
        what = f"it needs {len(result.evidence)} rows, evidence has {len(spans)}"
        raise AnswerError(_where(row, number, what), param=row["id"])
    for span, (name, place) in zip(spans, result.evidence, strict=True):
        try:
            cells = record_cells(
                row["messages"][span["message"]]["content"][span["start"] : span["end"]], row["format"]
            )
        except UnreadableError as error:
            raise AnswerError(_where(row, number, str(error)), param=row["id"]) from error
        if cells != tables[name].rows[place]:
            what = f"evidence points at {cells}, not at row {place + 1} of {name}"
            raise AnswerError(_where(row, number, what), param=row["id"])
