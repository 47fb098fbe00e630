"""Damage to what an unfinished job has standing: its own notes, shards and the source. It is made again, or the job says what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from packing.dataset.errors import LongweaveError
from tests.faults import lines
from tests.faults.campaigns import damaged
from tests.faults.order import OrderFigures, Replay, state

KINDS_OF_FILES = {
    "/begun/": "mark",
    "/receipts/": "receipt",
    "/surveys/": "survey",
    "/plans/": "plan",
    "/kept/": "kept",
    "/header.json": "header",
    "/parts/": "part",
    "/data/": "shard",
    "/charts/": "document",
    "/README.md": "document",
    "/statistics.json": "document",
    "uploads/": "piece",
}
CLEAR = frozenset({"damaged_object", "invalid_source", "invalid_dataset", "commit_conflict"})
"""Codes of errors that say what is damaged."""


@dataclass
class WorkFigures:
    """What was damaged, by the kind of file, and what became of it."""

    done: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)  # the right bytes in spite of it
    told: Counter[str] = field(default_factory=Counter)  # ended with an error that says it
    wrong: list[str] = field(default_factory=list)  # other bytes, or an error that says something else

    def add(self, other: WorkFigures) -> WorkFigures:
        """Both together."""
        return WorkFigures(
            self.done + other.done, self.again + other.again, self.told + other.told, self.wrong + other.wrong
        )


def kind_of(path: str) -> str:
    """What a file is to a job."""
    return next(name for part, name in KINDS_OF_FILES.items() if part in path)


def damage_to_work(replay: Replay, count: int, seed: int) -> WorkFigures:
    """Damage `count` files, one at a time, of a build that was cut off before its manifest and has some receipts and surveys still to
    come, so that everything is read; go on each time."""
    draws, figures = np.random.default_rng(seed), WorkFigures()
    last = next(n for n, step in enumerate(replay.steps) if step.path == f"{lines.TARGET}/manifest.json")
    files = state(replay.steps[:last])
    pieces = {path.relative_to(replay.base).as_posix(): path.read_bytes() for path in replay.base.rglob("*.parquet")}
    by_kind: dict[str, list[str]] = {}
    for path in sorted(files | pieces):
        by_kind.setdefault(kind_of(path), []).append(path)
    for number in range(count):
        kind = sorted(by_kind)[number % len(by_kind)]
        path = by_kind[kind][int(draws.integers(len(by_kind[kind])))]
        data = (files | pieces)[path]
        left = {other: files[other] for other in files if other == path or not _to_come(other, draws)}
        _go_on(replay, left | {path: damaged(data, draws)}, path, figures)
    return figures


def _to_come(path: str, draws: np.random.Generator) -> bool:
    """Whether a receipt or survey is taken away: half of the receipts, a quarter of the surveys, parts whole or not at all."""
    share = {"receipt": 0.5, "survey": 0.25}.get(kind_of(path), 0.0)
    return "/parts/" not in path and draws.uniform() < share


def _go_on(replay: Replay, files: dict[str, bytes], path: str, figures: WorkFigures) -> None:
    kind, found = kind_of(path), OrderFigures()
    figures.done[kind] += 1
    try:
        replay.go_on_from(files, found)
    except LongweaveError as error:
        if error.code in CLEAR:
            figures.told[kind] += 1
        else:
            figures.wrong.append(f"{path}: {error.code} {error.message}")
        return
    except Exception as error:
        figures.wrong.append(f"{path}: {error!r}")
        return
    if found.wrong:
        figures.wrong.append(f"{path}: other bytes")
    else:
        figures.again[kind] += 1


def all_kinds(replays: Sequence[Replay], count: int, seed: int) -> WorkFigures:
    """`count` damages, shared out among the kinds of datasets."""
    total = WorkFigures()
    for number, replay in enumerate(replays):
        total = total.add(damage_to_work(replay, count // len(replays), seed + number))
    return total
