"""Tasks that kill what runs them: every task notes that it has begun, and what is begun again and again and never ends is named.

A mark below `<work>/begun` says how often a shard (or the survey of a piece) was begun. It counts only while there is no receipt. Where
work stops in good order the marks go; they outlive what dies: a worker, the runner, all of Ray. The next attempt runs what was in flight
then by itself, before everything else, so that the guilty task is told from those that died beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from packing.dataset.errors import LongweaveError
from packing.dataset.manifest import canonical_json
from packing.plan import Piece, Shard
from service.storage.objects import Objects
from service.storage.seals import DamagedError, seal, unseal

TRIES = 3
"""Times a task may kill what runs it."""
FIRST_NAMES = 3


class ShardPoisonedError(LongweaveError):
    """A task killed what ran it as often as it was tried."""

    code = "shard_poisoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A task that was begun `tries` times. `what` names it and what of the input it covers, for a sentence; `param` is its file."""

    tries: int
    what: str
    param: str

    def error(self) -> ShardPoisonedError:
        """The error that names the task."""
        message = (
            f"{self.what} killed what ran it {self.tries} times, alone in the end: look at these rows (one that is far too long, say), "
            "leave them out, or give the workers more memory"
        )
        return ShardPoisonedError(message, param=self.param)


def mark_path(work: str, receipt: str) -> str:
    """Where the mark of the task is kept that leaves its receipt at `receipt`."""
    return f"{work}/begun/{receipt.removeprefix(f'{work}/')}.json"


def begin(objects: Objects, work: str, receipt: str, *, what: str, param: str) -> None:
    """Note that a task begins, once more."""
    path = mark_path(work, receipt)
    before = read_mark(objects, path)
    mark = Mark(tries=1 + (before.tries if before is not None else 0), what=what, param=param)
    objects.write(path, seal(canonical_json(asdict(mark))), durable=False)


def read_mark(objects: Objects, path: str) -> Mark | None:
    """A task's mark; None where it has not begun, or where a power cut tore the mark, which is not written to last."""
    try:
        return Mark(**json.loads(unseal(objects.read(path), path=path)))
    except (FileNotFoundError, DamagedError):
        return None


def unfinished(objects: Objects, work: str) -> Mapping[str, Mark]:
    """What was begun below `work` (of the job or of one of its parts) and has left no receipt, by the receipt's path."""
    found: dict[str, Mark] = {}
    paths = objects.list(work)
    standing = set(paths)
    for path in paths:
        before, step, after = path.partition("/begun/")
        receipt = f"{before}/{after.removesuffix('.json')}"
        if step and receipt not in standing and (mark := read_mark(objects, path)) is not None:
            found[receipt] = mark
    return found


def poisoned(objects: Objects, work: str) -> ShardPoisonedError | None:
    """The error that names the task below `work` that was begun most often and never ended, if that was often enough."""
    marks = sorted(unfinished(objects, work).values(), key=lambda mark: mark.tries)
    return marks[-1].error() if marks and marks[-1].tries >= TRIES else None


def forget(objects: Objects, marks: Mapping[str, Mark]) -> None:
    """Remove marks that `unfinished` has found: their tasks were stopped in good order and are under no suspicion.

    To be called when the job is somebody else's to claim, and no sooner: one that has lost it must not touch them. A mark that says
    something else by now is the next attempt's and stays.
    """
    paths = (_path_of(receipt) for receipt in marks)
    objects.delete([path for path, mark in zip(paths, marks.values(), strict=True) if read_mark(objects, path) == mark])


def _path_of(receipt: str) -> str:
    """Where the mark stands of the task with this receipt, which lies two steps below its work (`<work>/receipts/00000007.json`)."""
    return mark_path(receipt.rsplit("/", 2)[0], receipt)


def what_survey(piece: Piece, number: int) -> str:
    """The survey of a piece and its rows, for a sentence."""
    return f"the survey of piece {number} ({piece.name}, rows {piece.first_row} to {piece.first_row + piece.rows - 1})"


def what_shard(kind: str, shard: Shard) -> str:
    """A shard and the rows it covers, for a sentence: of the source, where a shard is a run of these, else of the dataset."""
    return f"shard {shard.index} ({shard.path}: {_rows(kind, shard.work)}{_documents(shard)})"


def _rows(kind: str, work: Mapping[str, Any]) -> str:
    whose = "the source" if kind == "skipalign" else "the dataset"
    rows: Any = work.get("rows")
    if isinstance(rows, list) and rows:
        numbers = [int(row) for row in rows]  # type: ignore[arg-type]  # a shard's work is plain JSON
        return f"{len(numbers)} rows of the source between {min(numbers) + 1} and {max(numbers) + 1}"
    if "first" in work and isinstance(rows, int):
        return f"rows {work['first'] + 1} to {work['first'] + rows} of {whose}"
    return f"{rows} rows of the dataset"


def _documents(shard: Shard) -> str:
    if shard.table is None or "id" not in shard.table.column_names:
        return ""
    names = list(dict.fromkeys(str(name) for name in shard.table.column("id").to_pylist()))
    more = f" and {len(names) - FIRST_NAMES} more" if len(names) > FIRST_NAMES else ""
    return f", made of the documents {', '.join(names[:FIRST_NAMES])}{more}"
