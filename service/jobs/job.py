"""A job and its states. Pure: what may follow what is decided here, and the store's SQL is made from it.

queued ──claim──▶ running ──succeed──▶ succeeded
  ▲  │              │ │ └───fail─────▶ failed
  │  └─cancel─▶ cancelled ◀── stop ── cancelling ◀──cancel── running
  └── retry, release, expire ──┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """No event changes the state any more."""
        return self in ENDED

    @property
    def owned(self) -> bool:
        """A runner holds the job by a lease."""
        return self in OWNED


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
OWNED = frozenset({State.RUNNING, State.CANCELLING})
LOWEST_PRIORITY, HIGHEST_PRIORITY = -10, 10


class Event(StrEnum):
    """What may happen to a job."""

    CLAIM = "claim"  # a runner takes it
    SUCCEED = "succeed"  # its dataset is committed
    FAIL = "fail"  # an error that trying again would not mend, or the last attempt
    RETRY = "retry"  # an error that may pass
    RELEASE = "release"  # the runner is told to stop and hands the job back
    EXPIRE = "expire"  # the runner has been silent for longer than its lease
    EXHAUST = "exhaust"  # as expire, with no attempt left
    CANCEL = "cancel"  # somebody asks for it
    STOP = "stop"  # the runner has seen that and stopped


_TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.QUEUED: {Event.CLAIM: State.RUNNING, Event.CANCEL: State.CANCELLED},
    State.RUNNING: {
        Event.SUCCEED: State.SUCCEEDED,
        Event.FAIL: State.FAILED,
        Event.RETRY: State.QUEUED,
        Event.RELEASE: State.QUEUED,
        Event.EXPIRE: State.QUEUED,
        Event.EXHAUST: State.FAILED,
        Event.CANCEL: State.CANCELLING,
    },
    # Who was told that the job is being cancelled never sees it succeed: whatever the runner reports now ends in
    # cancelled.
    State.CANCELLING: {
        Event.STOP: State.CANCELLED,
        Event.FAIL: State.CANCELLED,
        Event.RETRY: State.CANCELLED,
        Event.RELEASE: State.CANCELLED,
        Event.EXPIRE: State.CANCELLED,
        Event.EXHAUST: State.CANCELLED,
        Event.CANCEL: State.CANCELLING,
    },
    State.SUCCEEDED: {},
    State.FAILED: {},
    State.CANCELLED: {Event.CANCEL: State.CANCELLED},
}


def transition(state: State, event: Event) -> State | None:
    """The state after `event`, or None where the event is refused in `state`. Total: defined for every pair."""
    return _TRANSITIONS[state].get(event)


def sources(event: Event) -> dict[State, State]:
    """Every state that takes `event`, with the state after it."""
    return {state: after for state in State if (after := transition(state, event)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job has come, counted from its receipts."""

    shards_done: int = 0
    shards_total: int | None = None
    rows: int = 0
    tokens: int = 0
    bytes: int = 0
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the store has it. Times are seconds since 1970 by the database's clock."""

    id: str
    kind: str
    name: str
    state: State
    spec: Mapping[str, Any]
    target: str
    """The id its dataset will have."""
    key_id: str = ""
    """Its owner: that of the key it was submitted with, "" where the service had none."""
    progress: Progress = field(default_factory=Progress)
    error: Mapping[str, Any] | None = None
    attempt: int = 0
    priority: int = 0
    """Of jobs that wait the highest is claimed first."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def dataset_id(self) -> str | None:
        """The dataset's id, once there is one."""
        return self.target if self.state is State.SUCCEEDED else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A runner's hold on a job. Every write a runner makes is fenced by it."""

    job_id: str
    owner: str
    attempt: int
