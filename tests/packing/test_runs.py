"""Runs of numbers copied end to end: as an index for every number would."""

from __future__ import annotations

import numpy as np

from packing.runs import runs_of


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
