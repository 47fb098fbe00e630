"""Several ranks of the worker without torchrun: `python -m tests.training.ranks WORLD CONFIG [WORLD CONFIG …]`.

torch and transformers are imported once, then every rank is forked off with the environment torchrun would give it. The
ranks' ids come as a line of JSON on stdout, their exit codes as another. FAIL="rank step" makes one rank fail there.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

import training.loop
from training.__main__ import main
from training.errors import TrainingError


def fail_at(rank: int, step: int) -> None:
    """Let this process fail at a step where it is the rank."""
    take: Any = training.loop.take_step

    def failing(*arguments: Any) -> Any:
        if int(os.environ["RANK"]) == rank and step in arguments:
            raise TrainingError(f"rank {rank} was told to fail")
        return take(*arguments)

    training.loop.take_step = failing


def run(world: int, config: str) -> list[int]:
    """Fork the ranks of one run; returns their exit codes, -9 for one that was killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world)}
    ids: list[int] = []
    for rank in range(world):
        ids.append(os.fork())
        if not ids[-1]:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            if "FAIL" in os.environ:
                fail_at(*map(int, os.environ["FAIL"].split()))
            code = main([config])
            sys.stdout.flush()
            os._exit(code)
    print(json.dumps(ids), flush=True)
    return [os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in ids]


if __name__ == "__main__":
    given = sys.argv[1:]
    for count, path in zip(given[::2], given[1::2], strict=True):
        print(json.dumps(run(int(count), path)), flush=True)
