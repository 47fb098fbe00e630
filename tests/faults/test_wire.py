"""The short form of the lost answers, and the proxy's own reading of PostgreSQL's protocol. A campaign that loses none fails."""

from __future__ import annotations

import pytest

from tests.faults import wire
from tests.service.databases import postgresql

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

__all__ = ["postgresql"]


def test_an_answer_lost_after_a_commit_is_as_good_as_one_that_came(postgresql, tmp_path, monkeypatch):
    monkeypatch.setattr("service.jobs.runner.AWAY_SECONDS", 0.1)
    monkeypatch.setattr("service.jobs.endings.AGAIN_SECONDS", 0.1)
    wanted = {**dict.fromkeys(wire.KINDS, 1), "request": 2}
    found = wire.lost_answers(tmp_path / "house", postgresql, wanted, share=1, seed=0)
    assert found.delivered == wanted
    assert found.charged == 0
    assert found.sound(), found
