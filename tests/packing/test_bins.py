"""Best-fit-decreasing in groups against the same one by one, and what packing must never do."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packing.bins import best_fit, in_order


def one_by_one(lengths, capacity):
    """The textbook's way: the items of every bin, bins by their first item. Of bins equally full, the one that has been so for longest."""
    waiting, bins = {}, []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [room for room, queue in waiting.items() if queue and room >= lengths[item]]
        if fitting:
            room = min(fitting)
            found = waiting[room].popleft()
        else:
            room, found = capacity, len(bins)
            bins.append([])
        bins[found].append(item)
        waiting.setdefault(room - lengths[item], deque()).append(found)
    return sorted(sorted(items) for items in bins)


def held(items, offsets):
    return [items[a:b].tolist() for a, b in pairwise(offsets)]


@given(
    lengths=st.lists(st.integers(1, 30), max_size=80),
    capacity=st.integers(30, 100),
)
def test_groups_give_the_bins_of_one_by_one(lengths, capacity):
    assert held(*best_fit(np.array(lengths, np.int64), capacity)) == one_by_one(lengths, capacity)


@pytest.mark.parametrize("capacity", [2**16, 2**16 + 1, 2**20])
def test_long_rows_and_many_bins(capacity):
    lengths = np.random.default_rng(0).integers(capacity // 3, capacity + 1, 400).clip(max=capacity)
    lengths[::7] = np.random.default_rng(1).integers(1, 300, len(lengths[::7]))
    assert held(*best_fit(lengths, capacity)) == one_by_one(lengths.tolist(), capacity)
    items, offsets = best_fit(np.full(70_000, capacity), capacity)
    assert items.tolist() == list(range(70_000))
    assert len(offsets) == 70_001


@given(st.lists(st.integers(0, 2**40) | st.integers(0, 3), max_size=50))
def test_an_order_by_digits_is_that_of_a_stable_sort(values):
    assert in_order(np.array(values, np.int64)).tolist() == sorted(range(len(values)), key=values.__getitem__)


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
