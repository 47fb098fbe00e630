"""What the tests of tables share: mixes, conversations as rows, datasets built in this process."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from packing.chat import ChatTemplate
from packing.dataset.reader import read_manifest
from packing.tokenizers import BUILTIN, Tokenizer
from service.engine.executor import Executor, InlineExecutor
from service.engine.line import Unwatched, build_dataset
from service.engine.tokenizers import find_tokenizer
from service.kinds import spec_of
from service.storage.objects import Objects
from synth import synl_rows
from synth.tables.fit import fitted
from synth.tables.lengths import TokenCounter
from synth.tables.outline import Mix
from synth.tables.render.formats import FORMATS
from synth.tables.schemas.catalogue import SCHEMAS
from synth.tables.tasks.catalogue import TASKS

LOCALES = ("en_US", "zh_CN")


@cache
def counter(folder: Path = BUILTIN) -> TokenCounter:
    tokenizer = Tokenizer.load(folder)
    return TokenCounter(tokenizer, ChatTemplate(tokenizer.chat_template, tokenizer, today=date(2026, 1, 1)))


def mix(**fields: Any) -> Mix:
    given = {
        "tasks": dict.fromkeys(TASKS, 1.0),
        "formats": dict.fromkeys(FORMATS, 1.0),
        "locales": dict.fromkeys(LOCALES, 1.0),
        "schemas": dict.fromkeys(SCHEMAS, 1.0),
        "turns": (1, 4),
        "reasoning": 0.5,
        "unanswerable": 0.1,
        "distractors": 0.1,
    }
    return Mix(**(given | fields))


def row_of(number: int, *, target: int = 2200, split: Any = "train", seed: int = 0, **fields: Any) -> dict[str, Any]:
    """One row of a dataset."""
    found = fitted(mix(**fields), counter(), seed=seed, row=number, split=split, target=target)
    return synl_rows.record(number, split, found)


def build(out: Path, executor: Executor | None = None, **fields: Any) -> Path:
    """A synl dataset, or one of the kind that `fields` name, built in this process."""
    spec = spec_of({"kind": "synl", **fields})
    build_dataset(
        spec=spec,
        sources={},
        tokenizer=find_tokenizer(spec.tokenizer, paths=True),
        objects=Objects.local(out),
        work=".work",
        target="",
        executor=executor or InlineExecutor(),
        watch=Unwatched(),
    )
    return out


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for file in read_manifest(folder).files for row in pq.read_table(folder / file.path).to_pylist()]


def question_of(row: dict[str, Any], number: int = 0) -> str:
    """The words of a question, without tables."""
    content: str = row["messages"][2 * number]["content"]
    if number:
        return content
    blocks = content.split("\n\n")
    return blocks[0] if not any(line.startswith(("Table: ", "表：")) for line in blocks[1:2]) else blocks[-1]
