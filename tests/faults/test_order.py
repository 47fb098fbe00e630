"""Whatever beginning of a build a power cut leaves, and whatever is damaged in it: the dataset comes out right, or the job says why not."""

from __future__ import annotations

from collections import Counter

import pytest

from service.kinds import KINDS
from service.storage.seals import DamagedError, seal, unseal
from tests.faults import lines
from tests.faults.damage import damage_to_work
from tests.faults.order import Replay, replays

pytestmark = pytest.mark.slow

EVERY = {"cip": 4, "mixture": 12, "needle": 4, "skipalign": 4, "synl": 20}
"""The so-manyth disk of each record that the tests go on from; `make faults` takes all."""
DAMAGES = {"cip": 18, "mixture": 20, "needle": 5, "skipalign": 40, "synl": 0}


@pytest.fixture(scope="module")
def replay_of(tmp_path_factory):
    made = {}

    def of(kind):
        if kind not in made:
            made[kind] = Replay(tmp_path_factory.mktemp("replay"), kind)
        return made[kind]

    return of


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_build_goes_on_from_any_beginning_of_its_writes(replay_of, kind):
    replay = replay_of(kind)
    written = [step.path for step in replay.steps if step.data is not None]
    assert written.index(f"{lines.TARGET}/manifest.json") == len(written) - 1, "something is written after the manifest"
    figures = replays(replay, every=EVERY[kind])
    assert figures.prefixes >= 3
    assert figures.torn >= 1
    assert figures.wrong == 0


def test_no_manifest_stands_before_the_end_and_every_one_that_does_verifies(replay_of):
    replay = replay_of("cip")
    figures = replays(replay, every=len(list(replay.disks())), first=-1)
    assert (figures.prefixes, figures.committed, figures.wrong) == (1, 1, 0)


@pytest.mark.parametrize("kind", sorted(kind for kind, count in DAMAGES.items() if count))
def test_damage_to_an_unfinished_job_is_made_good_or_told(replay_of, kind):
    figures = damage_to_work(replay_of(kind), DAMAGES[kind], seed=4)
    assert figures.wrong == []
    assert figures.done.total() == DAMAGES[kind]
    assert figures.again + figures.told == figures.done
    assert {"mark", "receipt", "header", "shard"} <= set(figures.done)
    assert figures.again["receipt"] == figures.done["receipt"], "a damaged receipt is built again"
    if kind == "skipalign":
        assert figures.told > Counter(), "nothing damaged was read"


@pytest.mark.parametrize("sealed", [b"", b"\n", seal(b"{}")[:-1], seal(b"{}") + b" ", b" " + seal(b"{}"), b"x" * 65])
def test_what_is_not_as_it_was_sealed_is_named(sealed):
    assert unseal(seal(b"{}"), path="p") == b"{}"
    assert unseal(seal(b""), path="p") == b""
    with pytest.raises(DamagedError, match="work/x is damaged") as caught:
        unseal(sealed, path="work/x")
    assert caught.value.param == "work/x"
