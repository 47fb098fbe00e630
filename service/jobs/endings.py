"""How a job ended, written for certain: a database that is away, or whose answer was lost after its commit, is asked again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import InterfaceError, OperationalError

from service.jobs.job import Job, Lease
from service.jobs.leases import LeaseLostError, LeaseStore

AGAIN_SECONDS = 0.5

log = logging.getLogger("longweave.runner")


def ended(
    store: LeaseStore, lease: Lease, write: Callable[[], Job], *, within: float, stopping: threading.Event
) -> Job:
    """The job as `write`, a fenced ending under `lease`, has left it; tried again for `within` seconds where the database fails.

    A transaction whose answer is lost may stand all the same. The next try then finds the lease gone, and the job itself says whether
    it has ended in this attempt. Raises LeaseLostError where it has not, and the database's error where it stays away, or where the
    runner is `stopping` and cannot wait: the lease then runs out.
    """
    deadline = time.monotonic() + within
    unsure = False
    while True:
        try:
            return write()
        except LeaseLostError:
            job = store.ending(lease) if unsure else None
            if job is None:
                raise
            log.warning("job=%s had %s already, the database's answer was lost", job.id, job.state)
            return job
        except (OperationalError, InterfaceError) as error:
            if time.monotonic() > deadline or stopping.is_set():
                raise
            log.warning("ending not written job=%s error=%s", lease.job_id, type(error).__name__)
            unsure = True
            stopping.wait(AGAIN_SECONDS)
