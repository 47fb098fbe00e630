"""Bins filled by runs of items: what must hold of any packing, full bins where lengths allow it, and best-fit where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from packing import bin_runs, bins
from packing.bin_runs import filled
from packing.bins import best_fit

COUNT = 40_000


def lognormal(seed, capacity, count=COUNT):
    return np.clip(np.random.default_rng(seed).lognormal(6.2, 1.05, count), 16, capacity).astype(np.int64)


def next_fit(lengths, capacity):
    """How many bins it takes to open a new one whenever an item does not fit."""
    count, room = 0, 0
    for length in lengths.tolist():
        if length > room:
            count, room = count + 1, capacity
        room -= length
    return count


def best_fit_decreasing(lengths, capacity):
    return int(bins._assign(lengths.astype(np.min_scalar_type(capacity)), capacity).max()) + 1


def held(lengths, capacity):
    """Pack, and see to it that every item lies in one bin, in order, bins by their first item, none over its capacity."""
    items, offsets = best_fit(lengths, capacity)
    bin_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    assert np.array_equal(np.sort(items), np.arange(len(lengths)))
    assert (np.diff(items)[np.diff(bin_of) == 0] > 0).all()
    assert (np.diff(items[offsets[:-1]]) > 0).all()
    assert (np.diff(offsets) > 0).all()
    assert np.bincount(bin_of, weights=lengths[items]).max() <= capacity
    again = best_fit(lengths, capacity)
    assert np.array_equal(items, again[0])
    assert np.array_equal(offsets, again[1])
    return len(offsets) - 1


@pytest.mark.parametrize("capacity", [4096, 16_384, 20_000, 32_768, 65_536, 131_072])
@pytest.mark.parametrize("seed", [0, 1])
def test_lengths_of_instructions_take_as_few_bins_as_there_can_be(seed, capacity):
    lengths = lognormal(seed, capacity)
    least = -(-lengths.sum() // capacity)
    assert held(lengths, capacity) <= min(best_fit_decreasing(lengths, capacity), least + 1)


@pytest.mark.parametrize("capacity", [16_384, 32_768, 131_072])
def test_nearly_all_bins_are_full_to_the_last_token(capacity):
    lengths = lognormal(2, capacity, 100_000).astype(np.min_scalar_type(capacity))
    found = filled(lengths, capacity)
    assert found is not None
    inside = np.ones(len(lengths), bool)
    inside[found.left] = False
    tokens = np.bincount(found.bin_of[inside], weights=lengths[inside], minlength=len(found.first))
    assert set(tokens[found.counts > 0]) == {capacity}
    assert np.array_equal(np.bincount(found.bin_of[inside], minlength=len(found.first)), found.counts)
    assert len(found.left) < 0.25 * len(lengths)


ADVERSARIAL = {
    "one length": np.full(COUNT, 700),
    "two lengths": np.where(np.arange(COUNT) % 2, 300, 5000),
    "multiples of 64": lognormal(3, 32_768) // 64 * 64 + 64,
    "rising": np.sort(lognormal(4, 32_768)),
    "falling": -np.sort(-lognormal(5, 32_768)),
    "small ones last": np.concatenate([np.full(COUNT // 2, 9000), np.arange(COUNT // 2) % 500 + 1]),
    "more than half a bin": np.arange(COUNT) % 16_000 + 16_700,
    "short ones at the places held back": np.where(np.arange(COUNT) % 5, lognormal(6, 32_768), 20),
    "ones": np.ones(COUNT, np.int64),
    "whole bins": np.where(np.arange(COUNT) % 50, lognormal(7, 32_768), 32_768),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_no_lengths_take_more_bins_than_best_fit_or_next_fit_gives_them(name):
    lengths, capacity = ADVERSARIAL[name].clip(max=32_768), 32_768
    taken = held(lengths, capacity)
    assert taken <= best_fit_decreasing(lengths, capacity)
    assert taken <= next_fit(lengths, capacity)


def test_of_two_packings_the_one_with_fewer_bins_is_taken(monkeypatch):
    lengths = lognormal(8, 32_768)
    packed = bins._by_runs(lengths.astype(np.uint16), 32_768)
    assert packed is not None
    bin_of, first, counts = packed
    worse = (bin_of, first, np.append(counts, [1, 1, 1]))
    monkeypatch.setattr(bins, "_by_runs", lambda *_: worse)
    _, offsets = best_fit(lengths, 32_768)
    assert len(offsets) - 1 == best_fit_decreasing(lengths, 32_768)


def test_few_items_and_rows_of_few_items_are_left_to_best_fit():
    assert filled(lognormal(9, 32_768, bin_runs.FEWEST - 1).astype(np.uint16), 32_768) is None
    assert filled(lognormal(9, 4096).astype(np.uint16), 4096) is None
