"""Probes in the shapes of the peers' files: a row in, the file it belongs to and its record out. Writes nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Row = Mapping[str, Any]
Placed = tuple[str, dict[str, Any]]
INFINITEBENCH_NAMES = {"number": "number_string", "kv": "kv_retrieval"}


def ruler(rows: Iterable[Row]) -> Iterator[Placed]:
    """RULER's files, `<length>/<task>/validation.jsonl`: index from 0 in each file, length with the answer's budget. `others.id` is
    what RULER hands on into its prediction files, so that no probe loses its name."""
    counts: dict[str, int] = {}
    for row in rows:
        path = f"{row['length']}/{row['task']}/validation.jsonl"
        record = {
            "index": _next(counts, path),
            "input": row["input"],
            "outputs": list(row["outputs"]),
            "length": row["n_tokens"] + row["answer_budget"],
            "answer_prefix": row["answer_prefix"],
            "token_position_answer": [needle["start"] for needle in row["needles"]],
            "others": {"id": row["id"]},
        }
        yield path, record


def lm_eval(rows: Iterable[Row]) -> Iterator[Placed]:
    """Documents as lm-evaluation-harness makes them for its RULER tasks, `<task>.jsonl`."""
    counts: dict[str, int] = {}
    for row in rows:
        path = f"{row['task']}.jsonl"
        record = {
            "index": _next(counts, path),
            "input": row["input"],
            "outputs": list(row["outputs"]),
            "length": row["n_tokens"] + row["answer_budget"],
            "max_length": row["length"],
            "gen_prefix": row["answer_prefix"].strip(),
            "id": row["id"],
        }
        yield path, record


def infinitebench(rows: Iterable[Row]) -> Iterator[Placed]:
    """InfiniteBench's files, `<task>.jsonl` by its own names of tasks: the context and the question apart."""
    counts: dict[str, int] = {}
    for row in rows:
        path = f"{INFINITEBENCH_NAMES.get(row['task'], row['task'])}.jsonl"
        start = row["question_start"]
        record = {
            "id": _next(counts, path),
            "context": row["input"][:start],
            "input": row["input"][start:],
            "answer": list(row["outputs"]),
            "options": [],
            "probe": row["id"],
        }
        yield path, record


def messages(rows: Iterable[Row]) -> Iterator[Placed]:
    """Conversations to train on, `<split>.jsonl`; of every kind of dataset whose rows have messages."""
    for row in rows:
        kept = {name: row[name] for name in ("id", "task") if name in row}
        said = [{name: text for name, text in message.items() if text is not None} for message in row["messages"]]
        yield f"{row.get('split', 'train')}.jsonl", {**kept, "messages": said}


def _next(counts: dict[str, int], path: str) -> int:
    counts[path] = counts.get(path, -1) + 1
    return counts[path]


FORMATS: dict[str, Callable[[Iterable[Row]], Iterator[Placed]]] = {
    "ruler": ruler,
    "lm-eval": lm_eval,
    "infinitebench": infinitebench,
    "messages": messages,
}
COLUMNS = {
    "ruler": ("id", "task", "length", "input", "outputs", "n_tokens", "answer_budget", "answer_prefix", "needles"),
    "lm-eval": ("id", "task", "length", "input", "outputs", "n_tokens", "answer_budget", "answer_prefix"),
    "infinitebench": ("id", "task", "input", "outputs", "question_start"),
    "messages": ("id", "task", "split", "messages"),
}
"""The columns each format is made of; `messages` takes those of them that there are."""
