"""The bench runs, every contender does its work, and ratios are what they say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bench.measure import Contender, Race, run


def burn(count):
    def work():
        return sum(1 for _ in range(count))

    return work


def test_ratios_are_ours_to_the_peers_turn_by_turn():
    race = Race(
        title="counting",
        unit="numbers",
        contenders=[Contender("ours", burn(400_000)), Contender("theirs", lambda: burn(400_000)() // 8)],
        aims={"theirs": 5},
    )
    ours, theirs = run(race, 3)
    assert ours.startswith("| counting | ours | ")
    ratio = float(theirs.split("|")[4].split(" times")[0])
    assert 4 < ratio < 16
    assert theirs.rstrip(" |").endswith("aim 5")
    assert [len(contender.rates) for contender in race.contenders] == [3, 3]


@pytest.mark.slow
def test_every_race_is_run():
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--short", "--rounds", "1"],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "/s |" in line]
    assert len(rows) == 3 + 4 + 3
    assert sum(" times (" in row for row in rows) == 7
