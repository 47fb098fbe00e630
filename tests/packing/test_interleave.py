"""Chunks and their order, as arrays in and arrays out."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packing.draws import Draws
from packing.interleave import (
    chunk_counts,
    chunk_lengths,
    equal_cuts,
    random_cuts,
    round_of,
    scattered,
    woven,
)

DRAWS = Draws(0, "test")


def names(counts, order, letters="ABCDEFGH"):
    every = [f"{letters[u]}{j + 1}" for u, count in enumerate(counts) for j in range(count)]
    return " ".join(every[i] for i in order)


def plain(counts):
    zeros = np.zeros(len(counts), np.int64)
    return {"document": np.arange(len(counts)), "piece": zeros}


def weave(counts, group=None):
    counts = np.array(counts)
    group = np.zeros(len(counts), np.int64) if group is None else np.array(group)
    return names(counts, woven(counts, group, round_of(counts, group, **plain(counts))))


def test_the_papers_example_and_documents_that_drop_out():
    assert weave([3, 3, 3]) == "A1 B1 C1 A2 B2 C2 A3 B3 C3"
    assert weave([2, 1, 2]) == "A1 B1 C1 A2 C2"
    assert weave([2, 2, 2, 2], group=[0, 0, 1, 1]) == "A1 B1 A2 B2 C1 D1 C2 D2"
    assert weave([1]) == "A1"


def test_pieces_of_one_document_that_meet_keep_its_order():
    counts, group = np.array([2, 2, 2]), np.zeros(3, np.int64)
    first = round_of(counts, group, np.array([7, 8, 7]), np.array([3, 0, 4]))
    assert first.tolist() == [0, 0, 2]
    assert names(counts, woven(counts, group, first)) == "A1 B1 A2 B2 C1 C2"
    # a copy or a piece in another group begins anew
    assert round_of(counts, np.array([0, 0, 1]), np.array([7, 8, 7]), np.array([3, 0, 4])).tolist() == [0, 0, 0]


def test_equal_chunks_differ_by_at_most_a_token():
    lengths = np.array([10, 7, 2, 1])
    counts = chunk_counts(lengths, 3)
    assert counts.tolist() == [3, 3, 2, 1]
    sizes = chunk_lengths(lengths, counts, equal_cuts(lengths, counts))
    assert sizes.tolist() == [3, 3, 4, 2, 2, 3, 1, 1, 1]


@pytest.mark.parametrize(("length", "count"), [(5, 3), (6, 2), (4, 4)])
def test_every_set_of_cuts_is_equally_likely(length, count):
    units = 20_000
    lengths, counts = np.full(units, length), np.full(units, count)
    document, zeros = np.arange(units), np.zeros(units, np.int64)
    starts = random_cuts(lengths, counts, document=document, piece=zeros, copy=zeros, draws=DRAWS).reshape(-1, count)
    seen = Counter(map(tuple, starts.tolist()))
    possible = {(5, 3): 6, (6, 2): 5, (4, 4): 1}[length, count]
    assert len(seen) == possible
    expected = units / possible
    assert sum((n - expected) ** 2 / expected for n in seen.values()) < 25, "chi-squared, at most 5 degrees of freedom"


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 3)), min_size=1, max_size=40),
    st.integers(2, 20),
    st.sampled_from(["random", "equal"]),
)
def test_chunks_are_whole_units_cut_in_places_that_differ(items, chunks, cut):
    lengths = np.array([length for length, _ in items])
    counts = chunk_counts(lengths, chunks)
    keys = plain(counts)
    starts = (
        equal_cuts(lengths, counts)
        if cut == "equal"
        else random_cuts(lengths, counts, **keys, copy=keys["piece"], draws=DRAWS)
    )
    sizes = chunk_lengths(lengths, counts, starts)
    assert (sizes > 0).all()
    edges = np.append(0, np.cumsum(counts))
    assert [int(sizes[a:b].sum()) for a, b in itertools.pairwise(edges)] == lengths.tolist()
    group = np.sort(np.array([g for _, g in items]))
    first = round_of(counts, group, **keys)
    unit = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(unit)) - edges[unit]
    for order in (
        woven(counts, group, first),
        scattered(counts, group, **keys, first_round=first, draws=DRAWS),
    ):
        assert sorted(order.tolist()) == list(range(len(unit)))
        assert (np.diff(group[unit[order]]) >= 0).all(), "groups lie end to end"
        for u in range(len(counts)):
            assert number[order][unit[order] == u].tolist() == list(range(counts[u])), "in the document's order"
    rounds = number[woven(counts, group, first)]
    assert all((np.diff(rounds[group[unit] == g]) >= 0).all() for g in set(group.tolist()))


def test_a_cut_depends_on_its_document_alone():
    lengths = np.array([100, 50, 80])
    zeros = np.zeros(3, np.int64)
    keys = {"document": np.array([4, 5, 6]), "piece": zeros, "copy": zeros}
    both = random_cuts(lengths, np.full(3, 4), **keys, draws=DRAWS).reshape(3, 4)
    alone = random_cuts(lengths[1:2], np.full(1, 4), **{name: value[1:2] for name, value in keys.items()}, draws=DRAWS)
    assert both[1].tolist() == alone.tolist()
    assert len({tuple(row) for row in (both % 50).tolist()}) == 3


def test_scattered_slots_are_a_random_permutation():
    """Two documents of two chunks have six arrangements that keep their orders; all come, about equally often."""
    groups = 6000
    counts = np.full(2 * groups, 2)
    group = np.repeat(np.arange(groups), 2)
    zeros = np.zeros(len(counts), np.int64)
    order = scattered(
        counts, group, document=np.arange(len(counts)), piece=zeros, first_round=zeros, draws=Draws(1, "slots")
    )
    unit = np.repeat(np.arange(len(counts)), counts)[order] % 2
    seen = Counter(map(tuple, unit.reshape(-1, 4).tolist()))
    assert len(seen) == 6
    assert sum((n - groups / 6) ** 2 / (groups / 6) for n in seen.values()) < 25
