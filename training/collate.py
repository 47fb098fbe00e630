"""Our rows as batches for a stock Hugging Face model: Trainer, TRL or a loop of one's own.

The stock collators pad what they know, rebuild positions from boundaries, or find boundaries in positions. In our rows
the two are different things, so both travel: positions for RoPE, boundaries as the very `cu_seq_lens_*` that
transformers' FlashAttention path takes, or as a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from packing.dataset.errors import DatasetError
from training.errors import TrainingError
from training.influence import sequence_numbers
from training.stream import IGNORED, Row, contiguous_positions

COLUMNS = ("input_ids", "labels", "position_ids", "seq_lengths")


class ColumnsError(TrainingError):
    """Rows that reach the collator without the columns they were written with."""

    code = "missing_columns"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCollator:
    """Makes one batch of rows as `datasets` gives them: input_ids, labels, position_ids, seq_lengths.

    attention="boundaries": the rows end to end as one packed row [1, N], no mask. For a model whose attention is
    `training.ATTENTION` (anywhere) or `flash_attention_2` and its like (CUDA).
    attention="mask": a row each [B, N], padded to the longest, with a float mask [B, 1, N, N] of 0 and the dtype's
    minimum. For a model that keeps `sdpa` or `eager`; the mask takes B·N² numbers, 64 MiB a row at 4,096 tokens.

    The batch: `input_ids`, `labels`, `position_ids` int64 [1, N] or [B, N]; `cu_seq_lens_q` and `_k` int32 [S + 1] over
    the batch's tokens row by row; `max_length_q` and `_k` int; `use_cache` False; under "mask" `attention_mask`. With a
    mask the boundaries move nothing: they are there for check_attention. Labels are unshifted and -100 at every
    sequence's first token, so the model's own shift trains across no boundary.

    pad_to: every row becomes exactly so many tokens long (for torch.compile); padding is a sequence of its own, labelled
    -100. missing_positions="count": rows without position_ids (kind cip has none) count from 0 in every sequence; by
    default they are an error, for trainers drop that column in silence.
    """

    attention: Literal["boundaries", "mask"] = "boundaries"
    pad_to: int | None = None
    pad_token_id: int = 0
    missing_positions: Literal["refuse", "count"] = "refuse"
    mask_dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.attention not in ("boundaries", "mask"):
            message = f"attention is 'boundaries' or 'mask', not {self.attention!r}"
            raise ValueError(message)
        if self.missing_positions not in ("refuse", "count"):
            message = f"missing_positions is 'refuse' or 'count', not {self.missing_positions!r}"
            raise ValueError(message)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """One batch of these rows. Raises ColumnsError, and DatasetError for rows that are not whole."""
        rows = [self._row(feature, number) for number, feature in enumerate(features)]
        if self.attention == "boundaries":
            rows = [_joined(rows)]
        longest = max(len(row.input_ids) for row in rows)
        if self.pad_to is not None and longest > self.pad_to:
            message = (
                f"a row of the batch has {longest} tokens, more than pad_to ({self.pad_to}): raise it to {longest}"
            )
            raise DatasetError(message, param="pad_to")
        width = self.pad_to or longest
        batch = _tensors([self._padded(row, width) for row in rows])
        if self.attention == "mask":
            batch["attention_mask"] = _mask(batch["cu_seq_lens_q"], len(rows), width, self.mask_dtype)
        return batch

    def _row(self, feature: Mapping[str, Any], number: int) -> Row:
        spared = "position_ids" if self.missing_positions == "count" else None
        missing = [name for name in COLUMNS if feature.get(name) is None and name != spared]
        if missing:
            message = (
                f"the rows reach the collator without {' and '.join(missing)} (with {', '.join(feature) or 'nothing'}): "
                "the trainer drops columns that the model's forward does not name; set remove_unused_columns=False"
            )
            if missing == ["position_ids"]:
                message += ", or RowCollator(missing_positions='count') if the dataset has no such column"
            raise ColumnsError(message, param=missing[0])
        columns = {name: np.asarray(feature[name], np.int32) for name in COLUMNS if feature.get(name) is not None}
        if "position_ids" not in columns:
            columns["position_ids"] = contiguous_positions(columns["seq_lengths"])
        return _checked(Row(name=f"row {number} of the batch", **columns))

    def _padded(self, row: Row, width: int) -> Row:
        count = width - len(row.input_ids)
        if not count:
            return row
        return Row(
            name=row.name,
            input_ids=np.concatenate([row.input_ids, np.full(count, self.pad_token_id, np.int32)]),
            labels=np.concatenate([row.labels, np.full(count, IGNORED, np.int32)]),
            position_ids=np.concatenate([row.position_ids, np.arange(count, dtype=np.int32)]),
            seq_lengths=np.concatenate([row.seq_lengths, np.array([count], np.int32)]),
        )


def _checked(row: Row) -> Row:
    """The row; raises DatasetError unless its columns fit together and no sequence trains across its start."""
    size = len(row.input_ids)
    starts = np.cumsum(row.seq_lengths) - row.seq_lengths
    problem = ""
    if not size or len(row.labels) != size or len(row.position_ids) != size:
        problem = f"{size} input_ids, {len(row.labels)} labels and {len(row.position_ids)} position_ids"
    elif (row.seq_lengths < 1).any() or int(row.seq_lengths.sum()) != size:
        problem = f"seq_lengths that do not add up to its {size} tokens (was the row truncated or packed again?)"
    elif (row.labels[starts] != IGNORED).any():
        problem = f"a sequence whose first label is not {IGNORED}: it would be trained from another sequence's end"
    if problem:
        message = f"{row.name} has {problem}"
        raise DatasetError(message)
    return row


def _joined(rows: Sequence[Row]) -> Row:
    """Rows end to end. First labels are -100, so no target crosses from one row into the next."""
    return Row(
        name="the packed row",
        input_ids=np.concatenate([row.input_ids for row in rows]),
        labels=np.concatenate([row.labels for row in rows]),
        position_ids=np.concatenate([row.position_ids for row in rows]),
        seq_lengths=np.concatenate([row.seq_lengths for row in rows]),
    )


def _tensors(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows of one length as a model's arguments, without a mask."""
    lengths = np.concatenate([row.seq_lengths for row in rows])
    bounds = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return {
        "input_ids": torch.from_numpy(np.stack([row.input_ids for row in rows]).astype(np.int64)),
        "labels": torch.from_numpy(np.stack([row.labels for row in rows]).astype(np.int64)),
        "position_ids": torch.from_numpy(np.stack([row.position_ids for row in rows]).astype(np.int64)),
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": int(lengths.max()),
        "max_length_k": int(lengths.max()),
        "use_cache": False,
    }


def _mask(bounds: torch.Tensor, rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Causal attention inside sequences as what is added to the scores: [rows, 1, width, width]."""
    numbers = sequence_numbers(bounds).view(rows, width)
    seen = (numbers[:, :, None] == numbers[:, None, :]).tril()[:, None]
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
