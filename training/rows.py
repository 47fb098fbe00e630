"""Rows as a trainer takes them, and row groups as flat arrays that are checked to hold such rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.dataset.errors import DatasetError

IGNORED = -100
Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: int32 arrays [n] (`seq_lengths` [sequences], adding up to n); `name` says where it stands."""

    name: str
    input_ids: Tokens
    labels: Tokens
    position_ids: Tokens
    seq_lengths: Tokens


def row_name(file: str, number: int) -> str:
    """How messages name a row."""
    return f"{file}, row {number} (counted from 0)"


class TokenRows:
    """A row group in memory, as flat arrays and offsets, checked to be rows that a model can be trained on."""

    def __init__(self, table: pa.Table, *, file: str, first: int) -> None:
        """`first`: the number of the group's first row in `file`. Raises DatasetError, naming the first bad row."""
        self._file, self._first, self._rows = file, first, table.num_rows
        self._flat: dict[str, Tokens] = {}
        self._offsets: dict[str, NDArray[np.int64]] = {}
        for name in table.schema.names:
            self._flat[name], self._offsets[name] = _flat_list(table.column(name), file, name)
        self._check()
        if "position_ids" not in self._flat:
            self._flat["position_ids"] = contiguous_positions(self._flat["seq_lengths"])
            self._offsets["position_ids"] = self._offsets["input_ids"]

    def row(self, index: int) -> Row:
        """One row, as views."""
        name = row_name(self._file, self._first + index)
        return Row(name=name, **{column: self._cut(column, index) for column in self._flat})

    def _cut(self, column: str, index: int) -> Tokens:
        start, stop = self._offsets[column][index : index + 2]
        return self._flat[column][start:stop]

    def _check(self) -> None:
        """Raise DatasetError, naming the first bad row, unless boundaries add up and no sequence trains across them."""
        offsets, lengths = self._offsets["input_ids"], self._flat["seq_lengths"].astype(np.int64)
        for column in self._flat:
            if column != "seq_lengths":
                uneven = np.diff(self._offsets[column]) != np.diff(offsets)
                self._refuse(np.flatnonzero(uneven), f"{column} and input_ids differ in length")
        ends = np.concatenate([[0], np.cumsum(lengths)])
        uneven = ends[self._offsets["seq_lengths"][1:]] != offsets[1:]
        self._refuse(np.flatnonzero(uneven), "seq_lengths do not add up to the row's tokens")
        sequence_rows = np.repeat(np.arange(self._rows), np.diff(self._offsets["seq_lengths"]))
        self._refuse(sequence_rows[lengths < 1], "seq_lengths holds a sequence without tokens")
        trained_starts = self._flat["labels"][ends[:-1]] != IGNORED
        self._refuse(sequence_rows[trained_starts], f"a sequence's first label is not {IGNORED}")

    def _refuse(self, rows: NDArray[Any], reason: str) -> None:
        if len(rows):
            message = f"{row_name(self._file, self._first + int(rows[0]))}: {reason}"
            raise DatasetError(message, param=self._file)


def _flat_list(column: pa.ChunkedArray, file: str, name: str) -> tuple[Tokens, NDArray[np.int64]]:
    """A list column as flat int32 values and offsets [rows + 1] from 0; nulls and other types are refused."""
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    kind = array.type
    if not ((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_integer(kind.value_type)):
        message = f"{file}: column {name} holds {kind}, not lists of whole numbers"
        raise DatasetError(message, param=file)
    values = array.flatten()
    if array.null_count or values.null_count:
        message = f"{file}: column {name} holds nulls"
        raise DatasetError(message, param=file)
    offsets = array.offsets.to_numpy().astype(np.int64)
    return values.to_numpy().astype(np.int32, copy=False), offsets - offsets[0]


def contiguous_positions(seq_lengths: Tokens) -> Tokens:
    """Positions 0, 1, 2, … in every sequence: int32 [sum of seq_lengths]."""
    lengths = seq_lengths.astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    return (np.arange(int(lengths.sum())) - np.repeat(starts, lengths)).astype(np.int32)
