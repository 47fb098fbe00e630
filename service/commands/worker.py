"""`longweave worker`: a Ray node that builds shards for the runner at LONGWEAVE_RAY_ADDRESS."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
from types import FrameType

from service import processes
from service.logs import configure_logs
from service.settings import Settings

AGAIN_SECONDS = 1.0

log = logging.getLogger("longweave.worker")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `longweave worker`: what it needs are settings."""
    parser.add_argument("--data-dir", help="as for the other commands (LONGWEAVE_DATA_DIR)")


def run(arguments: argparse.Namespace) -> int:
    """Be a node of the cluster until SIGTERM or Ctrl-C (exit code 0), or until no head answers for a minute (1).

    The credentials of the store are this node's own: nothing secret comes with a task.
    """
    from service.engine import cluster
    from service.storage.objects import Objects

    configure_logs()
    settings = Settings.from_environment(os.environ, data_dir=arguments.data_dir)
    settings.prepare()
    address = settings.ray_address or ""
    cluster.parse_address(address)
    cluster.authenticate(os.environ)
    Objects.open(settings.objects_url)
    stopping = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    processes.adopt_orphans()
    try:
        while not stopping.is_set():
            _be_a_node(address, settings.workers or 1, stopping)
    finally:
        processes.end_descendants(within=0.5)
    return 0


def _be_a_node(address: str, cpus: int, stopping: threading.Event) -> None:
    """Join the head and stay until one of us stops; raises ClusterError where there is no head, or not one for us."""
    from service.engine import cluster

    cluster.wait_for_head(address, stopping=stopping.is_set)
    if stopping.is_set():
        return
    cluster.check_tokens(address, os.environ)
    node = cluster.Node(cluster.worker_words(address, cpus=cpus), os.environ)
    log.info("joining address=%s workers=%d", address, cpus)
    try:
        while node.alive() and not stopping.wait(0.2):
            pass
    finally:
        node.stop()
    if not stopping.wait(AGAIN_SECONDS):
        log.warning("the node ended, joining again address=%s", address)
