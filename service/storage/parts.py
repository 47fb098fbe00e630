"""The bytes of an upload that comes in parts: one object a part, named by where it begins.

A part is created if absent, and only where those before it end. So of two that send at the same place one wins, whichever
process of the API they speak to, and what was acknowledged survives any of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from packing.dataset.errors import SourceError
from service.storage.objects import Entry, Objects

PART_BYTES = 8 * 1024 * 1024
"""A part holds at most this, and so does memory of each upload that is under way."""
ROOM = "arriving"


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one upload."""

    objects: Objects
    upload_id: str

    @property
    def prefix(self) -> str:
        """Below what the parts lie."""
        return f"{ROOM}/{self.upload_id}"

    @property
    def _staging(self) -> str:
        """Beside them, for what lies below the prefix is a part."""
        return f"{self.prefix}.partial"

    def extent(self) -> tuple[int, int]:
        """How many bytes have come, and in how many parts."""
        parts = self._sorted()
        return sum(part.bytes for part in parts), len(parts)

    def add(self, start: int, data: bytes) -> bool:
        """Keep a part that begins at byte `start`, where the others end; False where one begins there already."""
        return self.objects.create(f"{self.prefix}/{start:015d}", data, staging=self._staging)

    def join(self, local: Path) -> str:
        """Write all parts into a new local file; returns its sha256. Raises SourceError where a part is missing."""
        whole, end = hashlib.sha256(), 0
        with local.open("xb") as sink:
            for part in self._sorted():
                begins = int(part.path.rpartition("/")[2])
                try:
                    data = self.objects.read(part.path) if begins == end else None
                except FileNotFoundError:
                    data = None
                if data is None:
                    message = f"the part of the upload at byte {end} is gone from the store: send the file again"
                    raise SourceError(message, param="id")
                whole.update(data)
                sink.write(data)
                end += len(data)
        return whole.hexdigest()

    def remove(self) -> None:
        """Remove them all."""
        self.objects.delete_prefix(self.prefix)
        self.objects.delete_prefix(self._staging)

    def _sorted(self) -> list[Entry]:
        return sorted(self.objects.entries(self.prefix), key=lambda part: part.path)
