"""A directory in LongBench's format: a <task>.jsonl a task, asked and scored by the task's published metric.

Rows are {input, context, answers, all_classes, length, language, …}; `length` counts words, or characters in Chinese. Tasks
of LongBench-E (<task>_e) are those of the same name. A prompt that is too long loses its middle, as LongBench does it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from packing.dataset.errors import DatasetError
from packing.dataset.reader import file_digest
from training.evaluation.ask import ask_all, batched
from training.evaluation.longbench_tasks import TASKS, Task
from training.evaluation.prompts import Prompts
from training.parallel import ALONE, Ranks

PLACES = ("", "data")
"""Where below the directory the tasks' files may lie."""
PROMPTS, BUDGETS = "dataset2prompt.json", "dataset2maxlen.json"
LONGEST_LINE = 64 * 1024 * 1024
"""Bytes of a line of JSON."""
BINS = (4000, 8000)
"""Lengths between which scores are told apart, as LongBench-E does it."""
POINTER = "/evaluate/longbench"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    id: str
    task: str
    text: str
    answers: tuple[str, ...]
    classes: tuple[str, ...]
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    id: str
    prompt: NDArray[np.int32]
    budget: int
    cut: bool


class LongBench:
    """The tasks of a directory, in the order of their names, every row checked."""

    def __init__(self, folder: Path) -> None:
        """Read all rows once; raises DatasetError naming file, line and field of what is wrong."""
        self.folder = folder
        self._files = {path.stem: path for place in PLACES for path in sorted((folder / place).glob("*.jsonl"))}
        if not self._files:
            message = f"{folder} holds no <task>.jsonl: evaluate.longbench is a directory in LongBench's format"
            raise DatasetError(message, param=POINTER)
        self.tasks = {name: _known(name, path) for name, path in sorted(self._files.items())}
        self._take_settings()
        self.counts = {name: sum(1 for _ in self.rows(name)) for name in self.tasks}
        empty = [name for name, count in self.counts.items() if not count]
        if empty:
            message = f"{self._files[empty[0]]} has no row: there is nothing to ask"
            raise DatasetError(message, param=str(self._files[empty[0]]))

    def digest(self) -> str:
        """One sha256 over names, contents and settings."""
        whole = sha256()
        for name, path in sorted(self._files.items()):
            with path.open("rb") as stream:
                content, _ = file_digest(stream)
            task = self.tasks[name]
            whole.update(f"{name}\0{content}\0{task.prompt}\0{task.budget}\0".encode())
        return whole.hexdigest()

    def rows(self, name: str) -> Iterator[_Row]:
        """The rows of a task."""
        path, task = self._files[name], self.tasks[name]
        with path.open("rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b""), 1):
                if line.strip():
                    yield _row(line, name=name, number=number, where=f"{path}, line {number}", prompt=task.prompt)

    def batches(self, prompts: Prompts, name: str, *, window: int | None, batch_tokens: int) -> Iterator[list[_Asked]]:
        """The questions of a task, the shortest first, in batches of at most `batch_tokens` tokens (one at least)."""
        task = self.tasks[name]
        asked = [_asked(row, task, prompts, window) for row in self.rows(name)]
        yield from batched(sorted(asked, key=lambda one: len(one.prompt)), batch_tokens)

    def _take_settings(self) -> None:
        """Prompts and answer lengths of LongBench's own files, where they lie in the directory or in its `config`."""
        for file, field, kind in ((PROMPTS, "prompt", str), (BUDGETS, "budget", int)):
            path = next((p for p in (self.folder / file, self.folder / "config" / file) if p.is_file()), None)
            if path is None:
                continue
            try:
                given = json.loads(path.read_bytes())
                known = {name: given.get(_plain(name)) for name in self.tasks}
            except (ValueError, AttributeError) as error:
                message = f"{path} is no JSON object of tasks ({error})"
                raise DatasetError(message, param=str(path)) from error
            for name, value in known.items():
                if value is None:
                    continue
                if not isinstance(value, kind) or not value:
                    message = f"{path}: {_plain(name)} must have {'a text' if kind is str else 'a whole number'}, not {value!r}"
                    raise DatasetError(message, param=str(path))
                changed: Any = {field: value}
                self.tasks[name] = replace(self.tasks[name], **changed)


def _plain(name: str) -> str:
    """A task's name without LongBench-E's mark."""
    return name.removesuffix("_e")


def _known(name: str, path: Path) -> Task:
    task = TASKS.get(_plain(name))
    if task is None:
        message = f"{path} is named after no task of LongBench: known are {', '.join(TASKS)}"
        raise DatasetError(message, param=str(path))
    return task


def _row(line: bytes, *, name: str, number: int, where: str, prompt: str) -> _Row:
    try:
        value: Any = json.loads(line)
    except ValueError as error:
        message = f"{where} is no JSON ({error})"
        raise DatasetError(message, param=where) from error
    value = cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}
    parts = {"{context}": _field(value, "context", where), "{input}": _field(value, "input", where)}
    answers = _texts(value.get("answers"), "answers", where)
    if not answers:
        message = f"{where} has no answer in answers"
        raise DatasetError(message, param=where)
    length = value.get("length")
    if isinstance(length, bool) or not isinstance(length, int) or length < 0:
        message = f"{where}: length must be a whole number of words, not {length!r}"
        raise DatasetError(message, param=where)
    return _Row(
        id=f"{name}:{number}",
        task=name,
        text=re.sub(r"\{context\}|\{input\}", lambda found: parts[found[0]], prompt),
        answers=answers,
        classes=_texts(value.get("all_classes") or [], "all_classes", where),
        length=length,
    )


def _field(value: Mapping[str, Any], name: str, where: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        message = f"{where}: {name} must be a text, not {text!r}"
        raise DatasetError(message, param=where)
    return text


def _texts(value: Any, name: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in cast("list[Any]", value)):
        message = f"{where}: {name} must be a list of texts, not {value!r}"
        raise DatasetError(message, param=where)
    return tuple(cast("list[str]", value))


def _asked(row: _Row, task: Task, prompts: Prompts, window: int | None) -> _Asked:
    """A row's prompt; where prompt, template and answer are longer than `window` tokens, the prompt's middle goes."""
    ids = prompts.encode(row.text)
    text, cut = row.text, False
    if window is not None:
        most = max(2, window - task.budget - prompts.around(plain=task.plain))
        if len(ids) > most:
            half = most // 2
            text = prompts.decode(ids[:half].tolist()) + prompts.decode(ids[-half:].tolist())
            cut = True
    return _Asked(id=row.id, prompt=prompts.prompt(text, "", plain=task.plain), budget=task.budget, cut=cut)


def ask_longbench(
    model: PreTrainedModel,
    bench: LongBench,
    prompts: Prompts,
    answers: Path,
    *,
    window: int | None,
    batch_tokens: int,
    prefill: int,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Ask every row and score the answers: scores from 0 to 100 by task and by length, their mean over the tasks, and
    how many prompts were cut to `window` tokens. `answers`: as training.evaluation.ask.ask_all has it."""
    cut: dict[str, int] = dict.fromkeys(bench.tasks, 0)

    def asked() -> Iterator[list[_Asked]]:
        for name in bench.tasks:
            for batch in bench.batches(prompts, name, window=window, batch_tokens=batch_tokens):
                cut[name] += sum(one.cut for one in batch)
                yield batch

    said = ask_all(model, asked(), prompts, answers, prefill=prefill, ranks=ranks)
    tasks = {name: _scored(bench, name, said) | {"cut": cut[name]} for name in bench.tasks}
    return {"score": _mean([task["score"] for task in tasks.values()]), "tasks": tasks, "window": window}


def _scored(bench: LongBench, name: str, said: Mapping[str, str]) -> dict[str, Any]:
    task = bench.tasks[name]
    found = [(row.length, _score(task, said[row.id], row)) for row in bench.rows(name)]
    bins = {"0-4k": (0, BINS[0]), "4-8k": BINS, "8k+": (BINS[1], None)}
    parts = {
        label: [s for n, s in found if n >= low and (high is None or n < high)] for label, (low, high) in bins.items()
    }
    return {
        "metric": task.name,
        "score": _mean([score for _, score in found]),
        "count": len(found),
        "lengths": {label: {"score": _mean(scores), "count": len(scores)} for label, scores in parts.items() if scores},
    }


def _score(task: Task, said: str, row: _Row) -> float:
    """The best score over the true answers, from 0 to 100."""
    if task.first_line:
        said = said.lstrip("\n").split("\n")[0]
    return 100.0 * max(task.metric(said, answer, row.classes) for answer in row.answers)


def _mean(scores: list[float]) -> float:
    return sum(scores) / len(scores)
