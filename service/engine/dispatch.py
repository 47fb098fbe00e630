"""A job's tasks handed to an executor, those first and alone that something died under, and errors told by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from service.engine import poison
from service.engine.executor import Executor, WorkerLostError
from service.engine.shard_task import TaskError
from service.storage.objects import Objects


def results(
    objects: Objects, work: str, executor: Executor, tasks: Mapping[str, bytes], check: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """The results of tasks, known by the paths of their receipts, as they come; `check` is called often and may raise.

    What was in flight when an earlier attempt died runs before everything else, one at a time. Raises TaskError for what a task
    reports, ShardPoisonedError for one that kills its workers, WorkerLostError where workers died and it had hardly begun.
    """
    suspects = [path for path in poison.unfinished(objects, work) if path in tasks]
    rounds = [[tasks[path]] for path in suspects] + [[data for path, data in tasks.items() if path not in suspects]]
    try:
        for payloads in rounds:
            for data in executor.run(payloads, check):
                result = json.loads(data)
                if "error" in result:
                    raise TaskError(**result["error"])
                yield result
    except WorkerLostError as error:
        receipt = next(path for path, data in tasks.items() if data == error.payload)
        mark = poison.read_mark(objects, poison.mark_path(work, receipt))
        # Workers that died before the task had begun, or of something else, say nothing against it.
        raise (mark.error() if mark is not None and mark.tries >= poison.TRIES else error) from error
