"""Rows laid out into micro-batches of one packed row each, with positions and boundaries kept apart and kept whole.

Rows go in stream order; one that does not fit starts the next packed row. The packed row stays ragged: it ends with its
last real token, so that nothing made up enters the model, costs time or needs masking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from packing.dataset.errors import DatasetError
from training.errors import TrainingError
from training.stream import IGNORED, DataState, Row


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepData:
    """The micro-batches of one optimizer step, and where the data stands after it."""

    batches: tuple[Batch, ...]
    state: DataState


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
    return StepData(batches=data.batches[rank::world], state=data.state)


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


def packed_rows(rows: Iterator[tuple[Row, DataState]], row_tokens: int) -> Iterator[tuple[list[Row], DataState]]:
    """Gather rows greedily into packed rows of at most `row_tokens` tokens, each with the state after its last row.

    Raises DatasetError, naming the row, for one that no packed row can hold. A row without tokens is passed over.
    """
    held: list[Row] = []
    filled = 0
    state: DataState | None = None
    for row, after in rows:
        size = len(row.input_ids)
        if size > row_tokens:
            raise too_long(row.name, size, row_tokens)
        if filled + size > row_tokens:
            assert state is not None
            yield held, state
            held, filled = [], 0
        if size:
            held.append(row)
            filled += size
        state = after


def steps(rows: Iterator[tuple[Row, DataState]], *, row_tokens: int, tokens_per_step: int) -> Iterator[StepData]:
    """Optimizer steps of tokens_per_step / row_tokens packed rows each, for as long as there are rows."""
    batches: list[Batch] = []
    for held, state in packed_rows(rows, row_tokens):
        batches.append(lay_out(held))
        if len(batches) == tokens_per_step // row_tokens:
            yield StepData(batches=tuple(batches), state=state)
            batches = []


def too_long(name: str, size: int, row_tokens: int) -> DatasetError:
    """The error for a row that no packed row can hold; rows are never cut, since that would lose what they teach."""
    message = (
        f"{name} has {size} tokens, more than batch.row_tokens ({row_tokens}): set batch.row_tokens to {size} or more"
    )
    return DatasetError(message, param=name)
