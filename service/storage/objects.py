"""Objects by path in one store, local files or S3: the only file that knows obstore.

Commit is create-if-absent and nothing else; see `Objects.create`.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.exceptions import BaseError as StoreAwayError
from obstore.store import LocalStore, from_url

from packing.dataset.errors import LongweaveError
from service.faults import crash_point
from service.problems import UnavailableError
from service.storage.space import space_needed

if TYPE_CHECKING:
    # these stand in its stubs alone
    from obstore import Attributes
    from obstore.store import RetryConfig

CHUNK = 4 * 1024 * 1024
CREATES = 5
"""Times a creation is tried whose place is said to be taken where nothing stands."""
CONFLICT_SECONDS = 0.2
TEMPORARY = "longweave-"
"""How the names of files begin that are not yet what they will be."""
RETRIES: RetryConfig = {"max_retries": 5, "retry_timeout": timedelta(seconds=20)}
"""A remote store that stays away for longer is an error: the job is tried again, not the request for minutes."""

ATTACHED: Attributes = {"Content-Disposition": "attachment"}
"""A remote store may be asked for an object by a browser (`Objects.presigned`), which must not show it as a page."""

__all__ = ["Entry", "Objects", "StorageError", "StoreAwayError"]


class StorageError(LongweaveError):
    """The object store cannot be used as it is."""

    code = "storage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An object as a listing shows it; `modified` is in seconds since 1970 by the store's clock."""

    path: str
    bytes: int
    modified: float


@dataclass(frozen=True, slots=True)
class Objects:
    """A store of immutable objects. `url` says where (file:///directory or s3://bucket/prefix) and is all a worker needs to open it."""

    url: str
    _store: Any

    @classmethod
    def open(cls, url: str) -> Objects:
        """Open the store at `url`, making a local directory where there is none; raises StorageError where it cannot."""
        parts = urlsplit(url)
        if parts.scheme == "file":
            folder = Path(unquote(parts.path))
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                message = f"the directory {folder} cannot be made ({error.strerror}): name another place"
                raise StorageError(message, param=str(folder)) from error
            return cls(url, LocalStore(folder))
        if parts.scheme == "s3":
            return cls(url, from_url(url, retry_config=RETRIES))
        message = f"an object store is file:///directory or s3://bucket/prefix, not {parts.scheme or url!r}"
        raise StorageError(message)

    @classmethod
    def local(cls, folder: Path) -> Objects:
        """The store of a local directory."""
        return cls.open(folder.resolve().as_uri())

    @property
    def folder(self) -> Path | None:
        """The directory of a local store; None for a remote one."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    @property
    def _attributes(self) -> Attributes | None:
        return ATTACHED if self.folder is None else None

    def presigned(self, path: str, *, seconds: int) -> str | None:
        """An address at which anybody may read the object for so long; None where the store has none, as a local one."""
        if self.folder is not None:
            return None
        return obstore.sign(self._store, "GET", path, timedelta(seconds=seconds))

    def read(self, path: str) -> bytes:
        """The whole object; raises FileNotFoundError."""
        return bytes(obstore.get(self._store, path).bytes())

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Bytes start..end (end not included)."""
        return bytes(obstore.get_range(self._store, path, start=start, end=end)) if end > start else b""

    def read_ranges(self, path: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Many ranges of one object, the near ones fetched together; raises FileNotFoundError, and EOFError where it is shorter."""
        folder = self.folder
        parts = self._read_there(path, starts, ends) if folder is None else _read_here(folder / path, starts, ends)
        if any(len(part) != end - start for part, start, end in zip(parts, starts, ends, strict=True)):
            raise EOFError(path)
        return parts

    def _read_there(self, path: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        try:
            return [bytes(part) for part in obstore.get_ranges(self._store, path, starts=starts, ends=ends)]
        except BaseException as error:
            # obstore panics where a range begins behind the end, and a panic is no Exception
            if type(error).__name__ != "PanicException" and not self._shorter(path, ends):
                raise
            raise EOFError(path) from error

    def _shorter(self, path: str, ends: Sequence[int]) -> bool:
        try:
            size = self.size(path)
        except StoreAwayError:
            return False
        return size is not None and size < max(ends)

    def stream(self, path: str, start: int, end: int) -> Iterator[bytes]:
        """Bytes start..end (end not included), in chunks."""
        for begin in range(start, end, CHUNK):
            yield self.read_range(path, begin, min(begin + CHUNK, end))

    def size(self, path: str) -> int | None:
        """The object's length in bytes; None where there is none."""
        try:
            return int(obstore.head(self._store, path)["size"])
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        """Write an object, whole or not at all; what stood there is replaced. Raises InsufficientStorageError.

        What is not `durable` may be lost in a power cut.
        """
        with space_needed(path):
            crash_point("object_write")
            if self.folder is not None:
                _write_beside(self.folder / path, data, durable=durable)
                return
            obstore.put(self._store, path, data, attributes=self._attributes)

    def write_file(self, path: str, local: Path) -> None:
        """Write an object from a local file, whole or not at all. Raises InsufficientStorageError."""
        with space_needed(path):
            crash_point("object_write")
            obstore.put(self._store, path, local, attributes=self._attributes)
            self._settle(path)

    @contextmanager
    def writing(self, path: str, *, staging: str) -> Generator[IO[bytes]]:
        """A binary stream that becomes the object when the block ends well, and nothing when it does not.

        A local store's file is written below `staging`, flushed, then renamed to its place; a remote one is put in one go from a
        temporary file. What a killed writer leaves below `staging` goes with that prefix. Raises InsufficientStorageError.
        """
        with space_needed(path):
            beside = None if self.folder is None else self.folder / staging
            if beside is not None:
                beside.mkdir(parents=True, exist_ok=True)
            crash_point("object_write")
            handle, name = tempfile.mkstemp(dir=beside, prefix=TEMPORARY)
            partial = Path(name)
            try:
                with os.fdopen(handle, "wb") as stream:
                    yield stream
                    stream.flush()
                    os.fsync(stream.fileno())
                crash_point("shard_temporary")
                self._put_in_place(partial, path)
            finally:
                partial.unlink(missing_ok=True)

    def _put_in_place(self, partial: Path, path: str) -> None:
        folder = self.folder
        if folder is None:
            obstore.put(self._store, path, partial, attributes=self._attributes)
            return
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.chmod(0o644)
        partial.replace(place)
        self._settle(path)

    def create(self, path: str, data: bytes, *, staging: str) -> bool:
        """Create an object if absent: of many creators at most one gets True. This is how a dataset is committed.

        A local store's file is flushed below `staging` before it is linked to its place: no power cut leaves a torn one there.

        One whose answer is lost on the way gets False, as its next try meets what it made: who needs to know compares what stands.
        Raises UnavailableError where the store says again and again that there is an object, and there is none.
        """
        for _ in range(CREATES):
            with space_needed(path):
                crash_point("object_write")
                try:
                    self._put_if_absent(path, data, staging)
                except (AlreadyExistsError, FileExistsError):
                    # S3's 409 reads the same: another creation or removal was under way, and nothing may have come of it
                    if self.size(path) is not None:
                        return False
                    time.sleep(CONFLICT_SECONDS)
                    continue
                self._settle(path)
            return True
        message = f"the object store says that {path} is there and that it is not: try again later"
        raise UnavailableError(message)

    def _put_if_absent(self, path: str, data: bytes, staging: str) -> None:
        folder = self.folder
        if folder is None:
            obstore.put(self._store, path, data, mode="create", attributes=self._attributes)
            return
        (folder / staging).mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder / staging, prefix=TEMPORARY)
        partial, place = Path(name), folder / path
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            place.parent.mkdir(parents=True, exist_ok=True)
            partial.chmod(0o644)
            place.hardlink_to(partial)
        finally:
            partial.unlink(missing_ok=True)

    def list(self, prefix: str) -> list[str]:
        """Paths of all objects below a prefix, sorted."""
        return sorted(item["path"] for batch in obstore.list(self._store, prefix) for item in batch)

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Every object below a prefix with its size and age, in no order."""
        for batch in obstore.list(self._store, prefix):
            for item in batch:
                yield Entry(path=item["path"], bytes=item["size"], modified=item["last_modified"].timestamp())

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; those that are not there are passed over."""
        self._remove([path for path in paths if self.size(path) is not None])

    def delete_prefix(self, prefix: str) -> None:
        """Delete everything below a prefix, whoever else removes or renames some of it; the prefix is a whole path segment."""
        self._remove(self.list(prefix))
        self.prune(prefix)

    def _remove(self, paths: Sequence[str]) -> None:
        while paths:
            try:
                obstore.delete(self._store, paths)
            except FileNotFoundError:
                # One of them has gone meanwhile, and a local store stops there.
                paths = [path for path in paths if self.size(path) is not None]
            else:
                return

    def prune(self, prefix: str) -> None:
        """Remove the empty directories that deleted objects leave below a prefix of a local store."""
        folder = self.folder
        if folder is not None and prefix:
            _prune(folder / prefix, folder)

    def _settle(self, path: str) -> None:
        """Local files: flush the file and its directory, so that what is acknowledged survives a power cut."""
        folder = self.folder
        if folder is None:
            return
        for place in (folder / path, (folder / path).parent):
            _flush(place)


def _flush(place: Path) -> None:
    """What is written in a file or directory survives a power cut from here on."""
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_here(place: Path, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
    """Ranges of a local file, as far as it reaches: a shard reads a short one in every piece, and a thread's detour costs more than it."""
    with place.open("rb", buffering=0) as stream:
        return [os.pread(stream.fileno(), end - start, start) for start, end in zip(starts, ends, strict=True)]


def _write_beside(place: Path, data: bytes | memoryview, *, durable: bool) -> None:
    """Write a local file beside its place and rename it: obstore does the same by way of a thread of its own, which costs ten times as
    much for a small one. The name is one that obstore takes for half a file and does not list."""
    partial = place.with_name(f"{place.name}#{secrets.randbits(60)}")
    try:
        try:
            stream = partial.open("xb")
        except FileNotFoundError:
            place.parent.mkdir(parents=True, exist_ok=True)
            stream = partial.open("xb")
        with stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        partial.replace(place)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if durable:
        _flush(place.parent)


def _prune(place: Path, root: Path) -> None:
    """Remove the empty directories that deleted objects leave in a local store."""
    if not place.is_dir() or not place.resolve().is_relative_to(root.resolve()):
        return
    for folder, _, _ in sorted(os.walk(place), reverse=True):
        if not os.listdir(folder):  # noqa: PTH208
            Path(folder).rmdir()
