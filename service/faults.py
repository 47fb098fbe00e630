"""Crash points: places by name where a test lets the service die, fail or fall asleep. Without LONGWEAVE_FAULTS they do nothing.

The variable holds JSON: which point does what, and where each fault that was delivered leaves a file, so that a test can count them and
one fault is not delivered again by the next process.

    {"record": "/dir", "points": {"receipt_put": {"do": "kill", "nth": 2, "times": 1}}}

`do` is kill (SIGKILL), stop (SIGSTOP), raise (InjectedFaultError), full (OSError ENOSPC) or sleep (`seconds`). `nth` counts the passes of
one process; from that pass on `times` faults are delivered by all processes together.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import threading
import time
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

POINTS = (
    "claimed",  # the job is ours, nothing is done yet
    "header_written",
    "survey_kept",  # what a survey tokenised stands, its table does not
    "survey_put",
    "plan_written",
    "task_begun",
    "shard_temporary",  # the shard is whole, under another name
    "shard_put",
    "receipt_put",
    "statistics_put",
    "card_put",
    "chart_put",
    "before_manifest",
    "after_manifest",
    "dataset_entered",  # in the transaction that makes the job succeed
    "succeeded",
    "cleared",
    "object_write",  # before any write to the object store
)
VARIABLE = "LONGWEAVE_FAULTS"

_passes: Counter[str] = Counter()
_lock = threading.Lock()


class InjectedFaultError(Exception):
    """A fault that a test asked for."""


def crash_point(name: str) -> None:
    """Pass the point `name`: nothing happens unless LONGWEAVE_FAULTS says so."""
    text = os.environ.get(VARIABLE)
    if text:
        _pass(name, text)


def _pass(name: str, text: str) -> None:
    plan = _read(text)
    fault = plan["points"].get(name)
    if fault is None:
        return
    with _lock:
        _passes[name] += 1
        passed = _passes[name]
    if passed >= fault.get("nth", 1) and _take(Path(plan["record"]), name, fault.get("times", 1)):
        _deliver(name, fault)


@lru_cache(maxsize=4)
def _read(text: str) -> dict[str, Any]:
    """What LONGWEAVE_FAULTS asks for; raises ValueError for points there are none of, which would test nothing."""
    plan = json.loads(text)
    unknown = set(plan["points"]) - set(POINTS)
    if unknown:
        message = f"{VARIABLE} names points there are not: {', '.join(sorted(unknown))}"
        raise ValueError(message)
    return plan


def _take(record: Path, name: str, times: int) -> bool:
    """Note one more delivery, unless there were `times` of this point already."""
    for number in range(times):
        with contextlib.suppress(FileExistsError):
            os.close(os.open(record / f"{name}.{number}", os.O_CREAT | os.O_EXCL))
            return True
    return False


def _deliver(name: str, fault: dict[str, Any]) -> None:
    match fault["do"]:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "sleep":
            time.sleep(fault["seconds"])
        case "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "raise":
            raise InjectedFaultError(name)
        case other:
            message = f"{VARIABLE} asks for {other!r} at {name}: there is kill, stop, sleep, full and raise"
            raise ValueError(message)
