"""A digest of the values in a dataset, whatever the encoding, the row groups or the library's version that wrote them."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.dataset.errors import DatasetError
from packing.dataset.schema import TOKENS

FORM = 2
STEP = 65_536
"""Tokens that are compared at a time: what stays in a core's cache is compared four times as fast."""


class ContentDigest:
    """Streams record batches into one sha256 over the logical values.

    Every leaf of the schema has hashers of its own: the lengths of lists and strings, and the values, in little-endian order. Where
    batches begin and end leaves no trace. A column with nulls adds a stream of validity bytes.

    Where they are lists of int32 without nulls, `labels` beside `input_ids` are told by the places (int64) where they begin or end to be
    the ids or change otherwise, what they are there (uint8, 1 for the ids) and their values (int32); `position_ids` by the places where
    one is not the one before and one more, and their values. Both tell every value, in a tenth of the bytes. `form` 1, of datasets
    that were built before, hashes these columns like all others.
    """

    def __init__(self, schema: pa.Schema, form: int = FORM) -> None:
        self.schema = schema
        self._form = form
        self._streams: dict[str, Any] = {}
        self._rows = 0
        told = {field.name for field in schema if form > 1 and field.type == TOKENS and not field.nullable}
        self._labels = Labels() if {"input_ids", "labels"} <= told else None
        self._positions = Positions() if "position_ids" in told else None

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch; raises DatasetError where labels are not as many as ids."""
        self._rows += batch.num_rows
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name == "labels" and self._labels is not None:
                ids = batch.column("input_ids")
                self._add_lengths(name, column)
                self._add_changes(name, self._labels.changes(_tokens(column), _tokens(ids)))
            elif name == "position_ids" and self._positions is not None:
                self._add_lengths(name, column)
                self._add_changes(name, self._positions.changes(_tokens(column)))
            else:
                self._add(name, column)

    def hexdigest(self) -> str:
        """The digest over all rows so far, as 64 hexadecimal digits."""
        whole = hashlib.sha256(f"longweave content {self._form}, {self._rows} rows\n".encode())
        for field in self.schema:
            whole.update(f"{field.name}: {field.type}\n".encode())
        for path in sorted(self._streams):
            whole.update(f"{path} {self._streams[path].hexdigest()}\n".encode())
        return whole.hexdigest()

    def _add_lengths(self, path: str, array: pa.Array) -> None:
        self._feed(f"{path}#", np.diff(array.offsets.to_numpy()).astype(np.int64))

    def _add_changes(self, path: str, changes: dict[str, NDArray[Any]]) -> None:
        for name, values in changes.items():
            self._feed(f"{path}[] {name}", values)

    def _feed(self, path: str, values: np.ndarray[Any, Any]) -> None:
        stream = self._streams.setdefault(path, hashlib.sha256())
        contiguous = np.ascontiguousarray(values)
        stream.update(contiguous.astype(contiguous.dtype.newbyteorder("<"), copy=False).data)

    def _add(self, path: str, array: pa.Array) -> None:
        if array.null_count:
            self._feed(f"{path}?", array.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8))
            array = array.drop_null()
        kind = array.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self._add_lengths(path, array)
            self._add(f"{path}[]", array.flatten())
        elif pa.types.is_struct(kind):
            for field, child in zip(kind, array.flatten(), strict=True):
                self._add(f"{path}.{field.name}", child)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
            self._add_bytes(path, array)
        else:
            values = array.to_numpy(zero_copy_only=False)
            self._feed(path, values.astype(np.uint8) if pa.types.is_boolean(kind) else values)

    def _add_bytes(self, path: str, array: pa.Array) -> None:
        large = array.cast(pa.large_binary())
        offsets = np.frombuffer(large.buffers()[1], np.int64, count=len(large) + 1, offset=large.offset * 8)
        self._feed(f"{path}#", np.diff(offsets))
        data = large.buffers()[2]
        if data is not None and len(large):
            self._feed(path, np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]])


def _tokens(column: pa.Array) -> NDArray[np.int32]:
    return column.flatten().to_numpy()


class Labels:
    """Labels int32 [T] as where they change beside their ids, batch after batch."""

    def __init__(self) -> None:
        self._count = 0
        self._last = (True, np.int32(0))

    def changes(self, labels: NDArray[np.int32], ids: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
        """`places` int64 [C], `same` uint8 [C] whether the label is the id there, `values` int32 [C], 0 where it is; raises DatasetError
        where there are not as many labels as ids."""
        if len(labels) != len(ids):
            message = f"labels and input_ids differ in length: {len(labels)} and {len(ids)} in a batch of rows"
            raise DatasetError(message, param="labels")
        places: list[NDArray[np.int64]] = []
        for start, stop in _steps(len(ids)):
            same = labels[start:stop] == ids[start:stop]
            opens = np.empty(stop - start, np.bool_)
            opens[0] = same[0] != self._last[0] or not (same[0] or labels[start] == self._last[1])
            np.not_equal(labels[start + 1 : stop], labels[start : stop - 1], out=opens[1:])
            opens[1:] &= ~same[1:]
            opens[1:] |= same[1:] != same[:-1]
            places.append(np.flatnonzero(opens) + start)
            self._last = (bool(same[-1]), labels[stop - 1])
        at = _joined(places)
        is_same = labels[at] == ids[at]
        found = {
            "places": at + self._count,
            "same": is_same.astype(np.uint8),
            "values": np.where(is_same, np.int32(0), labels[at]),
        }
        self._count += len(ids)
        return found


class Positions:
    """Positions int32 [T] as where they do not go on, batch after batch."""

    def __init__(self) -> None:
        self._count = 0
        self._last = np.int32(-1)

    def changes(self, positions: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
        """`places` int64 [C] where a position is not one more than the one before, and the `values` int32 [C] there."""
        places: list[NDArray[np.int64]] = []
        for start, stop in _steps(len(positions)):
            opens = np.empty(stop - start, np.bool_)
            opens[0] = (int(positions[start]) - int(self._last)) % 2**32 != 1  # as int32 wraps below
            np.not_equal(positions[start + 1 : stop] - positions[start : stop - 1], 1, out=opens[1:])
            places.append(np.flatnonzero(opens) + start)
            self._last = positions[stop - 1]
        at = _joined(places)
        found = {"places": at + self._count, "values": positions[at]}
        self._count += len(positions)
        return found


def _steps(count: int) -> list[tuple[int, int]]:
    return list(pairwise([*range(0, count, STEP), count]))


def _joined(places: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(places) if places else np.zeros(0, np.int64)
