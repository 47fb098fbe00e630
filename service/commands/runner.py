"""`longweave runner`: claims jobs and has them built on Ray, its own on loopback, or a cluster whose head may be ours too."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from types import FrameType

from packing.dataset.errors import LongweaveError
from service import processes
from service.logs import configure_logs
from service.settings import Settings

STOP_SECONDS = 3.5
"""From being told to stop to being gone, at most: what Ray has not ended by then is killed."""

log = logging.getLogger("longweave.runner")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `longweave runner`."""
    parser.add_argument("--data-dir", help="where the database and the objects are (LONGWEAVE_DATA_DIR)")
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="stop when standard input ends, as under `serve`"
    )
    parser.add_argument(
        "--ray-head",
        action="store_true",
        help="be the head of a Ray cluster at LONGWEAVE_RAY_ADDRESS, which `longweave worker` joins",
    )


def run(arguments: argparse.Namespace) -> int:
    """Work until SIGTERM or Ctrl-C."""
    settings = Settings.from_environment(os.environ, data_dir=arguments.data_dir)
    configure_logs(settings.log)
    stopping = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    if arguments.until_stdin_closes:
        threading.Thread(target=_wait_for_end, args=(stopping,), name="stdin", daemon=True).start()
    processes.adopt_orphans()
    outcome = _Outcome()
    worker = threading.Thread(
        target=_work, args=(settings, stopping, outcome, arguments.ray_head), name="work", daemon=True
    )
    worker.start()
    while worker.is_alive() and not stopping.is_set():
        worker.join(0.2)
    worker.join(STOP_SECONDS)
    processes.end_descendants(within=0.5)
    if worker.is_alive():
        # Ray is in the middle of something that cannot be interrupted; its processes are gone, and so are we.
        os._exit(1)
    if outcome.error is not None:
        raise outcome.error
    return outcome.code


class _Outcome:
    code = 0
    error: LongweaveError | None = None


def _wait_for_end(stopping: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    stopping.set()


def _work(settings: Settings, stopping: threading.Event, outcome: _Outcome, ray_head: bool) -> None:  # noqa: FBT001
    try:
        if ray_head:
            _with_head(settings, stopping)
        else:
            _run_jobs(settings, stopping)
    except LongweaveError as error:
        outcome.error = error
    except Exception:
        log.exception("the runner stops")
        outcome.code = 1


def _with_head(settings: Settings, stopping: threading.Event) -> None:
    """Run jobs beside a Ray head of ours, which ends with us; it builds too where there are workers to count."""
    from service.engine import cluster

    address = settings.ray_address or ""
    cluster.parse_address(address)
    cluster.authenticate(os.environ)
    head = cluster.Node(cluster.head_words(address, cpus=settings.workers), os.environ)
    try:
        cluster.wait_for_head(address, stopping=lambda: stopping.is_set() or not head.alive())
        if not head.alive():
            message = f"no Ray head starts at {address}: is the port free and the name this machine's? Its logs are below /tmp/ray"
            raise cluster.ClusterError(message, param="LONGWEAVE_RAY_ADDRESS")
        if not stopping.is_set():
            _run_jobs(settings, stopping)
    finally:
        head.stop()


def _run_jobs(settings: Settings, stopping: threading.Event) -> None:
    # Imported here so that `--help` and bad settings are quick.
    from service.engine.executor import InlineExecutor, RayExecutor
    from service.jobs.catalog import Catalog
    from service.jobs.database import open_database
    from service.jobs.hints import Hints
    from service.jobs.leases import LeaseStore
    from service.jobs.runner import IDLE_SECONDS, LISTENING_SECONDS, Parts, Runner
    from service.storage.objects import Objects
    from service.storage.probe import check_store

    settings.prepare()
    objects = Objects.open(settings.objects_url)
    check_store(objects)
    engine = open_database(settings.database_url)
    store = LeaseStore(engine, lease_seconds=settings.lease_seconds, attempts=settings.attempts)
    ray = (
        RayExecutor(address=settings.ray_address, workers=settings.workers)
        if settings.workers or settings.ray_address
        else None
    )
    try:
        if ray is not None:
            ray.start()
        parts = Parts(
            settings=settings,
            store=store,
            catalog=Catalog(engine),
            objects=objects,
            executor=ray or InlineExecutor(),
        )
        with Hints(engine, idle_seconds=IDLE_SECONDS, listening_seconds=LISTENING_SECONDS) as hints:
            runner = Runner(parts, stopping=stopping, hints=hints)
            log.info("ready id=%s workers=%d", runner.id, settings.workers)
            runner.run()
    finally:
        # This thread waits in Ray no longer, so shutting down cannot abort the process.
        if ray is not None:
            ray.close()
        engine.dispose()
