"""What rows about whole builds share: corpora of the builtin prose, a build in this process from source to manifest, the floor under it."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import fastokens
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from packing.dataset.manifest import Manifest
from packing.dataset.writer import encodings
from packing.tokenizers import BUILTIN
from service.commands.specs import take_in_sources
from service.engine.executor import InlineExecutor
from service.engine.line import Unwatched, build_dataset
from service.engine.memory import keep_freed_memory
from service.engine.tokenizers import find_tokenizer
from service.kinds import spec_of
from service.storage.objects import Objects
from synth.needles.haystack import builtin_units
from tests.bench.measure import Work


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="longweave-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def prose(bytes_wanted: int) -> Iterator[str]:
    """Documents of the builtin prose, 2 to 18 kB each, until they are `bytes_wanted` together."""
    size = number = 0
    document: list[str] = []
    for paragraph in builtin_units("en_US", "test"):
        document.append(" ".join(paragraph))
        if sum(map(len, document)) > 2000 + 4000 * (number % 5):
            text = "\n\n".join(document)
            yield text
            size, number, document = size + len(text), number + 1, []
        if size > bytes_wanted:
            return


def documents(path: Path, bytes_wanted: int) -> None:
    """The prose as JSONL, a document a line."""
    with path.open("w", encoding="utf-8") as sink:
        for number, text in enumerate(prose(bytes_wanted)):
            sink.write(json.dumps({"id": f"d{number}", "text": text}) + "\n")


def conversations(path: Path, bytes_wanted: int) -> None:
    """The prose as conversations of one to five turns, each of two sentences asked and ten answered, as JSONL."""
    sentences = [
        sentence for _, unit in zip(range(600), builtin_units("en_US", "test"), strict=False) for sentence in unit
    ]
    size = number = at = 0
    with path.open("w", encoding="utf-8") as sink:
        while size < bytes_wanted:
            messages: list[dict[str, str]] = []
            for _ in range(1 + number % 5):
                at = (at + 12) % (len(sentences) - 12)
                messages.append({"role": "user", "content": " ".join(sentences[at : at + 2])})
                messages.append({"role": "assistant", "content": " ".join(sentences[at + 2 : at + 12])})
            size += sink.write(json.dumps({"id": f"c{number}", "messages": messages}) + "\n")
            number += 1


def build(out: Path, **fields: Any) -> Manifest:
    """A whole build in this process, source to manifest, below `out`."""
    spec, objects = spec_of(fields), Objects.local(out)
    return build_dataset(
        spec=spec,
        sources=take_in_sources(spec, objects, ".work/pieces"),
        tokenizer=find_tokenizer("builtin"),
        objects=objects,
        work=".work",
        target="",
        executor=InlineExecutor(),
        watch=Unwatched(),
    )


def tokens_of_build(**fields: Any) -> int:
    """Tokens of a build that is thrown away."""
    with folder() as out:
        return build(out, **fields).counts["tokens"]


def column_bytes(out: Path, manifest: Manifest, column: str) -> int:
    """Bytes on disk of one column of a dataset, as the footers tell."""
    total = 0
    for file in manifest.files:
        footer = pq.read_metadata(out / file.path)
        for group in map(footer.row_group, range(footer.num_row_groups)):
            leaves = map(group.column, range(group.num_columns))
            total += sum(leaf.total_compressed_size for leaf in leaves if leaf.path_in_schema.split(".")[0] == column)
    return total


def rows_of(out: Path, manifest: Manifest) -> pa.Table:
    """All rows of a dataset."""
    return pa.concat_tables(pq.read_table(out / file.path) for file in manifest.files)


@cache
def fast_tokenizer() -> fastokens.Tokenizer:
    """fastokens over the builtin vocabulary."""
    return fastokens.Tokenizer.from_file(str(BUILTIN / "tokenizer.json"))


def flat(texts: list[str]) -> list[list[int]]:
    """Ids as lists, as datasets' map wants them, by way of fastokens' flat buffers. No tokenizer travels: every process has its own."""
    ids, offsets = fast_tokenizer().encode_batch_flat(texts)
    bounds = np.frombuffer(offsets, np.uint64)[1:-1].astype(int)
    return [part.tolist() for part in np.split(np.frombuffer(ids, np.uint32), bounds)]


def product(spec: Mapping[str, Any]) -> Mapping[str, Work]:
    """Builds in a process like a worker's: it keeps the memory it frees, and has built the same before."""
    keep_freed_memory()
    tokens_of_build(**spec)
    return {"build": lambda: tokens_of_build(**spec)}


def floor(path: Path, texts_of: Callable[[pl.DataFrame], list[str]], spec: Mapping[str, Any]) -> Mapping[str, Work]:
    """Reading the source, tokenising its texts once and writing the rows that our build wrote, each alone; units are our tokens.

    `texts_of` takes the texts out of the rows that polars read. The rows are written with our encodings, in one call and into memory.
    """
    keep_freed_memory()
    with folder() as out:
        manifest = build(out, **spec)
        rows, tokens = rows_of(out, manifest), manifest.counts["tokens"]
    texts, fast, options = texts_of(pl.read_ndjson(path)), fast_tokenizer(), encodings(rows.schema)

    def read() -> int:
        pl.read_ndjson(path)
        return tokens

    def tokenise() -> int:
        fast.encode_batch_flat(texts)
        return tokens

    def write() -> int:
        pq.write_table(rows, io.BytesIO(), **options)
        return tokens

    return {"reading": read, "tokenising": tokenise, "writing": write}


FLOOR = ("reading", "tokenising", "writing")
