"""The rows of a dataset in an order that is a pure function of (shuffle seed, epoch), from any row on.

Row groups are permuted, then the rows inside each: one row group is in memory at a time, and a row's place in the epoch
is a number. So the whole state of a stream is (epoch, rows consumed), and one resumed there gives exactly the remaining
rows. Rows of messages are tokenised when their turn comes, and not at all where they are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from packing.dataset.errors import DatasetError
from packing.dataset.manifest import DataFile
from training.rows import IGNORED, Row, TokenRows, contiguous_positions, row_name
from training.source import Source

__all__ = ["IGNORED", "DataState", "Extent", "Row", "RowStream", "contiguous_positions", "permutation"]

COLUMNS = ("input_ids", "labels", "position_ids", "seq_lengths")
"""What a row of tokens is made of; `position_ids` may be missing."""
SPARE = 64
"""Rows of messages may be longer than the one that the dataset counts as its longest by a 64th of its tokens: another
tokenizer, or text that the dataset's own count leaves out (an answer, the template)."""


class Encoder(Protocol):
    """Makes a row of tokens of messages (training.messages.ChatEncoder)."""

    largest_id: int

    def row(self, messages: Sequence[Mapping[str, str]], *, name: str) -> Row:
        """One conversation as a row."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DataState:
    """Where a stream stands: `row` rows of `epoch` are consumed (both from 0)."""

    epoch: int = 0
    row: int = 0

    def to_json(self) -> dict[str, int]:
        """The state as plain JSON."""
        return asdict(self)


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
    """The largest values of a split, from the footers' statistics: what a model and a packed row must hold.

    `jumps`: whether positions jump in any row; `targets`: whether any token is to be learnt; `messages`: whether rows
    are tokenised here, with the model's tokenizer.
    """

    position: int
    token_id: int
    row_tokens: int
    jumps: bool = False
    targets: bool = True
    messages: bool = False


class RowStream:
    """The rows of one split of a dataset, streamed by row group."""

    def __init__(
        self, source: Source, *, seed: int, split: str = "train", encoder: Callable[[], Encoder] | None = None
    ) -> None:
        """Read every shard's footer; `encoder` is called for where the rows turn out to be messages.

        Raises DatasetError where a shard is damaged, holds neither rows of tokens nor messages, or the split has no
        rows.
        """
        self._source = source
        self._seed = seed
        self._open_encoder = encoder
        self._encoder: Encoder | None = None
        self._groups: list[_Group] = []
        self._largest: dict[str, int] = {}
        self._longest_read: tuple[str, int] | None = None
        for file in source.manifest.files:
            if file.split == split:
                self._add(file)
        self.rows = sum(group.rows for group in self._groups)
        if not self.rows or not self._largest["n_tokens"]:
            raise _nothing_in(source, split)

    def extent(self, row_tokens: int) -> Extent:
        """The split's largest position, token id and row, counting no row of messages over `row_tokens` tokens: such a
        one is never trained on. Without position_ids the largest position is the longest sequence's last."""
        largest = self._largest
        if self._encoder is not None:
            longest = self._longest()[1]
            longest = min(longest + longest // SPARE, row_tokens)
            return Extent(
                position=longest - 1,
                token_id=self._encoder.largest_id,
                row_tokens=longest,
                targets=bool(largest["assistants"]),
                messages=True,
            )
        last = largest["seq_lengths"] - 1
        position = largest.get("position_ids", last)
        return Extent(
            position=position,
            token_id=largest["input_ids"],
            row_tokens=largest["n_tokens"],
            jumps=bool(largest.get("skipped", 0)) or position > last,
            targets=largest["labels"] >= 0,
        )

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
        """Name and length of the first row with more than `tokens` tokens; reads nothing where no footer shows one.

        Of rows of messages the longest is tokenised, by the dataset's own count; that another is longer still shows
        when it is met.
        """
        if self._encoder is not None:
            return self._longest() if self._longest()[1] > tokens else None
        for group in self._groups:
            if group.longest <= tokens:
                continue
            lengths = _read_group(self._source, group, ["n_tokens"]).column("n_tokens").to_numpy()
            over = np.flatnonzero(lengths > tokens)
            if len(over):
                return row_name(group.file.path, group.first + int(over[0])), int(lengths[over[0]])
        return None

    def _longest(self) -> tuple[str, int]:
        """Name and tokens of the row of messages that the dataset counts as its longest."""
        if self._longest_read is None:
            assert self._encoder is not None
            group = max(self._groups, key=lambda group: group.longest)
            lengths = _read_group(self._source, group, ["n_tokens"]).column("n_tokens").to_numpy()
            row = _MessageRows(self._source, group, self._encoder).row(int(lengths.argmax()))
            self._longest_read = row.name, len(row.input_ids)
        return self._longest_read

    def _add(self, file: DataFile) -> None:
        footer = self._source.footer(file)
        names = set(footer.schema.to_arrow_schema().names)
        if not names >= {"input_ids", "labels", "seq_lengths", "n_tokens"}:
            if self._open_encoder is None or not names >= {"messages", "n_tokens"}:
                message = (
                    f"{file.path} holds neither rows of tokens (input_ids, labels, seq_lengths, n_tokens) nor messages "
                    f"(messages, n_tokens); its columns are {', '.join(sorted(names)) or 'none'}"
                )
                raise DatasetError(message, param=file.path)
            self._encoder = self._encoder or self._open_encoder()
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
                self._largest = {name: max(value, self._largest.get(name, value)) for name, value in largest.items()}
            first += group.num_rows

    def _epoch(self, epoch: int, skip: int) -> Iterator[tuple[int, Row]]:
        """The rows of an epoch after the first `skip`, each with the count of rows consumed with it."""
        consumed = 0
        for position in permutation(self._seed, epoch, 0, len(self._groups)).tolist():
            group = self._groups[position]
            if consumed + group.rows <= skip:
                consumed += group.rows
                continue
            rows = self._read(group)
            for row in permutation(self._seed, epoch, position + 1, group.rows).tolist():
                consumed += 1
                if consumed > skip:
                    yield consumed, rows.row(row)

    def _read(self, group: _Group) -> TokenRows | _MessageRows:
        if self._encoder is not None:
            return _MessageRows(self._source, group, self._encoder)
        return TokenRows(_read_group(self._source, group, None), file=group.file.path, first=group.first)


class _MessageRows:
    """A row group of messages in memory; a row is tokenised when it is asked for."""

    def __init__(self, source: Source, group: _Group, encoder: Encoder) -> None:
        self._messages = _read_group(source, group, ["messages"]).column("messages")
        self._group = group
        self._encoder = encoder

    def row(self, index: int) -> Row:
        """One row; raises DatasetError, naming it, where it cannot be tokenised."""
        name = row_name(self._group.file.path, self._group.first + index)
        messages: Any = self._messages[index].as_py()
        try:
            talk = [{"role": _text(message["role"]), "content": _text(message["content"])} for message in messages]
        except (TypeError, KeyError) as error:
            problem = f"{name} holds no list of messages with a role and a content that are texts"
            raise DatasetError(problem, param=self._group.file.path) from error
        return self._encoder.row(talk, name=name)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _nothing_in(source: Source, split: str) -> DatasetError:
    """The error for a split without rows, or without any token in them."""
    splits = sorted({file.split for file in source.manifest.files if file.rows})
    if splits and split not in splits:
        message = (
            f"the dataset {source.manifest.name!r} has no split {split!r}; it has {', '.join(splits)}: set data.split"
        )
        return DatasetError(message, param="/data/split")
    message = f"the dataset {source.manifest.name!r} has no tokens in its split {split!r}: nothing to train on"
    return DatasetError(message)


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
        path = column.path_in_schema.split(".")
        if path[0] == "messages":
            if path[-1] == "role":
                statistics = _statistics(column, file, "messages")
                largest["assistants"] = int(statistics.min <= "assistant" <= statistics.max)
        elif path[0] in {"labels", "skipped"}:
            largest[path[0]] = int(_statistics(column, file, path[0]).max)
        elif path[0] in {"position_ids", "input_ids", "n_tokens", "seq_lengths"}:
            statistics = _statistics(column, file, path[0])
            if statistics.min < 0:
                message = f"{file.path}: column {path[0]} holds {statistics.min}; it may hold nothing below 0"
                raise DatasetError(message, param=file.path)
            largest[path[0]] = int(statistics.max)
    return largest


def _statistics(column: pq.ColumnChunkMetaData, file: DataFile, name: str) -> pq.Statistics:
    statistics = column.statistics
    if statistics is None or not statistics.has_min_max:
        message = f"{file.path} has no statistics of {name}: it was not written by Longweave's writer"
        raise DatasetError(message, param=file.path)
    return statistics


def _read_group(source: Source, group: _Group, columns: list[str] | None) -> pa.Table:
    """Read one row group (`columns`: those named, else those a row is made of); page checksums are verified."""
    name = group.file.path
    with source.open(group.file) as parquet:
        if columns is None:
            columns = [column for column in COLUMNS if column in parquet.schema_arrow.names]
        try:
            table = parquet.read_row_group(group.index, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            message = f"{name} is damaged in row group {group.index} ({error})"
            raise DatasetError(message, param=name) from error
    return table.combine_chunks()
