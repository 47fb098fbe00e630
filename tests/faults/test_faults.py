"""The short form of the campaigns: whatever dies or is damaged, no job is lost and no byte is wrong. A campaign without faults fails."""

from __future__ import annotations

import pytest

from service import faults
from tests.faults import campaigns
from tests.faults.campaigns import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("faults") / "data")
    yield made
    made.close()


@pytest.mark.parametrize("point", faults.POINTS)
def test_a_runner_killed_at_a_crash_point(world, point):
    figures = campaigns.kill_at(world, point, campaigns.PASSES.get(point, 1) // 2 or 1)
    assert (figures.delivered, figures.jobs, figures.lost, figures.wrong) == (1, 1, 0, 0)


def test_runners_killed_at_random(world):
    figures = campaigns.kills_at_random(world, 6, seed=1)
    assert figures.delivered >= 6
    assert (figures.lost, figures.wrong) == (0, 0)


def test_a_runner_that_was_asleep_changes_nothing(world):
    figures = campaigns.zombies(world, ["shard_temporary", "receipt_put", "before_manifest"])
    assert (figures.delivered, figures.jobs, figures.lost, figures.wrong) == (3, 3, 0, 0)


def test_damage_to_every_kind_of_file_is_found(world):
    found = campaigns.damage(world.dataset(world.first), 150, seed=2)
    assert found.done == {"data": 50, "documents": 50, "manifest": 50}
    assert found.by_verify["data"] == found.by_training == 50
    assert found.by_verify["documents"] == 50
    assert found.by_verify["manifest"] + found.by_digest == 50
    assert found.by_verify["manifest"] >= 40
