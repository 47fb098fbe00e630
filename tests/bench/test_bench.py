"""The bench runs, every contender does its work, and ratios are what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.__main__ import ROWS
from tests.bench.measure import Contender, Race, Timed, measure, run


def burn(count):
    def work():
        return sum(1 for _ in range(count))

    return work


def a_race(**options):
    peer = Contender(name="theirs", work=lambda: burn(400_000)() // 8, aim=5)
    return Race(
        title="counting", unit="numbers", contenders=[Contender(name="ours", work=burn(400_000)), peer], **options
    )


def test_ratios_are_ours_to_the_peers_turn_by_turn():
    race = a_race()
    ours, theirs = run(race, 3)
    assert ours.row().startswith("| counting | ours | ")
    assert 4 < theirs.ratio < 16
    assert theirs.ratio_least <= theirs.ratio <= theirs.ratio_most
    assert theirs.row().endswith("| at least 5 times: met |  |") == (theirs.ratio >= 5)
    assert [len(contender.rates) for contender in race.contenders] == [3, 3]


def test_the_floor_is_the_sum_of_the_best_stages():
    stages = {"reading": lambda: Timed(10, 1.0), "writing": iter([Timed(10, 4.0), Timed(10, 3.0)]).__next__}
    race = Race(
        title="x",
        unit="tokens",
        contenders=[Contender(name="ours", work=lambda: Timed(10, 8.0))],
        floor=stages,
        floor_aim=0.6,
    )
    _, floor = run(race, 2)
    assert floor.figure == pytest.approx(10 / 4)  # a second of reading and the better one of writing
    assert floor.ratio == pytest.approx(0.5)
    assert floor.met is False
    assert "reading 25%, writing 75%" in floor.note


def test_an_absent_peer_is_said_to_be_absent():
    race = Race(
        title="x",
        unit="tokens",
        contenders=[
            Contender(name="ours", work=lambda: Timed(1, 1.0)),
            Contender(name="theirs", work=lambda: pytest.fail("an absent peer was run"), aim=2, absent="not installed"),
        ],
    )
    _, theirs = run(race, 1)
    assert theirs.row() == "|  | theirs | absent |  |  | not installed |"
    assert theirs.to_json() == {"who": "theirs", "unit": "tokens", "note": "not installed"}


def test_a_plain_measure_is_judged_by_its_median():
    line = measure("size", "ours", [3.0, 1.0, 2.0], "B", most=1.5)
    assert (line.figure, line.least, line.most, line.met) == (2.0, 1.0, 3.0, False)


def bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", "--short", "--rounds", "1", *arguments],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        cwd=Path(__file__).parents[2],
    )


def test_a_row_that_is_not_there_is_refused_with_those_that_are():
    done = bench("speed")
    assert done.returncode == 2
    assert "no row speed: there are machine, cip, skipalign, positions, packing" in done.stderr


LINES = {
    "machine": 3,
    "cip": 4,
    "skipalign": 4,
    "positions": 2,
    "packing": 8,
    "synl": 4,
    "needle": 3,
    "machinery": 6,
    "memory": 7,
    "previews": 4,
    "rest": 6,
    "loader": 4,
}
RACES = ("cip", "skipalign", "packing", "synl", "needle", "rest", "loader")


def test_every_row_is_tried_below():
    assert list(LINES) == list(ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [list(LINES)[:7], list(LINES)[7:9], list(LINES)[9:]], ids=" ".join)
def test_every_row_is_run(rows):
    done = bench("--json", *rows)
    assert done.returncode == 0, done.stderr
    machine, *lines = map(json.loads, done.stdout.splitlines())
    assert machine["cores"] > 0
    assert machine["versions"]["numpy"]
    by_row: dict[str, list] = {}
    for line in lines:
        by_row.setdefault(line["row"], []).append(line)
    assert {name: len(of) for name, of in by_row.items()} == {name: LINES[name] for name in rows}
    for line in lines:
        absent = line.get("note", "").startswith("not installed")
        assert absent or line["figure"] > 0 or line["what"] == "the machinery's share of a job"
        ours = line["who"] in ("Longweave", "the bundled worker's stream")
        assert absent or ours or line["row"] not in RACES or line["ratio"] > 0
