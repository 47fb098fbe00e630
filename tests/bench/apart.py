"""Ways of doing a thing, each in a process of its own: one's memory, threads and garbage are no cost of another's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from tests.bench.measure import Timed, Work, processor_seconds

Make = Callable[..., Mapping[str, Work]]
_ways: dict[str, Work] = {}


class Apart:
    """A process that makes its ways once, by a function of a module and what it is given, and does one of them whenever it is asked."""

    def __init__(self, make: Make, *given: Any, **named: Any) -> None:
        start = (make, given, named)
        self._process = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_start, initargs=start)

    def way(self, name: str) -> Work:
        """One of its ways, timed there by the processor's clock."""
        return lambda: self._process.submit(_do, name).result()

    def close(self) -> None:
        """End the process."""
        self._process.shutdown()


def _start(make: Make, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    _ways.update(make(*given, **named))


def _do(name: str) -> Timed:
    begun = processor_seconds()
    done = _ways[name]()
    return done if isinstance(done, Timed) else Timed(done, processor_seconds() - begun)
