"""Where positions jump: the sampler as a distribution, and the strategies as rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packing.chat_tokens import offsets_of, within
from packing.draws import Draws
from packing.positions import BY_TURNS, NO_GAP, NOT_DRAWN, SKIPPED, TOO_LONG, Sequences, place, position_ids


def placed(turns, *, strategy="outer", probability=1.0, max_position=131072, block=5, seed=0, draw="span"):
    """`turns` int array: sequences of 2 × turns blocks of `block` tokens."""
    turns = np.asarray(turns)
    counts = 2 * turns
    sequences = Sequences(
        responses=within(counts) % 2 == 1,
        lengths=np.full(counts.sum(), block),
        offsets=offsets_of(counts),
        row=np.arange(len(turns)),
        variant=np.zeros(len(turns), np.int64),
    )
    return place(
        sequences,
        strategy=strategy,
        probability=probability,
        max_position=max_position,
        draw=draw,
        draws=Draws(seed, "test"),
    )


def last_of(placement):
    """The last bias of every sequence."""
    return placement.bias[placement.sequences.offsets[1:] - 1]


@pytest.mark.parametrize("turns", [2, 3, 8, 30])
@pytest.mark.parametrize("strategy", ["outer", "inner", "all"])
def test_the_last_bias_is_uniform_whatever_the_number_of_gaps(turns, strategy):
    rows, length = 20_000, 2 * turns * 5
    placement = placed(np.full(rows, turns), strategy=strategy)
    last = last_of(placement)[placement.reason == SKIPPED] / (131072 - length)
    assert len(last) > 0.999 * rows
    counts = np.histogram(last, bins=10, range=(0, 1))[0]
    # 9 degrees of freedom, 99.9% point; methods.md wants 10% above 0.9 of the budget, a chained draw gives 99%
    assert ((counts - len(last) / 10) ** 2 / (len(last) / 10)).sum() < 27.9
    assert 0.09 < (last > 0.9).mean() < 0.11


def test_the_other_draws_are_what_they_are_said_to_be():
    budget = 131072 - 80
    chain = last_of(placed(np.full(20_000, 8), draw="chain")) / budget
    slots = last_of(placed(np.full(20_000, 8), draw="slots")) / budget
    # seven gaps: methods.md gives 99% of the chain's last biases above 0.9 of the budget, and none of the slots'
    assert (chain > 0.9).mean() > 0.98
    assert (slots > 0.9).mean() < 0.001
    assert abs(slots.mean() - 0.5) < 0.01
    first = placed(np.full(20_000, 8), draw="chain").bias.reshape(-1, 16)[:, 2] / budget
    assert abs(first.mean() - 0.5) < 0.01


def test_inner_cuts_are_uniform_parts_of_the_span():
    placement = placed(np.full(20_000, 4), strategy="inner")
    bias = placement.bias.reshape(-1, 8)[:, 1::2][placement.reason == SKIPPED]
    share = bias[:, :3] / bias[:, 3:]
    # order statistics of three uniform numbers have means 1/4, 1/2, 3/4
    assert np.allclose(share.mean(axis=0), [0.25, 0.5, 0.75], atol=0.01)


@pytest.mark.parametrize("strategy", ["all", "pose", "random", "cream"])
def test_positions_cover_the_whole_range(strategy):
    placement = placed(np.full(600 if strategy == "random" else 4000, 6), strategy=strategy)
    covered = np.bincount(placement.positions // 1024, minlength=128)
    assert len(covered) == 128
    assert (covered > 0).mean() > (0.6 if strategy == "cream" else 0.99), "CREAM's tails are thin on purpose"
    assert placement.positions.max() < 131072


def test_pose_is_as_published():
    placement = placed(np.full(20_000, 10), strategy="pose")
    offsets = placement.sequences.offsets
    jump = placement.sequences.lengths.copy()
    moved = placement.bias > 0
    before = np.add.reduceat(np.where(moved, 0, jump), offsets[:-1])[placement.reason == SKIPPED]
    # the first chunk has 1..(N+1)/2 tokens, uniformly; the second is moved by U{0..B}, B included
    assert (before.min(), before.max()) == (1, 50)
    assert abs(before.mean() - 25.5) < 0.5
    last = last_of(placement) / (131072 - 100)
    assert abs(last.mean() - 0.5) < 0.01
    assert ((np.histogram(last, bins=10, range=(0, 1))[0] - 2000) ** 2 / 2000).sum() < 27.9


def test_random_positions_are_a_sample_without_replacement():
    placement = placed(np.full(2000, 2), strategy="random", max_position=41)
    positions = placement.positions.reshape(-1, 20)
    assert (positions[:, 0] == 0).all()
    assert (np.diff(positions, axis=1) > 0).all()
    counts = np.bincount(positions[:, 1:].ravel(), minlength=41)[1:]
    assert len(counts) == 40
    # each of 1..40 is drawn with chance 19/40
    assert abs(counts / 2000 - 19 / 40).max() < 0.05


def test_cream_keeps_head_and_tail_at_the_ends():
    placement = placed(np.full(5000, 20), strategy="cream")
    positions = placement.positions.reshape(-1, 200)
    assert (positions[:, :32] == np.arange(32)).all()
    assert (positions[:, -32:] == np.arange(131072 - 32, 131072)).all()
    middle = positions[:, 32] - 32
    assert abs(middle.mean() / (131072 - 200) - 0.5) < 0.01
    assert abs(middle.std() / (131072 - 200) - 1 / 6) < 0.01


def test_probability_is_the_share_of_rows_that_skip():
    placement = placed(np.full(20_000, 3), probability=0.3)
    assert abs((placement.reason == SKIPPED).mean() - 0.3) < 0.01
    assert set(np.unique(placement.reason)) <= {SKIPPED, NOT_DRAWN}


def test_reasons():
    placement = placed([1, 2, 2], max_position=20)
    assert placement.reason.tolist() == [NO_GAP, TOO_LONG, TOO_LONG]
    assert not placement.bias.any()
    assert placed([1], strategy="none").reason.tolist() == [NO_GAP]
    assert placed([1], strategy="pose", max_position=10).reason.tolist() == [TOO_LONG]


@given(
    turns=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    strategy=st.sampled_from(["outer", "inner", "all", "none", "pose", "random", "cream"]),
    draw=st.sampled_from(["span", "chain", "slots"]),
    max_position=st.integers(2, 300),
    block=st.integers(1, 7),
    seed=st.integers(0, 5),
)
def test_invariants(turns, strategy, draw, max_position, block, seed):
    placement = placed(turns, strategy=strategy, max_position=max_position, block=block, seed=seed, draw=draw)
    offsets, sequences = placement.sequences.offsets, placement.sequences
    ends = offsets_of(sequences.tokens)
    assert sequences.tokens.tolist() == [2 * t * block for t in turns]
    for row in range(len(turns)):
        blocks = slice(offsets[row], offsets[row + 1])
        bias, answers, size = placement.bias[blocks], sequences.responses[blocks], int(sequences.tokens[row])
        positions = placement.positions[ends[row] : ends[row + 1]].astype(int)
        rise = np.diff(bias, prepend=0)
        assert positions[0] == bias[0] == 0
        assert (np.diff(positions) > 0).all()
        every = np.ones(len(answers), bool)
        assert not rise[~{"outer": ~answers, "inner": answers, "none": ~every}.get(strategy, every)].any()
        if strategy != "random":
            plain = np.arange(size) + np.repeat(bias, sequences.lengths[blocks])
            assert positions.tolist() == plain.tolist()
        if placement.reason[row] == SKIPPED:
            assert size - 1 < positions[-1] < max_position
        else:
            assert positions.tolist() == list(range(size))
    assert strategy in BY_TURNS or set(np.unique(placement.reason)) <= {SKIPPED, NO_GAP, TOO_LONG, 4}


def test_a_row_is_placed_alike_in_any_company():
    whole = placed(np.full(50, 3), strategy="all")
    for strategy in ("all", "pose", "random", "cream"):
        whole = placed(np.full(50, 3), strategy=strategy)
        first = placed(np.full(7, 3), strategy=strategy)
        assert np.array_equal(whole.positions[: 7 * 30], first.positions)


def of_blocks(lengths, counts):
    """Sequences of so many blocks each."""
    zeros = np.zeros(len(counts), np.int64)
    return Sequences(
        responses=np.zeros(len(lengths), bool),
        lengths=np.asarray(lengths, np.int64),
        offsets=offsets_of(np.array(counts, np.int64)),
        row=zeros,
        variant=zeros,
    )


def test_position_ids_of_a_worked_example():
    # two rows: blocks of 2 and 3 tokens with a jump of 10 before the second; one block of 2
    positions = position_ids(of_blocks([2, 3, 2], [2, 1]), np.array([0, 10, 0]))
    assert positions.tolist() == [0, 1, 12, 13, 14, 0, 1]
    assert positions.dtype == np.int32


@given(st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 99)), max_size=4), min_size=1, max_size=6))
def test_positions_are_numbers_in_the_sequence_moved_by_the_bias(sequences):
    blocks = [block for sequence in sequences for block in sequence]
    lengths, bias = (np.array([b[i] for b in blocks], np.int64) for i in (0, 1))
    wanted = [
        place + moved
        for sequence in sequences
        for place, moved in enumerate(moved for length, moved in sequence for _ in range(length))
    ]
    found = position_ids(of_blocks(lengths, list(map(len, sequences))), bias)
    assert found.dtype == np.int32
    assert found.tolist() == wanted
