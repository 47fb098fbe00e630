"""Work on what users sent, in a process of its own whose time and memory are bounded.

A tokenizer's regular expressions can take for ever on the right text, and its tables can be made to fill the memory. Nothing of an
uploaded tokenizer is therefore opened in the API: a child does it, gives itself limits first, and is killed when its time is over.
Task and result are JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packing.dataset.errors import FieldProblem, LongweaveError, SpecError, TokenizerError
from service.problems import BusyError

WALL_SECONDS = 30.0
CPU_SECONDS = 30
MEMORY_BYTES = 6 * 1024**3
"""Of addresses, not of pages: interpreter, numpy, pyarrow and the tokenizer's threads map about 2 GiB before they do anything."""
AT_ONCE = 4
WAIT_SECONDS = 5.0
PASSED = ("PATH", "PYTHONPATH", "HOME", "LANG", "SYSTEMROOT")
ROOT = Path(__file__).parents[2]

_places = threading.BoundedSemaphore(AT_ONCE)


class ChildError(LongweaveError):
    """An error that the child reported: sentence and code are its own."""

    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message, param=param)
        self.code = code


class BoundedTokenizerError(TokenizerError):
    """A tokenizer that took more time or memory than it may."""

    code = "tokenizer_limits"


def run_bounded(task: str, payload: Mapping[str, Any], *, wall_seconds: float = WALL_SECONDS) -> dict[str, Any]:
    """Do one task of service.engine.bounded_task in a child and return its result.

    Raises what the task raised (SpecError, TokenizerError, ChildError for the rest of the house), BoundedTokenizerError where it ran
    into a limit, and BusyError where too many are at work already.
    """
    if not _places.acquire(timeout=WAIT_SECONDS):
        message = f"{AT_ONCE} tokenizers are being worked on already: try again in a moment"
        raise BusyError(message)
    try:
        answer = _ask(task, payload, wall_seconds)
    finally:
        _places.release()
    if answer is None:
        message = (
            f"the tokenizer took more than {wall_seconds:g} seconds, or more than {MEMORY_BYTES >> 30} GiB of memory: "
            "its regular expressions, tables or template do not end in time"
        )
        raise BoundedTokenizerError(message, param="/tokenizer")
    if "error" in answer:
        raise _error(answer["error"])
    return answer["result"]


def _ask(task: str, payload: Mapping[str, Any], wall_seconds: float) -> dict[str, Any] | None:
    """The child's answer; None where it did not live to give one."""
    # What reads no object gets no secret.
    stores = "AWS_" if "store" in payload else "\0"
    environ = {name: value for name, value in os.environ.items() if name in PASSED or name.startswith(stores)}
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environ.get("PYTHONPATH")]))
    # One thread: what it takes is then what is counted.
    environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "service.engine.bounded_task"]
    request = json.dumps({"task": task, "payload": payload, "cpu_seconds": CPU_SECONDS, "memory_bytes": MEMORY_BYTES})
    try:
        done = subprocess.run(  # noqa: S603  # our own module
            command,
            input=request.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=wall_seconds,
            env=environ,
            check=False,
            start_new_session=True,
        )
        return json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        return None


def _error(told: Mapping[str, Any]) -> LongweaveError:
    if told["code"] == SpecError.code:
        return SpecError([FieldProblem(**problem) for problem in told["problems"]])
    if told["input"]:
        error = TokenizerError(told["message"], param=told["param"])
        error.code = told["code"]
        return error
    return ChildError(told["code"], told["message"], told["param"])
