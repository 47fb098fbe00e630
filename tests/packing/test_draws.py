"""The random numbers: known answers, independence of order, uniformity."""

from __future__ import annotations

import numpy as np
import pytest

from packing.draws import Draws, philox

KNOWN = [
    # Random123's known answers of philox4x32-10: counter, key, result
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter, key, result):
    assert tuple(philox(np.array(counter, np.uint64)[:, None], key).ravel().tolist()) == result


def test_a_row_draws_the_same_whoever_asks():
    draws = Draws(7, "test/order")
    rows = np.arange(1000) + 2**33
    whole = draws.uniform(rows, 3, 1)
    order = np.random.default_rng(0).permutation(1000)
    assert np.array_equal(draws.uniform(rows[order], 3, 1), whole[order])
    assert np.array_equal(np.concatenate([draws.uniform(rows[i : i + 1], 3, 1) for i in range(10)]), whole[:10])


def test_quarters_are_the_words_of_one_draw():
    draws, rows = Draws(7, "test/quarters"), np.array([0, 5, 2**33 + 1])
    found = draws.quarters(rows, 3, 2)
    counters = np.array([[3, 3, 3], [2, 2, 2], rows & 0xFFFFFFFF, rows >> 32], np.uint64)
    assert np.array_equal(found * 2**32, philox(counters, draws.key))
    assert np.allclose(found[0], draws.uniform(rows, 3, 2), atol=2**-31)
    many = Draws(1, "test/quarters").quarters(np.arange(5000))
    assert (many >= 0).all()
    assert (many < 1).all()
    assert np.abs(many.mean(axis=1) - 0.5).max() < 0.02
    assert np.abs(np.corrcoef(many) - np.eye(4)).max() < 0.06


def test_seed_path_row_draw_and_variant_all_matter():
    rows = np.arange(50)
    streams = [
        Draws(0, "a").uniform(rows),
        Draws(1, "a").uniform(rows),
        Draws(0, "b").uniform(rows),
        Draws(0, "a").uniform(rows + 50),
        Draws(0, "a").uniform(rows + 2**32),
        Draws(0, "a").uniform(rows, 1),
        Draws(0, "a").uniform(rows, 0, 1),
    ]
    values = np.concatenate(streams)
    assert len(np.unique(values)) == len(values) == 350


def test_integers_are_uniform_over_the_whole_range():
    draws = Draws(0, "test/uniform").integer(9, np.arange(100_000))
    counts = np.bincount(draws, minlength=10)
    assert len(counts) == 10
    # chi-squared with 9 degrees of freedom: 27.9 is its 99.9% point
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 27.9


def test_largest_broadcasts_and_is_reached():
    largest = np.array([0, 1, 2, 10**9])
    drawn = Draws(0, "test/largest").integer(largest[:, None], np.arange(4000)[None, :])
    assert drawn.shape == (4, 4000)
    assert drawn.max(axis=1)[:3].tolist() == [0, 1, 2]
    assert drawn.min(axis=1)[:3].tolist() == [0, 0, 0]
    assert 0.98e9 < drawn[3].max() <= 10**9
