"""A full disk ends nothing but attempts, and there is nothing to mend when there is room again."""

from __future__ import annotations

import pytest

from tests.faults.disk import FullDisk, NoDiskError, full_disks, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    try:
        with small_disk(tmp_path_factory.mktemp("disk") / "small") as folder:
            made = FullDisk(folder)
            yield made
            made.close()
    except NoDiskError as error:
        pytest.skip(f"no file system of our own to fill (mount: {error})")


def test_jobs_and_requests_on_a_full_disk_come_to_their_end_when_there_is_room(disk):
    figures = full_disks(disk, [0, 6, 16, 26, 32, 40, 48, 56, 120])
    assert figures.jobs == 9
    assert figures.ended["succeeded"] >= 1, "no attempt had room enough: the disk is too small for this test"
    assert figures.ended["queued insufficient_storage"] >= 2, figures.ended
    assert figures.ended["silent"] >= 1, figures.ended
    assert figures.answers["POST /v1/uploads 507"] >= 2, figures.answers
    assert figures.answers["POST /v1/uploads 201"] >= 1, figures.answers
    assert figures.odd == []
    assert (figures.lost, figures.wrong) == (0, 0)
