"""Who runs the tasks of a job: this process, or Ray core tasks. Payloads and results are JSON bytes; nothing of ours is pickled."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from packing.dataset.errors import LongweaveError
from service.engine.cluster import (
    NODE_ENVIRONMENT,
    OBJECT_STORE_BYTES,
    authenticate,
    check_folder,
    check_tokens,
    parse_address,
)
from service.engine.poison import TRIES
from service.engine.shard_task import run_task
from service.processes import descendants, identity

POLL_SECONDS = 0.2
RECOUNT_SECONDS = 2.0
LANDING_SECONDS = 2.0
"""A cancelled task ends with its worker, in moments; what a node that is gone should have ended is not waited for."""
PILLARS = ("raylet", "gcs_server")
log = logging.getLogger("longweave.runner")

RAY_ENVIRONMENT = NODE_ENVIRONMENT | {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # unset, every socket of local Ray listens on all interfaces
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # a GCS on this machine that is gone for so long does not come back
}


class WorkerLostError(LongweaveError):
    """A worker died under the same task `TRIES` times; `payload` is the task."""

    code = "worker_lost"

    def __init__(self, payload: bytes) -> None:
        super().__init__(f"a worker died {TRIES} times under the same task ({payload.decode()[:200]})")
        self.payload = payload


class Executor(Protocol):
    """Runs tasks and yields their results as they come, in any order; `check` is called at least twice a second and may raise."""

    def run(self, payloads: Sequence[bytes], check: Callable[[], None]) -> Iterator[bytes]: ...

    def settle(self) -> None:
        """Wait until the tasks of a run that was stopped have ended: whoever removes what a job left comes behind its last writer."""
        ...

    def alive(self) -> bool:
        """Whether it can be expected to run anything at all; asked before a job is claimed, so that none is charged an attempt for it."""
        ...


class InlineExecutor:
    """One task after the other, here."""

    def run(self, payloads: Sequence[bytes], check: Callable[[], None]) -> Iterator[bytes]:
        """Yield each payload's result; `check` is called between tasks."""
        for payload in payloads:
            check()
            yield run_task(payload)

    def settle(self) -> None:
        """Nothing: tasks end here before a run does."""

    def alive(self) -> bool:
        """As long as we are."""
        return True


class RayExecutor:
    """Ray core tasks on a local Ray of our own (`address` None) or on a cluster."""

    def __init__(self, *, address: str | None = None, workers: int) -> None:
        self._address = address
        self._workers = workers
        self._task: Any = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._counted, self._counted_at = 1, -math.inf
        self._landing = list[Any]()
        self._pillars = dict[int, tuple[str, str]]()

    def start(self) -> None:
        """Start or join Ray, in a thread of its own that lives until `close`.

        Not in the main thread, where ray.init replaces the process's signal handlers; and the thread must stay, for Ray's processes
        are told by the kernel when the thread that made them ends, and end with it.
        """
        ready, failure = threading.Event(), list[BaseException]()

        def live() -> None:
            try:
                self._boot()
            except BaseException as error:  # handed to the caller's thread below
                failure.append(error)
                return
            finally:
                ready.set()
            self._closing.wait()
            self._shut_down()

        self._closing.clear()
        self._thread = threading.Thread(target=live, name="ray", daemon=True)
        self._thread.start()
        ready.wait()
        if failure:
            raise failure[0]

    def _boot(self) -> None:
        for name, value in (RAY_ENVIRONMENT if self._address is None else NODE_ENVIRONMENT).items():
            os.environ.setdefault(name, value)
        if self._address is None:
            check_folder(os.environ)
        else:
            authenticate(os.environ)
            check_tokens(self._address, os.environ)
        import ray

        if self._address is None:
            # RAY_ADDRESS would send a local start to somebody else's cluster: "local" is said aloud.
            ray.init(
                address="local",
                num_cpus=self._workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
            )
        else:
            host, port = parse_address(self._address)
            where = f"{socket.gethostbyname(host)}:{port}"
            ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
        found = {pid: identity(pid) for pid in descendants(os.getpid())} if self._address is None else {}
        self._pillars = {pid: who for pid, who in found.items() if who is not None and who[0] in PILLARS}
        # Retries are ours to make: Ray's would run a task that kills its worker beside others each time.
        self._task = ray.remote(run_task).options(num_cpus=1, max_retries=0)

    def _shut_down(self) -> None:
        import ray

        self._task = None
        ray.shutdown()

    def close(self) -> None:
        """Stop the local Ray, or leave the cluster. Nothing may be waiting in `run` (Ray aborts the process if something is)."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def alive(self) -> bool:
        """Whether the processes that a local Ray stands on still live; a cluster's are its own business."""
        return all(identity(pid) == who for pid, who in self._pillars.items())

    def settle(self) -> None:
        """Wait until the tasks that were cancelled last have ended with their workers; not for long, where one does not."""
        import ray

        landing, self._landing = self._landing, []
        if landing:
            _, left = ray.wait(landing, num_returns=len(landing), timeout=LANDING_SECONDS)
            if left:
                log.warning("cancelled tasks=%d still run", len(left))

    def _cpus(self) -> int:
        """How many tasks run at once: our workers, or the CPUs of all nodes of the cluster, looked at every other second."""
        if self._address is None:
            return self._workers
        if time.monotonic() - self._counted_at > RECOUNT_SECONDS:
            import ray

            self._counted = max(1, int(ray.cluster_resources().get("CPU", 0)))
            self._counted_at = time.monotonic()
        return self._counted

    def run(self, payloads: Sequence[bytes], check: Callable[[], None]) -> Iterator[bytes]:
        """Yield results as tasks end. Twice as many tasks as workers are in flight; what is left when we stop is cancelled, and
        writes for some moments more: see `settle`.

        A task whose worker dies is tried three times, the last time with nothing beside it: one that only died with its neighbours
        lives then. Raises WorkerLostError for one that does not.
        """
        import ray

        tries: Counter[bytes] = Counter()
        waiting, suspects = list(reversed(payloads)), list[bytes]()
        flying: dict[Any, bytes] = {}
        try:
            while waiting or suspects or flying:
                check()
                self._launch(waiting, suspects, flying)
                done, _ = ray.wait(list(flying), num_returns=1, timeout=POLL_SECONDS)
                for reference in done:
                    payload = flying.pop(reference)
                    result = _result_of(reference)
                    if result is not None:
                        yield result
                        continue
                    tries[payload] += 1
                    if tries[payload] >= TRIES:
                        raise WorkerLostError(payload)
                    (suspects if tries[payload] == TRIES - 1 else waiting).append(payload)
        finally:
            for reference in flying:
                ray.cancel(reference, force=True)
            self._landing = list(flying)

    def _launch(self, waiting: list[bytes], suspects: list[bytes], flying: dict[Any, bytes]) -> None:
        """Put tasks into flight: those that wait, and when these have landed one suspect at a time."""
        while waiting and len(flying) < 2 * self._cpus():
            payload = waiting.pop()
            flying[self._task.remote(payload)] = payload
        if suspects and not flying:
            payload = suspects.pop()
            flying[self._task.remote(payload)] = payload


def _result_of(reference: Any) -> bytes | None:
    """A task's result; None where its worker or node died under it. Raises what the task raised, and what Ray itself meets."""
    import ray
    from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError

    try:
        result: bytes = ray.get(reference)
    except (WorkerCrashedError, OutOfMemoryError, NodeDiedError, ObjectLostError):
        return None
    return result
