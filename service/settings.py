"""What an operator may set, read once from LONGWEAVE_* and passed down; nothing is read when a module is imported.

| variable | default | meaning |
|---|---|---|
| LONGWEAVE_DATA_DIR | ~/.local/share/longweave | database, objects and uploads on their way in |
| LONGWEAVE_DATABASE_URL | SQLite in the data directory | any SQLAlchemy URL of SQLite or PostgreSQL |
| LONGWEAVE_OBJECTS_URL | objects/ in the data directory | file:///… or s3://… |
| LONGWEAVE_RAY_ADDRESS | none: a local Ray of our own | HOST:PORT of a Ray cluster's head |
| LONGWEAVE_RAY_TOKEN | none | the token of that cluster; read where Ray is started |
| LONGWEAVE_WORKERS | the CPUs of this machine | tasks in flight; 0 builds in the runner itself |
| LONGWEAVE_TOKENIZERS | none | a folder; each folder in it with a tokenizer.json is a tokenizer by that name |
| LONGWEAVE_HOSTS | none | names besides loopback that clients may call us by, with commas |
| LONGWEAVE_MAX_UPLOAD_BYTES | 4 GiB | the largest upload |
| LONGWEAVE_MAX_BODY_BYTES | 1 MiB | the largest JSON body |
| LONGWEAVE_MAX_QUEUED_JOBS | 1000 | more are refused with 429 |
| LONGWEAVE_MAX_QUEUED_JOBS_PER_KEY | 100 | the same for the jobs of one owner |
| LONGWEAVE_MAX_ATTEMPTS | 3 | times a job is tried |
| LONGWEAVE_LEASE_SECONDS | 20 | how long a silent runner keeps its job |
| LONGWEAVE_HEARTBEAT_SECONDS | a quarter of the lease | how often a runner says it is alive |
| LONGWEAVE_RETRY_SECONDS | 5 | the first pause after an unexpected error; doubled each time |
| LONGWEAVE_LOG | text | the form of log lines: text or json |
| LONGWEAVE_PRESIGN | false | true sends downloads to the object store, where it can be reached by clients |
| LONGWEAVE_FREE_BYTES | 256 MiB | what jobs leave free on the disk of a local store |
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, get_args

from packing.dataset.errors import LongweaveError
from service.logs import Form

T = TypeVar("T")

MIB = 1024 * 1024
DEFAULT_DATA_DIR = "~/.local/share/longweave"


class SettingsError(LongweaveError):
    """An environment variable that cannot be meant."""

    code = "invalid_settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may ask of the service."""

    upload_bytes: int = 4096 * MIB
    body_bytes: int = MIB
    queued_jobs: int = 1000
    queued_jobs_per_key: int = 100
    page: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The service's settings. The database URL may hold a password, so it stays out of `repr`."""

    data_dir: Path
    database_url: str = field(repr=False)
    objects_url: str
    ray_address: str | None = None
    workers: int = 1
    tokenizers: Path | None = None
    hosts: frozenset[str] = frozenset()
    attempts: int = 3
    lease_seconds: float = 20.0
    heartbeat_seconds: float = 5.0
    retry_seconds: float = 5.0
    log: Form = "text"
    free_bytes: int = 256 * MIB
    presign: bool = False
    limits: Limits = Limits()

    @property
    def incoming(self) -> Path:
        """Where uploads lie until they are taken in."""
        return self.data_dir / "incoming"

    def registered_tokenizers(self) -> dict[str, Path]:
        """The operator's tokenizers by name."""
        if self.tokenizers is None:
            return {}
        return {place.parent.name: place.parent for place in sorted(self.tokenizers.glob("*/tokenizer.json"))}

    def prepare(self) -> None:
        """Make the directories; raises SettingsError where that is not possible."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.incoming.mkdir(exist_ok=True)
        except OSError as error:
            message = f"the data directory {self.data_dir} cannot be used: {error.strerror or error}"
            raise SettingsError(message, param="LONGWEAVE_DATA_DIR") from error

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, data_dir: str | Path | None = None) -> Settings:
        """Read LONGWEAVE_*; `data_dir` (the command line's) goes before the variable. Raises SettingsError."""
        folder = Path(data_dir or environ.get("LONGWEAVE_DATA_DIR") or DEFAULT_DATA_DIR).expanduser().resolve()
        tokenizers = environ.get("LONGWEAVE_TOKENIZERS")
        lease = _number(environ, "LONGWEAVE_LEASE_SECONDS", float, 20.0, least=0.5)
        return cls(
            data_dir=folder,
            database_url=environ.get("LONGWEAVE_DATABASE_URL") or f"sqlite:///{folder / 'longweave.db'}",
            objects_url=environ.get("LONGWEAVE_OBJECTS_URL") or (folder / "objects").as_uri(),
            ray_address=environ.get("LONGWEAVE_RAY_ADDRESS") or None,
            workers=_number(environ, "LONGWEAVE_WORKERS", int, os.cpu_count() or 1, least=0),
            tokenizers=Path(tokenizers).expanduser().resolve() if tokenizers else None,
            hosts=frozenset(
                name.strip().lower() for name in environ.get("LONGWEAVE_HOSTS", "").split(",") if name.strip()
            ),
            attempts=_number(environ, "LONGWEAVE_MAX_ATTEMPTS", int, 3, least=1),
            lease_seconds=lease,
            heartbeat_seconds=_number(environ, "LONGWEAVE_HEARTBEAT_SECONDS", float, lease / 4, least=0.05),
            retry_seconds=_number(environ, "LONGWEAVE_RETRY_SECONDS", float, 5.0, least=0),
            log=_chosen(environ, "LONGWEAVE_LOG", get_args(Form)),
            free_bytes=_number(environ, "LONGWEAVE_FREE_BYTES", int, 256 * MIB, least=0),
            presign=_chosen(environ, "LONGWEAVE_PRESIGN", ("false", "true")) == "true",
            limits=Limits(
                upload_bytes=_number(environ, "LONGWEAVE_MAX_UPLOAD_BYTES", int, Limits().upload_bytes, least=1),
                body_bytes=_number(environ, "LONGWEAVE_MAX_BODY_BYTES", int, Limits().body_bytes, least=1),
                queued_jobs=_number(environ, "LONGWEAVE_MAX_QUEUED_JOBS", int, Limits().queued_jobs, least=1),
                queued_jobs_per_key=_number(
                    environ, "LONGWEAVE_MAX_QUEUED_JOBS_PER_KEY", int, Limits().queued_jobs_per_key, least=1
                ),
            ),
        )


def _chosen(environ: Mapping[str, str], name: str, choices: tuple[T, T]) -> T:
    """The choice that a variable names; the first is the default."""
    given = environ.get(name) or choices[0]
    for choice in choices:
        if choice == given:
            return choice
    message = f"{name} is {choices[0]} or {choices[1]}, not {given!r}"
    raise SettingsError(message, param=name)


def _number(environ: Mapping[str, str], name: str, read: Callable[[str], T], default: T, *, least: float) -> T:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = read(text)
    except ValueError:
        value = None
    if value is None or not value >= least:  # type: ignore[operator]  # NaN fails this too
        message = f"{name} must be a number of at least {least:g}, not {text!r}"
        raise SettingsError(message, param=name)
    return value
