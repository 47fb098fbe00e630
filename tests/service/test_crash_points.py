"""The hook for faults: silent by default, exact where it is asked, and every name it knows is a place in the code."""

from __future__ import annotations

import errno
import json
import re
import time
from collections import Counter
from pathlib import Path

import pytest

import service
from service import faults


@pytest.fixture
def plant(tmp_path, monkeypatch):
    def planted(points):
        monkeypatch.setattr(faults, "_passes", Counter())
        monkeypatch.setenv(faults.VARIABLE, json.dumps({"record": str(tmp_path), "points": points}))

    return planted


def test_without_the_variable_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.delenv(faults.VARIABLE, raising=False)
    for name in faults.POINTS:
        faults.crash_point(name)
    assert not list(tmp_path.iterdir())


def test_a_fault_comes_at_its_pass_and_as_often_as_asked(plant, tmp_path):
    plant({"claimed": {"do": "raise", "nth": 2, "times": 2}})
    faults.crash_point("claimed")
    faults.crash_point("cleared")
    for _ in range(2):
        with pytest.raises(faults.InjectedFaultError, match="claimed"):
            faults.crash_point("claimed")
    faults.crash_point("claimed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["claimed.0", "claimed.1"]


def test_a_fault_that_was_delivered_is_not_delivered_by_the_next_process(plant):
    plant({"claimed": {"do": "raise"}})
    with pytest.raises(faults.InjectedFaultError):
        faults.crash_point("claimed")
    faults._passes.clear()
    faults.crash_point("claimed")


def test_full_is_the_kernels_error_and_sleep_sleeps(plant):
    plant({"object_write": {"do": "full"}, "cleared": {"do": "sleep", "seconds": 0.02}})
    with pytest.raises(OSError, match="No space left") as caught:
        faults.crash_point("object_write")
    assert caught.value.errno == errno.ENOSPC
    begun = time.monotonic()
    faults.crash_point("cleared")
    assert time.monotonic() - begun >= 0.02


@pytest.mark.parametrize("points", [{"nowhere": {"do": "kill"}}, {"claimed": {"do": "explode"}}])
def test_what_would_test_nothing_is_refused(plant, points):
    plant(points)
    with pytest.raises(ValueError, match="LONGWEAVE_FAULTS"):
        faults.crash_point("claimed")


def test_every_point_stands_in_the_code():
    code = "".join(path.read_text() for path in Path(service.__file__).parent.rglob("*.py") if path.name != "faults.py")
    for name in faults.POINTS:
        assert re.search(rf'"{name}"', code), f"no code passes {name}"
