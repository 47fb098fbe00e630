"""What many tests need: conversations of our own making, specs, and datasets built in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from packing.tokenizers import BUILTIN, Tokenizer
from service.engine.executor import Executor, InlineExecutor
from service.engine.line import Unwatched, build_dataset
from service.engine.tokenizers import find_tokenizer
from service.kinds import sources_of, spec_of
from service.storage.intake import take_in_path
from service.storage.objects import Objects

FIRST = (
    "faults/test_processes",
    "training/test_parallel",
    "scripts/test_study",
    "bench/test_bench",
    "service/test_serve",
)
"""Files of tests that take longest: begun first, so that of two processes neither waits for the other at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.removeprefix("tests/").startswith(FIRST))


settings.register_profile("house", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

TEXT = "the quick brown fox reads a long report about rivers, engines and 1,024 sensors; 城市 的 销售额 是 42 naïve café ☕ ok"
WORDS = TEXT.split()


def conversation(number: int, *, turns: int, longest: int = 40, system: bool = False) -> dict[str, Any]:
    """A made-up conversation, the same for the same number."""
    draws = np.random.default_rng(number)

    def text() -> str:
        return " ".join(draws.choice(WORDS, size=int(draws.integers(1, longest))))

    messages = [{"role": "system", "content": text()}] if system else []
    for _ in range(turns):
        messages += [{"role": "user", "content": text()}, {"role": "assistant", "content": text()}]
    return {"id": f"talk/{number}", "messages": messages}


def write_lines(path: Path, records: list[Any]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def builtin() -> Tokenizer:
    return Tokenizer.load(BUILTIN, name="builtin")


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """Sixty conversations of one to six turns."""
    return write_lines(
        tmp_path / "talks.jsonl", [conversation(i, turns=1 + i % 6, system=i % 4 == 0) for i in range(60)]
    )


Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build a dataset in this process from a source file and spec fields; returns its directory."""
    made: list[Path] = []

    def make(source: Path | None, /, *, executor: Executor | None = None, **fields: Any) -> Path:
        out = tmp_path / f"dataset-{len(made)}"
        made.append(out)
        spec = spec_of({"kind": "skipalign"} | ({"source": {"path": str(source)}} if source else {}) | fields)
        objects = Objects.local(out)
        sources = {
            pointer: take_in_path(Path(place.path or source), objects=objects, prefix=".work/pieces", split=place.split)
            for pointer, place in sources_of(spec).items()
        }
        build_dataset(
            spec=spec,
            sources=sources,
            tokenizer=find_tokenizer(spec.tokenizer, paths=True),
            objects=objects,
            work=".work",
            target="",
            executor=executor or InlineExecutor(),
            watch=Unwatched(),
        )
        return out

    return make
