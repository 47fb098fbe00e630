"""A digest of the values in a dataset, whatever the encoding, the row groups or the library's version that wrote them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa


class ContentDigest:
    """Streams record batches into one sha256 over the logical values.

    Every leaf of the schema has hashers of its own: the lengths of lists and strings, and the values, in little-endian order. Where
    batches begin and end leaves no trace. A column with nulls adds a stream of validity bytes.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._streams: dict[str, Any] = {}
        self._rows = 0

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch."""
        self._rows += batch.num_rows
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            self._add(name, column)

    def hexdigest(self) -> str:
        """The digest over all rows so far, as 64 hexadecimal digits."""
        whole = hashlib.sha256(f"longweave content 1, {self._rows} rows\n".encode())
        for field in self.schema:
            whole.update(f"{field.name}: {field.type}\n".encode())
        for path in sorted(self._streams):
            whole.update(f"{path} {self._streams[path].hexdigest()}\n".encode())
        return whole.hexdigest()

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
            lengths = np.diff(array.offsets.to_numpy()).astype(np.int64)
            self._feed(f"{path}#", lengths)
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
