"""The state machine: every pair of state and event, written out."""

from __future__ import annotations

import pytest

from service.jobs.job import ENDED, Event, Job, State, sources, transition

Q, R, X = State.QUEUED, State.RUNNING, State.CANCELLING
S, F, C = State.SUCCEEDED, State.FAILED, State.CANCELLED

# rows: events; columns: queued, running, cancelling, succeeded, failed, cancelled; None: refused
MATRIX = {
    Event.CLAIM: (R, None, None, None, None, None),
    Event.SUCCEED: (None, S, None, None, None, None),
    Event.FAIL: (None, F, C, None, None, None),
    Event.RETRY: (None, Q, C, None, None, None),
    Event.RELEASE: (None, Q, C, None, None, None),
    Event.EXPIRE: (None, Q, C, None, None, None),
    Event.EXHAUST: (None, F, C, None, None, None),
    Event.CANCEL: (C, X, X, None, None, C),
    Event.STOP: (None, None, C, None, None, None),
}


def test_the_matrix_is_total():
    assert set(MATRIX) == set(Event)
    assert all(len(row) == len(State) for row in MATRIX.values())


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_transition(state, event):
    assert transition(state, event) is MATRIX[event][list(State).index(state)]


@pytest.mark.parametrize("event", Event)
def test_sources_are_what_the_matrix_says(event):
    row = MATRIX[event]
    assert sources(event) == {state: after for state, after in zip(State, row, strict=True) if after is not None}


def test_an_ended_job_stays_what_it_is():
    moves = {(state, event): transition(state, event) for state in ENDED for event in Event}
    assert {state for (state, _), after in moves.items() if after is not None and after is not state} == set()
    assert all(state.ended for state in ENDED)
    assert not any(state.ended for state in (Q, R, X))


def test_who_asked_for_a_cancel_never_sees_a_success():
    reachable, frontier = set(), {X}
    while frontier:
        state = frontier.pop()
        reachable.add(state)
        frontier |= {after for event in Event if (after := transition(state, event))} - reachable
    assert reachable == {X, C}


def test_a_job_shows_its_dataset_only_when_it_has_one():
    def job(state):
        return Job(id="job_1", kind="k", name="", state=state, spec={}, target="ds_1")

    assert job(S).dataset_id == "ds_1"
    assert [job(state).dataset_id for state in State if state is not S] == [None] * 5
