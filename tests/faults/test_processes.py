"""The short form of the kills of everything that runs, on a real Ray. A campaign that kills nothing fails."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.faults import processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

VICTIMS = ("worker", "api", "raylet", "worker", "runner", "worker")


def test_whatever_dies_no_job_is_lost_and_nothing_is_left(tmp_path):
    # A lease this short runs out by itself on a busy machine: attempts are no measure here.
    stack = processes.Stack(tmp_path / "stack", LEASE_SECONDS="2", RETRY_SECONDS="0", MAX_ATTEMPTS="10")
    try:
        found = processes.kills(stack, VICTIMS, np.random.default_rng(2))
    finally:
        stack.close()
    found.left = stack.left
    assert found.delivered == Counter(VICTIMS)
    assert found.figures.jobs >= len(VICTIMS) // 2
    assert found.answers[200] > 0
    assert found.sound(), found.told()
