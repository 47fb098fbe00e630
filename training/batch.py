"""Rows laid out into micro-batches of one packed row each, with positions and boundaries kept apart and kept whole.

Rows go in stream order; one that does not fit starts the next packed row. The packed row stays ragged: it ends with its
last real token, so that nothing made up enters the model, costs time or needs masking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from packing.dataset.errors import DatasetError
from training.errors import TrainingError
from training.rows import IGNORED, Row
from training.stream import DataState


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One packed row of N tokens in S sequences.

    `input_ids`, `position_ids`, `targets`: int32 [1, N]; `targets[0, t]` is the label of token t + 1 where that one
    belongs to the same sequence, else -100. `cu_seq_lens`: int32 [S + 1], where sequences start and end. `position_ids`
    serve RoPE alone: the boundaries are `cu_seq_lens` and nothing else.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    targets: torch.Tensor
    cu_seq_lens: torch.Tensor
    max_length: int

    @property
    def tokens(self) -> int:
        """Tokens of the packed row."""
        return self.input_ids.shape[1]

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            targets=self.targets.to(device),
            cu_seq_lens=self.cu_seq_lens.to(device),
            max_length=self.max_length,
        )


def ends_of(batch: Batch, most: int) -> Batch:
    """A packed row of at most `most` tokens: its first and its last ones, with their positions, and of every sequence what
    is left of it; the row itself where it is no longer. A sequence without its middle is one whose positions jump."""
    if batch.tokens <= most:
        return batch
    head, tail = most - most // 2, most // 2
    bounds = batch.cu_seq_lens
    kept = bounds.clamp(max=head) + (bounds - (batch.tokens - tail)).clamp(min=0)
    kept = kept.unique_consecutive()  # of a sequence in the middle nothing is left

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor[:, :head], tensor[:, batch.tokens - tail :]], dim=1)

    targets = cut(batch.targets)
    targets[0, head - 1] = IGNORED  # the token it was for has gone
    return Batch(
        input_ids=cut(batch.input_ids),
        position_ids=cut(batch.position_ids),
        targets=targets,
        cu_seq_lens=kept,
        max_length=int(kept.diff().max()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepData:
    """The micro-batches of one optimizer step, where the data stands after it, and how many rows were dropped for
    being too long while it was gathered."""

    batches: tuple[Batch, ...]
    state: DataState
    dropped: int = 0


def share(data: StepData, rank: int, world: int) -> StepData:
    """The packed rows of a step that rank `rank` of `world` data-parallel ranks trains on: every `world`-th from its
    own on, with the state of the whole step.

    A pure function of the step, which is planned before it is shared: whatever divides a step's packed rows trains on
    the same rows in the same steps. Raises TrainingError where `world` does not divide them.
    """
    if not 0 <= rank < world:
        message = f"there is no rank {rank} among {world}"
        raise ValueError(message)
    check_share(len(data.batches), world)
    return StepData(batches=data.batches[rank::world], state=data.state, dropped=data.dropped)


def check_share(count: int, world: int) -> None:
    """Raises TrainingError where `world` ranks cannot share a step's `count` packed rows evenly."""
    if count % world:
        message = (
            f"a step's {count} packed rows cannot be shared evenly by {world} ranks: set batch.tokens_per_step to "
            f"batch.row_tokens times a multiple of {world}"
        )
        raise TrainingError(message, param="/batch/tokens_per_step")


def lay_out(rows: Sequence[Row]) -> Batch:
    """Lay rows end to end into one packed row.

    A sequence's first label is -100 (the stream checks it), so one shift over the whole packed row crosses no boundary.
    """
    labels = np.concatenate([row.labels for row in rows] + [np.array([IGNORED], np.int32)])
    lengths = np.concatenate([row.seq_lengths for row in rows])
    bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int32)]).astype(np.int32)
    return Batch(
        input_ids=torch.from_numpy(np.concatenate([row.input_ids for row in rows]))[None],
        position_ids=torch.from_numpy(np.concatenate([row.position_ids for row in rows]))[None],
        targets=torch.from_numpy(labels[1:])[None],
        cu_seq_lens=torch.from_numpy(bounds),
        max_length=int(lengths.max()),
    )


@dataclass(slots=True, kw_only=True)
class _Held:
    """Rows gathered for one packed row, and how many were dropped on the way for being too long."""

    rows: list[Row] = field(default_factory=list)
    tokens: int = 0
    dropped: int = 0


def packed_rows(
    rows: Iterator[tuple[Row, DataState]], row_tokens: int, *, drop: bool = False
) -> Iterator[tuple[list[Row], DataState, int]]:
    """Gather rows greedily into packed rows of at most `row_tokens` tokens, each with the state after its last row and
    the count of rows dropped since the packed row before.

    Raises DatasetError, naming the row, for one that no packed row can hold, unless such rows are to `drop`. A row
    without tokens is passed over. A whole epoch of rows that are too long is an error either way.
    """
    held = _Held()
    state: DataState | None = None
    kept_in: int | None = None
    passed = 0
    for row, after in rows:
        size = len(row.input_ids)
        kept_in = after.epoch if kept_in is None else kept_in
        if size > row_tokens:
            if not drop or after.epoch > kept_in + 1:
                raise too_long(row.name, size, row_tokens)
            passed += 1
            continue
        kept_in = after.epoch
        if held.tokens + size > row_tokens:
            assert state is not None
            yield held.rows, state, held.dropped
            held = _Held()
        held.dropped, passed = held.dropped + passed, 0  # with the row they stand before, as after a resume
        if size:
            held.rows.append(row)
            held.tokens += size
        state = after


def steps(
    rows: Iterator[tuple[Row, DataState]], *, row_tokens: int, tokens_per_step: int, drop: bool = False
) -> Iterator[StepData]:
    """Optimizer steps of tokens_per_step / row_tokens packed rows each, for as long as there are rows."""
    batches: list[Batch] = []
    dropped = 0
    for held, state, passed in packed_rows(rows, row_tokens, drop=drop):
        batches.append(lay_out(held))
        dropped += passed
        if len(batches) == tokens_per_step // row_tokens:
            yield StepData(batches=tuple(batches), state=state, dropped=dropped)
            batches, dropped = [], 0


def too_long(name: str, size: int, row_tokens: int) -> DatasetError:
    """The error for a row that no packed row can hold; rows are never cut, since that would lose what they teach."""
    message = (
        f"{name} has {size} tokens, more than batch.row_tokens ({row_tokens}): set batch.row_tokens to {size} or more, "
        "or data.too_long to drop"
    )
    return DatasetError(message, param=name)
