"""The short form of the restarts of PostgreSQL. A campaign that restarts nothing, or whose restarts nobody noticed, fails."""

from __future__ import annotations

import numpy as np
import pytest

from tests.faults import postgres
from tests.service.databases import postgresql

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

__all__ = ["postgresql"]


def test_restarts_of_the_server_lose_and_double_nothing(postgresql, tmp_path, monkeypatch):
    monkeypatch.setattr("service.jobs.runner.AWAY_SECONDS", 0.2)
    url = postgresql.new_database()
    house = postgres.House(tmp_path / "house", url=url, direct=url)
    try:
        found = postgres.restarts(house, postgresql, 4, np.random.default_rng(1))
    finally:
        house.close()
    assert found.delivered == {"SIGQUIT": 2, "SIGKILL": 2}
    assert found.figures.jobs > 3
    assert found.away > 0
    assert found.followed > 0
    assert found.noticed.total() > 0
    assert found.sound(), found
