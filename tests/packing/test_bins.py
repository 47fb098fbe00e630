"""Best-fit-decreasing in groups against the same one by one, and what packing must never do."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packing.bins import best_fit


def one_by_one(lengths, capacity):
    """The textbook's way: the fills of the bins, sorted."""
    rooms = []
    for size in sorted(lengths, reverse=True):
        fitting = [i for i, room in enumerate(rooms) if room >= size]
        if fitting:
            rooms[min(fitting, key=lambda i: rooms[i])] -= size
        else:
            rooms.append(capacity - size)
    return sorted(capacity - room for room in rooms)


@given(
    lengths=st.lists(st.integers(1, 30), max_size=80),
    capacity=st.integers(30, 100),
)
def test_groups_give_the_bins_of_one_by_one(lengths, capacity):
    sizes = np.array(lengths, np.int64)
    items, offsets = best_fit(sizes, capacity)
    assert sorted(items.tolist()) == list(range(len(lengths)))
    fills = [int(sizes[items[a:b]].sum()) for a, b in pairwise(offsets)]
    assert sorted(fills) == one_by_one(lengths, capacity)
    firsts = [int(items[a]) for a in offsets[:-1]]
    assert firsts == sorted(firsts)
    assert all((np.diff(items[a:b]) > 0).all() for a, b in pairwise(offsets))


@pytest.mark.parametrize("capacity", [4096, 32768])
def test_realistic_lengths_fill_the_bins(capacity):
    lengths = np.clip(np.random.default_rng(0).lognormal(6.2, 1.0, 200_000), 8, 4096).astype(np.int64)
    _, offsets = best_fit(lengths, capacity)
    bins = len(offsets) - 1
    assert lengths.sum() / (bins * capacity) >= 0.9998 or bins == -(-lengths.sum() // capacity)


@pytest.mark.parametrize("lengths", [[0], [5], [3, 9, 1]])
def test_what_no_bin_holds_is_refused(lengths):
    with pytest.raises(ValueError, match="a bin holds"):
        best_fit(np.array(lengths), 4)


def test_no_items_no_bins():
    items, offsets = best_fit(np.array([], np.int64), 10)
    assert (items.tolist(), offsets.tolist()) == ([], [0])
