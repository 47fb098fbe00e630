"""Processes below us.

Finding them, and leaving none behind. Linux's /proc; elsewhere nothing is found and nothing is done.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies: Ray's agents outlive a killed runner by a minute."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """All live processes below `root`, children before their children."""
    below: dict[int, list[int]] = defaultdict(list)
    for parent, pid in _parents():
        below[parent].append(pid)
    found: list[int] = []
    waiting = list(below[root])
    while waiting:
        pid = waiting.pop(0)
        found.append(pid)
        waiting += below[pid]
    return found


def identity(pid: int) -> tuple[str, str] | None:
    """A live process's name and the moment it began (in ticks since the machine's start), which no other of its id shares; None where
    there is none."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return None
    state, *fields = rest.split()
    return None if state in "ZX" else (name.partition("(")[2], fields[18])


def kill(pids: Iterable[int]) -> None:
    """SIGKILL each process that is still there."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def reap_adopted(*, but: Iterable[int]) -> None:
    """Collect the exit of children we did not start ourselves; `but` are those somebody else waits for."""
    kept = set(but)
    for parent, pid in _parents(dead=True):
        if parent == os.getpid() and pid not in kept:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue


def end_descendants(*, within: float, but: Iterable[int] = ()) -> None:
    """SIGKILL everything below this process but `but` and what is below that, and wait until it is gone."""
    kept = set(but)
    for pid in list(kept):
        kept.update(descendants(pid))
    deadline = time.monotonic() + within
    while left := [pid for pid in descendants(os.getpid()) if pid not in kept]:
        kill(left)
        reap_adopted(but=kept)
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def _parents(*, dead: bool = False) -> list[tuple[int, int]]:
    """(parent, process) of every process; with `dead`, zombies too."""
    found: list[tuple[int, int]] = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name stands in brackets and may hold anything, brackets too: what follows the last one is regular.
            state, parent, *_ = place.read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if dead or state not in "ZX":
            found.append((int(parent), int(place.parent.name)))
    return found
