"""Starting the worker: what must be set before torch is imported, and an import that costs nothing until it is wanted."""

from __future__ import annotations

import os

from training.config import Config

PATIENCE = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""What says how torch's threads on a CPU wait for one another; read once, when its OpenMP library is loaded."""


def wait_asleep() -> None:
    """Have torch's threads sleep while they wait for one another, unless the environment says how they are to wait.

    Left alone they spin. A step of a small model waits hundreds of times, and where another program has a core, the
    thread that is waited for cannot run: steps took ten times as long on two cores with a load of five. No bit of a
    result depends on it.
    """
    if not any(name in os.environ for name in PATIENCE):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def run(config: Config, *, as_json: bool = False) -> int:
    """training.loop.run, with torch imported now: a bad config has been told without its seconds."""
    wait_asleep()
    from training import loop

    return loop.run(config, as_json=as_json)
