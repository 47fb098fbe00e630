"""Histograms: runs are counted as if number by number."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from packing.dataset.statistics import Histogram, even_edges

RUNS = st.lists(st.tuples(st.integers(-20, 140), st.integers(0, 60)), max_size=12)
EDGES = st.sets(st.integers(-10, 120), min_size=2, max_size=9).map(sorted)


@given(runs=RUNS, more=RUNS, edges=EDGES)
def test_runs_are_counted_as_if_number_by_number(runs, more, edges):
    by_run, by_number = Histogram(edges), Histogram(edges)
    for some in (runs, more):
        starts, lengths = np.array(some, np.int64).reshape(-1, 2).T
        by_run.add_runs(starts, lengths)
        by_number.add([value for start, length in some for value in range(start, start + length)])
    assert by_run.to_json() == by_number.to_json()


def test_numbers_lie_between_their_edges():
    edges = even_edges(131_072, 128)
    counted = Histogram(edges)
    counted.add_runs(np.array([0, 131_000]), np.array([131_073, 100]))
    inside = [b - a for a, b in pairwise(edges)]
    inside[-1] += 73
    assert counted.counts.tolist() == inside
    assert (counted.below, counted.above, counted.total) == (0, 27, 131_173)
