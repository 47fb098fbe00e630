"""Layout: no token, position or boundary is lost between the rows of a dataset and the packed rows of a step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from packing.dataset.errors import DatasetError
from tests.training.conftest import token_rows
from training.batch import Batch, StepData, ends_of, lay_out, packed_rows, share, steps
from training.errors import TrainingError
from training.stream import DataState, Row

LONGEST = 24 * 3


def made(count: int, seed: int) -> list[Row]:
    columns = ("input_ids", "labels", "position_ids", "seq_lengths")
    return [
        Row(name=f"row {number}", **{column: row[column] for column in columns})
        for number, row in enumerate(token_rows(count, seed=seed))
    ]


def with_states(rows: list[Row]) -> Iterator[tuple[Row, DataState]]:
    return ((row, DataState(epoch=0, row=number + 1)) for number, row in enumerate(rows))


def joined(rows: list[Row], column: str) -> list[int]:
    return np.concatenate([getattr(row, column) for row in rows]).tolist()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(count=st.integers(1, 30), seed=st.integers(0, 10**6), spare=st.integers(0, 200), rows_a_step=st.integers(1, 4))
def test_nothing_is_lost_and_nothing_is_added(count: int, seed: int, spare: int, rows_a_step: int):
    rows, row_tokens = made(count, seed), LONGEST + spare
    found = list(steps(with_states(rows), row_tokens=row_tokens, tokens_per_step=rows_a_step * row_tokens))
    batches = [batch for step in found for batch in step.batches]
    assert all(len(step.batches) == rows_a_step for step in found)
    used = found[-1].state.row if found else 0
    assert [step.state.row for step in found] == sorted(step.state.row for step in found)
    kept = rows[:used]
    assert sum(batch.tokens for batch in batches) == sum(len(row.input_ids) for row in kept)
    if kept:
        check_columns(batches, kept)
    for batch in batches:
        assert batch.tokens <= row_tokens
        check_types(batch)
    for one, two in itertools.pairwise(batches):
        first_of_two = next(
            row for row in rows if row.input_ids.tolist() == two.input_ids[0].tolist()[: len(row.input_ids)]
        )
        assert one.tokens + len(first_of_two.input_ids) > row_tokens or one.tokens == 0


def check_columns(batches: list[Batch], rows: list[Row]) -> None:
    """All columns of the rows stand in the batches, in order; targets are the labels of the next token, inside a
    sequence."""
    assert torch.cat([batch.input_ids[0] for batch in batches]).tolist() == joined(rows, "input_ids")
    assert torch.cat([batch.position_ids[0] for batch in batches]).tolist() == joined(rows, "position_ids")
    lengths = [length for batch in batches for length in batch.cu_seq_lens.diff().tolist()]
    assert lengths == joined(rows, "seq_lengths")
    targets = [t for batch in batches for t in batch.targets[0].tolist()]
    ends, labels = np.cumsum(lengths).tolist(), joined(rows, "labels")
    starts = {0, *ends}
    assert targets == [-100 if t + 1 in starts else labels[t + 1] for t in range(len(labels))]


def check_types(batch: Batch) -> None:
    for tensor in (batch.input_ids, batch.position_ids, batch.targets):
        assert tensor.shape == (1, batch.tokens)
        assert tensor.dtype == torch.int32
    assert batch.cu_seq_lens.dtype == torch.int32
    assert batch.cu_seq_lens[0] == 0
    assert batch.cu_seq_lens[-1] == batch.tokens
    assert batch.max_length == int(batch.cu_seq_lens.diff().max())


def test_a_row_that_does_not_fit_starts_the_next_and_is_not_counted_before():
    rows = made(6, 0)
    sizes = [len(row.input_ids) for row in rows]
    held, state, _ = next(packed_rows(with_states(rows), sum(sizes[:3]) + sizes[3] - 1))
    assert [row.name for row in held] == ["row 0", "row 1", "row 2"]
    assert state.row == 3


def test_a_row_that_no_packed_row_can_hold_is_named_with_what_to_set():
    rows = made(6, 0)
    longest = max(rows, key=lambda row: len(row.input_ids))
    size = len(longest.input_ids)
    with pytest.raises(DatasetError, match=f"{longest.name} has {size} tokens.*set batch.row_tokens to {size} or more"):
        list(packed_rows(with_states(rows), size - 1))
    assert sum(len(held) for held, _, _ in packed_rows(with_states(rows), size)) > 0


def test_rows_without_tokens_are_passed_over():
    empty = Row(
        name="empty", **dict.fromkeys(("input_ids", "labels", "position_ids", "seq_lengths"), np.zeros(0, np.int32))
    )
    rows = [empty, *made(3, 0), empty, *made(3, 1)]
    found = list(packed_rows(with_states(rows), LONGEST))
    assert sum(len(held) for held, _, _ in found) > 2
    assert all(row.name != "empty" for held, _, _ in found for row in held)
    assert all(lay_out(held).max_length > 0 for held, _, _ in found)


def test_a_step_is_a_whole_number_of_packed_rows():
    rows = made(40, 7)
    found: list[StepData] = list(steps(with_states(rows), row_tokens=LONGEST, tokens_per_step=3 * LONGEST))
    assert len(found) > 5
    assert {len(step.batches) for step in found} == {3}


@settings(derandomize=True, deadline=None, max_examples=40)
@given(world=st.integers(1, 6), times=st.integers(1, 3), seed=st.integers(0, 100))
def test_ranks_share_a_step_without_loss_or_repeat(world: int, times: int, seed: int):
    """Every world size that divides a step trains on the same packed rows, each on one rank alone, evenly."""
    count = world * times
    data = next(steps(with_states(made(count * 4, seed) * 3), row_tokens=LONGEST, tokens_per_step=count * LONGEST))
    shares = [share(data, rank, world) for rank in range(world)]
    assert {len(part.batches) for part in shares} == {times}
    assert {part.state for part in shares} == {data.state}
    together = sorted(id(batch) for part in shares for batch in part.batches)
    assert together == sorted(id(batch) for batch in data.batches)
    assert share(data, 0, 1) == data
    assert [id(batch) for batch in share(data, world - 1, world).batches] == [
        id(batch) for number, batch in enumerate(data.batches) if number % world == world - 1
    ]


def test_a_world_that_does_not_divide_a_step_is_refused():
    data = next(steps(with_states(made(40, 7)), row_tokens=LONGEST, tokens_per_step=3 * LONGEST))
    with pytest.raises(TrainingError, match="3 packed rows cannot be shared evenly by 2 ranks"):
        share(data, 0, 2)
    with pytest.raises(ValueError, match="no rank 3 among 3"):
        share(data, 3, 3)


def test_long_rows_are_dropped_and_counted_alike_from_any_step_on():
    rows = made(60, 3)
    sizes = sorted(len(row.input_ids) for row in rows)
    row_tokens = sizes[45]
    epochs = [(row, DataState(epoch=epoch, row=n + 1)) for epoch in (4, 5, 6) for n, row in enumerate(rows)]
    whole = list(steps(iter(epochs), row_tokens=row_tokens, tokens_per_step=2 * row_tokens, drop=True))
    assert 35 < sum(step.dropped for step in whole) <= 3 * sum(size > row_tokens for size in sizes)
    compared = 0
    for number, step in enumerate(whole[:-1]):
        rest = [pair for pair in epochs if (pair[1].epoch, pair[1].row) > (step.state.epoch, step.state.row)]
        again = next(steps(iter(rest), row_tokens=row_tokens, tokens_per_step=2 * row_tokens, drop=True))
        assert (again.dropped, again.state) == (whole[number + 1].dropped, whole[number + 1].state)
        compared += 1
    assert compared > 20
    with pytest.raises(DatasetError, match=r"data\.too_long to drop"):
        list(steps(iter(epochs), row_tokens=row_tokens, tokens_per_step=row_tokens))
    with pytest.raises(DatasetError):  # nothing is kept in a whole epoch: no endless search
        list(steps(iter(epochs), row_tokens=1, tokens_per_step=1, drop=True))


@settings(derandomize=True, deadline=None, max_examples=80)
@given(count=st.integers(1, 8), seed=st.integers(0, 10**6), most=st.integers(1, 160))
def test_the_ends_of_a_row_keep_what_they_were(count: int, seed: int, most: int):
    batch = lay_out(made(count, seed))
    ends = ends_of(batch, most)
    if batch.tokens <= most:
        assert ends is batch
        return
    head, tail = most - most // 2, most // 2
    kept = [*range(head), *range(batch.tokens - tail, batch.tokens)]
    assert ends.tokens == most == len(kept)
    for name in ("input_ids", "position_ids"):
        assert getattr(ends, name)[0].tolist() == getattr(batch, name)[0, kept].tolist()
    numbers = [np.repeat(np.arange(len(b) - 1), np.diff(b)) for b in (batch.cu_seq_lens, ends.cu_seq_lens)]
    before, after = numbers[0][kept], numbers[1]
    assert (np.diff(before) != 0).tolist() == (np.diff(after) != 0).tolist()
    assert (ends.cu_seq_lens.diff() > 0).all()
    assert ends.max_length == np.bincount(after).max()
    wanted = batch.targets[0, kept].tolist()
    wanted[head - 1] = -100
    assert ends.targets[0].tolist() == wanted
