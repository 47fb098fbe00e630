"""Rows of tokens in an order that is a pure function of (shuffle seed, epoch), from any row on.

Row groups are permuted, then the rows inside each: one row group is in memory at a time, and a row's place in the epoch
is a number. So the whole state of a stream is (epoch, rows consumed), and one resumed there gives exactly the remaining
rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from packing.dataset.errors import DatasetError
from packing.dataset.manifest import DataFile
from training.source import Source

IGNORED = -100
Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataState:
    """Where a stream stands: `row` rows of `epoch` are consumed (both from 0)."""

    epoch: int = 0
    row: int = 0

    def to_json(self) -> dict[str, int]:
        """The state as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: int32 arrays [n] (`seq_lengths` [sequences], adding up to n); `name` says where it stands."""

    name: str
    input_ids: Tokens
    labels: Tokens
    position_ids: Tokens
    seq_lengths: Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """A row group of a shard; `first` is the number of its first row in the file, `longest` the tokens of its
    longest."""

    file: DataFile
    index: int
    first: int
    rows: int
    longest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The largest values of a split, from the footers' statistics: what a model and a packed row must hold."""

    position: int
    token_id: int
    row_tokens: int


class RowStream:
    """The rows of one split of a dataset, streamed by row group."""

    def __init__(self, source: Source, *, seed: int, split: str = "train") -> None:
        """Read every shard's footer.

        Raises DatasetError where a shard is damaged, holds other columns than rows of tokens, or the split has no rows.
        """
        self._source = source
        self._seed = seed
        self._groups: list[_Group] = []
        self._largest: dict[str, int] = {}
        for file in source.manifest.files:
            if file.split == split:
                self._add(file)
        self.rows = sum(group.rows for group in self._groups)
        if not self.rows or not self._largest["n_tokens"]:
            message = f"the dataset {source.manifest.name!r} has no tokens in its split {split!r}: nothing to train on"
            raise DatasetError(message)

    @property
    def extent(self) -> Extent:
        """The split's largest position, token id and row; without position_ids the longest sequence's last."""
        largest = self._largest
        position = largest.get("position_ids", largest["seq_lengths"] - 1)
        return Extent(position=position, token_id=largest["input_ids"], row_tokens=largest["n_tokens"])

    def rows_from(self, state: DataState) -> Iterator[tuple[Row, DataState]]:
        """Rows for ever, epoch after epoch, from `state` on, each with the state after it."""
        epoch, skip = state.epoch, state.row
        if not 0 <= skip <= self.rows:
            message = f"row {skip} lies outside the {self.rows} rows of an epoch"
            raise ValueError(message)
        while True:
            for consumed, row in self._epoch(epoch, skip):
                yield row, DataState(epoch=epoch, row=consumed)
            epoch, skip = epoch + 1, 0

    def first_longer_than(self, tokens: int) -> tuple[str, int] | None:
        """Name and length of the first row with more than `tokens` tokens; reads nothing where no footer shows one."""
        for group in self._groups:
            if group.longest <= tokens:
                continue
            lengths = _read_group(self._source, group, ["n_tokens"]).column("n_tokens").to_numpy()
            over = np.flatnonzero(lengths > tokens)
            if len(over):
                return _row_name(group, int(over[0])), int(lengths[over[0]])
        return None

    def _add(self, file: DataFile) -> None:
        footer = self._source.footer(file)
        names = set(footer.schema.to_arrow_schema().names)
        needed = {"input_ids", "labels", "seq_lengths", "n_tokens"}
        if not needed <= names:
            kind = self._source.manifest.kind
            message = (
                f"{file.path} holds no rows of tokens (no column {', '.join(sorted(needed - names))}): this version "
                f"trains on tokenised datasets such as skipalign and cip, not on the messages of kind {kind}"
            )
            raise DatasetError(message, param=file.path)
        if footer.num_rows != file.rows:
            message = f"{file.path} has {footer.num_rows} rows, the manifest says {file.rows}"
            raise DatasetError(message, param=file.path)
        first = 0
        for index in range(footer.num_row_groups):
            group = footer.row_group(index)
            if group.num_rows:
                largest = _largest_values(group, file)
                longest = largest["n_tokens"]
                self._groups.append(_Group(file=file, index=index, first=first, rows=group.num_rows, longest=longest))
                self._largest = {name: max(value, self._largest.get(name, 0)) for name, value in largest.items()}
            first += group.num_rows

    def _epoch(self, epoch: int, skip: int) -> Iterator[tuple[int, Row]]:
        """The rows of an epoch after the first `skip`, each with the count of rows consumed with it."""
        consumed = 0
        for position in permutation(self._seed, epoch, 0, len(self._groups)).tolist():
            group = self._groups[position]
            if consumed + group.rows <= skip:
                consumed += group.rows
                continue
            rows = _Rows(group, _read_group(self._source, group, None))
            for row in permutation(self._seed, epoch, position + 1, group.rows).tolist():
                consumed += 1
                if consumed > skip:
                    yield consumed, rows.row(row)


def permutation(seed: int, epoch: int, stream: int, count: int) -> NDArray[np.int64]:
    """A permutation of range(count), the same for ever: Philox with key (seed, epoch), counter from (0, 0, 0, stream).

    Raw draws are sorted, because numpy promises the bits of a generator but not what `permutation` makes of them.
    """
    key, counter = np.array([seed, epoch], np.uint64), np.array([0, 0, 0, stream], np.uint64)
    draws = np.random.Philox(key=key, counter=counter).random_raw(count)
    return np.argsort(np.asarray(draws), kind="stable")


def _largest_values(group: pq.RowGroupMetaData, file: DataFile) -> dict[str, int]:
    """The largest value of the columns that a model or a packed row must hold, from a row group's statistics."""
    largest: dict[str, int] = {}
    for number in range(group.num_columns):
        column = group.column(number)
        name = column.path_in_schema.split(".")[0]
        if name not in {"position_ids", "input_ids", "n_tokens", "seq_lengths"}:
            continue
        statistics = column.statistics
        if statistics is None or not statistics.has_min_max:
            message = f"{file.path} has no statistics of {name}: it was not written by Longweave's writer"
            raise DatasetError(message, param=file.path)
        if statistics.min < 0:
            message = f"{file.path}: column {name} holds {statistics.min}; it may hold nothing below 0"
            raise DatasetError(message, param=file.path)
        largest[name] = int(statistics.max)
    return largest


def _row_name(group: _Group, row: int) -> str:
    return f"{group.file.path}, row {group.first + row} (counted from 0)"


def _read_group(source: Source, group: _Group, columns: list[str] | None) -> pa.Table:
    """Read one row group (`columns`: those named, else those a row is made of); page checksums are verified."""
    name = group.file.path
    with source.open(group.file) as parquet:
        if columns is None:
            kept = ("input_ids", "labels", "position_ids", "seq_lengths")
            columns = [column for column in kept if column in parquet.schema_arrow.names]
        try:
            table = parquet.read_row_group(group.index, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            message = f"{name} is damaged in row group {group.index} ({error})"
            raise DatasetError(message, param=name) from error
    return table.combine_chunks()


class _Rows:
    """A row group in memory, as flat arrays and offsets, checked to be rows that a model can be trained on."""

    def __init__(self, group: _Group, table: pa.Table) -> None:
        self._group = group
        self._flat: dict[str, Tokens] = {}
        self._offsets: dict[str, NDArray[np.int64]] = {}
        for name in table.schema.names:
            self._flat[name], self._offsets[name] = _flat_list(table.column(name), group.file.path, name)
        self._check()
        if "position_ids" not in self._flat:
            self._flat["position_ids"] = contiguous_positions(self._flat["seq_lengths"])
            self._offsets["position_ids"] = self._offsets["input_ids"]

    def row(self, index: int) -> Row:
        """One row, as views."""
        name = _row_name(self._group, index)
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
        sequence_rows = np.repeat(np.arange(self._group.rows), np.diff(self._offsets["seq_lengths"]))
        self._refuse(sequence_rows[lengths < 1], "seq_lengths holds a sequence without tokens")
        trained_starts = self._flat["labels"][ends[:-1]] != IGNORED
        self._refuse(sequence_rows[trained_starts], f"a sequence's first label is not {IGNORED}")

    def _refuse(self, rows: NDArray[Any], reason: str) -> None:
        if len(rows):
            message = f"{_row_name(self._group, int(rows[0]))}: {reason}"
            raise DatasetError(message, param=self._group.file.path)


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
