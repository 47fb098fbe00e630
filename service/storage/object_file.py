"""An object of the store as a file that can be sought in, for Parquet's readers."""

from __future__ import annotations

import io

from service.storage.objects import Objects


class ObjectFile(io.RawIOBase):
    """The object at `path`, `size` bytes long; every read fetches just what is asked for."""

    def __init__(self, objects: Objects, path: str, size: int) -> None:
        super().__init__()
        self._objects = objects
        self._path = path
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """The next `size` bytes, fewer only at the end."""
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        data = self._objects.read_range(self._path, self._at, end) if end > self._at else b""
        self._at += len(data)
        return data
