"""Scores without a judge: RULER's and InfiniteBench's metrics, recall by task, length and depth, and what went wrong.

The standard library alone, so that an evaluation may copy this file. Metrics follow the peers' own code: RULER (Apache-2.0)
scripts/eval/synthetic/constants.py, InfiniteBench (MIT) src/compute_scores.py.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LONGEST_LINE = 4 * 1024 * 1024
"""Bytes of a line of predictions: more than the longest answer with its reasoning has."""
NAMED = 20
"""Ids of each sort that a report names; the rest is counted."""
Z = 1.959964
"""The normal quantile of a 95% interval."""
COPIED = 0.98
"""Likeness from which a repeated text counts as right when errors are sorted."""


class PredictionError(ValueError):
    """Predictions that cannot be read or do not belong to the dataset; `line` counts from 1, 0 where it is about no line."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What a probe's answer is held against."""

    id: str
    task: str
    length: int
    depth: float | None
    outputs: tuple[str, ...]
    distractors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One answer. Its probe is known by `id`, or by its `input` in a prediction file of RULER's own."""

    id: str
    text: str
    line: int
    input: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One answer's score in 0..1, and for less than 1 what went wrong: empty, another needle, partial, format, wrong."""

    key: Key
    score: float
    error: str


# Metrics of one prediction against its references


def string_match_all(prediction: str, outputs: Sequence[str]) -> float:
    """The share of the references that stand in the prediction, in any case (RULER)."""
    said = _printable(prediction).lower()
    return sum(output.lower() in said for output in outputs) / len(outputs)


def string_match_part(prediction: str, outputs: Sequence[str]) -> float:
    """1 if any reference stands in the prediction, in any case (RULER, for questions with several right answers)."""
    said = _printable(prediction).lower()
    return float(any(output.lower() in said for output in outputs))


def first_integer(prediction: str, outputs: Sequence[str]) -> float:
    """1 if the first run of digits is the reference (InfiniteBench: passkey, number_string)."""
    found = re.search(r"[0-9]+", prediction)
    return float(found is not None and found.group() == outputs[0])


def word_membership(prediction: str, outputs: Sequence[str]) -> float:
    """1 if the reference is one of the words of the prediction, punctuation aside (InfiniteBench: kv_retrieval)."""
    words = re.sub(r"""[\n:"'.,?!{}]""", " ", prediction).split()
    return float(outputs[0] in words)


def whole_words(prediction: str, outputs: Sequence[str]) -> float:
    """The share of the references that stand in the prediction and are not part of a longer word or number."""
    found = [re.search(rf"(?<![0-9A-Za-z]){re.escape(output)}(?![0-9A-Za-z])", prediction) for output in outputs]
    return sum(match is not None for match in found) / len(outputs)


def set_f1(prediction: str, outputs: Sequence[str]) -> float:
    """F1 of the nodes that are named (eight hexadecimal digits each) against those that should be (graph walks)."""
    named = set(re.findall(r"(?<![0-9a-f])[0-9a-f]{8}(?![0-9a-f])", prediction.lower()))
    right = len(named & set(outputs))
    return 2 * right / (len(named) + len(set(outputs))) if right else 0.0


def likeness(prediction: str, outputs: Sequence[str]) -> float:
    """How like the text is to the one to be repeated (coreference, after MRCR): difflib's ratio."""
    said = prediction.strip()[: 4 * len(outputs[0]) + 200]
    return difflib.SequenceMatcher(None, said, outputs[0], autojunk=False).ratio()


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "passkey": first_integer,
    "number": first_integer,
    "kv": word_membership,
    "dictionary": whole_words,
    "graph_walks": set_f1,
    "coreference": likeness,
    "qa_1": string_match_part,
    "qa_2": string_match_part,
}
"""The metric of every task that has one of its own; RULER's string_match_all serves all others."""


def score(task: str, prediction: str, outputs: Sequence[str]) -> float:
    """A prediction's score by its task's metric, 0 to 1."""
    return METRICS.get(task, string_match_all)(prediction, outputs)


def _printable(text: str) -> str:
    """RULER's own clean-up: control characters become line ends."""
    return re.sub(r"[\x00-\x1f]", "\n", text.strip()).strip()


def after_thinking(text: str) -> str:
    """What stands behind a reasoning model's thinking; nothing where it never ends."""
    if "</think>" in text:
        return text.rpartition("</think>")[2]
    return "" if "<think>" in text else text


# Reading predictions


def read_predictions(lines: Iterable[bytes]) -> list[Prediction]:
    """Predictions from JSON lines: `{id, prediction}`, or RULER's `{index, pred, input, outputs, others}`. Raises PredictionError."""
    found: list[Prediction] = []
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_LINE:
            raise PredictionError(number, f"it has {len(line):,} bytes; at most {LONGEST_LINE:,} are read")
        if line.strip():
            found.append(_prediction(line, number))
    return found


def _prediction(line: bytes, number: int) -> Prediction:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise PredictionError(number, f"it is not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise PredictionError(number, f"it is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise PredictionError(number, "it is no object with id and prediction")
    named: dict[str, Any] = value
    text = named.get("prediction", named.get("pred"))
    if isinstance(text, list) and len(text) == 1:
        text = text[0]
    if not isinstance(text, str):
        raise PredictionError(number, "it has no text in the field prediction (or RULER's pred)")
    others = named.get("others")
    name = others.get("id") if isinstance(others, dict) and "id" not in named else named.get("id")
    given = named.get("input")
    if isinstance(name, str) and name:
        return Prediction(id=name, text=text, line=number)
    if isinstance(given, str) and given:
        return Prediction(id="", text=text, line=number, input=given)
    raise PredictionError(number, "it names no probe: id, or RULER's others.id or input, is needed")


# Scoring


@dataclass(slots=True)
class Report:
    """Every answer's score, and the ids that are missing, or stand there twice (the first answer counts)."""

    scored: list[Scored]
    missing: list[str] = field(default_factory=list[str])
    duplicates: list[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON: cells by task, length and depth, and by task and length, with 95% intervals; errors by class."""
        return {
            "cells": cells(self.scored, lambda k: (k.task, k.length, k.depth)),
            "tasks": cells(self.scored, lambda k: (k.task, k.length, None)),
            "errors": self.errors(),
            "answered": len(self.scored),
            "missing": _named(self.missing),
            "duplicates": _named(self.duplicates),
        }

    def errors(self) -> dict[str, dict[str, int]]:
        """How many answers of each task were wrong in which way."""
        found: dict[str, dict[str, int]] = {}
        for item in self.scored:
            if item.error:
                counts = found.setdefault(item.key.task, {})
                counts[item.error] = counts.get(item.error, 0) + 1
        return {task: dict(sorted(counts.items())) for task, counts in sorted(found.items())}


def _named(ids: Sequence[str]) -> dict[str, Any]:
    return {"count": len(ids), "first": list(ids[:NAMED])}


def evaluate(
    keys: Iterable[Key],
    predictions: Sequence[Prediction],
    *,
    by_input: Mapping[str, str] | None = None,
    without_thinking: bool = False,
) -> Report:
    """Score predictions against their probes. `by_input` gives the id of an input, for RULER's files that have no id.

    Raises PredictionError naming the unknown ids.
    """
    known = {key.id: key for key in keys}
    named = [(p.id or (by_input or {}).get(p.input, ""), p) for p in predictions]
    unknown = [(p, name) for name, p in named if name not in known]
    if unknown:
        first = ", ".join((name or f"an input of {len(p.input)} characters") for p, name in unknown[:NAMED])
        raise PredictionError(
            unknown[0][0].line, f"{len(unknown)} predictions are for probes that the dataset has not: {first}"
        )
    scored: dict[str, Scored] = {}
    twice: dict[str, None] = {}
    for name, prediction in named:
        if name in scored:
            twice[name] = None
            continue
        text = after_thinking(prediction.text) if without_thinking else prediction.text
        key = known[name]
        value = score(key.task, text, key.outputs)
        scored[name] = Scored(key=key, score=value, error=error_class(key, text, value))
    missing = [name for name in known if name not in scored]
    return Report([scored[name] for name in known if name in scored], missing, list(twice))


def error_class(key: Key, prediction: str, value: float) -> str:
    """What went wrong with an answer; empty where nothing did."""
    if value >= (COPIED if METRICS.get(key.task) is likeness else 1.0):
        return ""
    said = prediction.strip().lower()
    if not said:
        return "empty"
    if all(_bare(output) in _bare(said) for output in key.outputs):
        return "format"
    if any(output.lower() in said for output in key.outputs):
        return "partial"
    if any(other.lower() in said for other in key.distractors):
        return "another needle"
    if any(_begins(output.lower(), said) for output in key.outputs):
        return "partial"
    return "wrong"


def _bare(text: str) -> str:
    return re.sub(r"[^0-9a-z\u0080-\uffff]", "", text.lower())


def _begins(output: str, said: str) -> bool:
    """Whether a piece of an answer was said and nothing else, or at least the first half of it."""
    half = max(3, math.ceil(len(output) / 2))
    return (len(said) >= 3 and said in output) or (len(output) > half and output[:half] in said)


def wilson(total: float, count: int) -> tuple[float, float]:
    """The 95% interval of Wilson for a mean of `count` scores in 0..1 that add up to `total` (E. B. Wilson, JASA 1927)."""
    if not count:
        return 0.0, 1.0
    mean = total / count
    spread = Z * math.sqrt(mean * (1 - mean) / count + Z * Z / (4 * count * count))
    middle, scale = mean + Z * Z / (2 * count), 1 + Z * Z / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def cells(scored: Iterable[Scored], group: Callable[[Key], tuple[str, int, float | None]]) -> list[dict[str, Any]]:
    """Recall of every group, in order: task, length, depth (None: all of them), count, recall, low, high."""
    sums: dict[tuple[str, int, float | None], tuple[float, int]] = {}
    for item in scored:
        name = group(item.key)
        total, count = sums.get(name, (0.0, 0))
        sums[name] = (total + item.score, count + 1)
    order = sorted(sums, key=lambda name: (name[0], name[1], -1.0 if name[2] is None else name[2]))
    found: list[dict[str, Any]] = []
    for name in order:
        total, count = sums[name]
        low, high = wilson(total, count)
        found.append(
            {
                "task": name[0],
                "length": name[1],
                "depth": name[2],
                "count": count,
                "recall": round(total / count, 6),
                "low": round(low, 6),
                "high": round(high, 6),
            }
        )
    return found
