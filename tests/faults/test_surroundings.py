"""No byte of a dataset depends on where, when, in what language or in what order it was built."""

from __future__ import annotations

import pytest

from tests.faults.surroundings import OTHERS, every_kind, in_surroundings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return every_kind(tmp_path_factory.mktemp("here") / "a")


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_every_kind_has_the_same_bytes_elsewhere(here, tmp_path, name):
    assert in_surroundings(name, tmp_path / "deeper" / name) == here
    assert all("manifest.json" in files for files in here.values())
