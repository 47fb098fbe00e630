"""Progress on stderr: a bar where there is a terminal, plain lines where there is none."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from service.engine.shard_task import Receipt


class Progress:
    """Watches a build (see service.engine.line.Watch)."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._total = self._done = self._rows = self._tokens = 0

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task("reading the source", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def planned(self, shards: int) -> None:
        """The plan is made."""
        self._total = shards
        if self._bar is not None:
            self._bar.update(self._task, total=shards, description="building shards")
        else:
            self._line(f"{shards} {'shard' if shards == 1 else 'shards'} planned")

    def built(self, receipt: Receipt, *, found: bool) -> None:
        """A shard is finished."""
        self._done += 1
        self._rows += receipt.rows
        self._tokens += receipt.tokens
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=f"{self._rows:,} rows, {self._tokens:,} tokens")
        else:
            again = " (found)" if found else ""
            self._line(f"shard {self._done}/{self._total}{again}: {self._rows:,} rows, {self._tokens:,} tokens so far")

    def check(self) -> None:
        """Nothing stops a build at the command line but Ctrl-C."""

    def _line(self, text: str) -> None:
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)
