"""Runs of numbers copied end to end: as an index for every number would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packing import runs
from packing.runs import places, runs_of, taken


def test_runs_are_what_an_index_for_every_number_gives():
    generator = np.random.default_rng(5)
    values = generator.integers(0, 2**16, 500).astype(np.uint16)
    neighbours = 0
    for _ in range(200):
        lengths = generator.integers(0, 9, generator.integers(0, 30))
        starts = generator.integers(0, 480, len(lengths))
        for i in np.flatnonzero(generator.random(max(len(lengths) - 1, 0)) < 0.5):
            starts[i + 1] = min(starts[i] + lengths[i], 480)
        neighbours += int((starts[1:] == starts[:-1] + lengths[:-1]).sum())
        expected = [values[a + k] for a, n in zip(starts, lengths, strict=True) for k in range(n)]
        found = runs_of(values, starts, lengths)
        assert found.dtype == values.dtype
        assert found.tolist() == expected
    assert neighbours > 1000


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 3))
def test_places_are_where_flags_are_set(flags, step):
    given_flags = np.array(flags, bool)[::step]
    assert places(given_flags).tolist() == [i for i, flag in enumerate(given_flags.tolist()) if flag]
    many = np.zeros(1000, bool)
    many[: len(given_flags)] = many[-1] = given_flags.any()
    assert np.array_equal(places(many), np.flatnonzero(many))


@pytest.mark.parametrize("few", [0, 100], ids=["by Arrow", "by numpy"])
def test_what_is_taken_is_what_an_index_gives(monkeypatch, few):
    monkeypatch.setattr(runs, "FEW", few)
    values = np.arange(7, dtype=np.int32) ** 2
    numbers = np.array([6, 0, 3, 3], np.int32)
    assert taken(values, numbers).tolist() == [36, 0, 9, 9]
    assert taken(values, numbers).dtype == np.int32
    assert taken(values, numbers[:0]).tolist() == []
    for wrong in (7, -1):
        with pytest.raises(IndexError):
            taken(values, np.array([0, wrong], np.int32))
