"""CIP rows from a corpus beside Hugging Face datasets as people use it: map a tokenizer over the texts, weave in a plain loop, write
Parquet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import polars as pl
from transformers import AutoTokenizer

from packing.tokenizers import BUILTIN
from tests.bench import builds
from tests.bench.apart import Apart
from tests.bench.measure import Contender, Race, Work

LENGTH = 32_768


Encode = Callable[[list[str]], list[list[int]]]


def ids_by(reference: Any) -> Encode:
    """Texts to ids as users of transformers write it."""
    return lambda texts: reference(texts)["input_ids"]


def with_datasets(path: Path, encode: Encode, processes: int | None = None) -> int:
    """datasets' map, then chunks in two rounds until a row is full, as lists, into Parquet."""
    with builds.folder() as out:
        rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(out / "cache"))
        mapped = rows.map(
            lambda batch: {"ids": encode(batch["text"])},
            batched=True,
            num_proc=processes,
            remove_columns=rows.column_names,
            new_fingerprint="bench",  # the cache is thrown away; a function made here has no name to be cached by
        )
        mapped = mapped.shuffle(seed=0)
        woven: list[list[int]] = []
        firsts: list[int] = []
        seconds: list[int] = []
        for document in mapped:
            ids = document["ids"]
            cut = len(ids) // 2
            firsts += ids[:cut]
            seconds += ids[cut:]
            if len(firsts) + len(seconds) >= LENGTH:
                woven.append((firsts + seconds)[:LENGTH])  # what is cut off is lost here
                firsts, seconds = [], []
        datasets.Dataset.from_dict({"input_ids": woven, "labels": woven}).to_parquet(str(out / "rows.parquet"))
        return sum(len(row) for row in woven)


def texts_of(rows: pl.DataFrame) -> list[str]:
    """The documents."""
    return rows["text"].to_list()


def peers(path: Path, way: str) -> Mapping[str, Work]:
    """datasets over a corpus, where it has been before: `shipped` by Hugging Face's tokenizer, `fast` by fastokens."""
    datasets.disable_progress_bars()
    encode = ids_by(AutoTokenizer.from_pretrained(str(BUILTIN))) if way == "shipped" else builds.flat
    with_datasets(path, encode)
    return {way: lambda: with_datasets(path, encode)}


def race(folder: Path, *, short: bool) -> Race:
    """Ours and datasets, as shipped and with the fast tokenizer, each in a process of its own."""
    path = folder / "corpus.jsonl"
    builds.documents(path, 600_000 if short else 24_000_000)
    spec = {"kind": "cip", "source": {"path": str(path)}, "sequence_length": LENGTH}
    ours = Apart(builds.product, spec)
    floor = Apart(builds.floor, path, texts_of, spec)
    shipped, fast = (Apart(peers, path, way) for way in ("shipped", "fast"))
    return Race(
        title=f"`cip`, rows of {LENGTH:,} tokens",
        unit="tokens",
        floor={stage: floor.way(stage) for stage in builds.FLOOR},
        floor_aim=0.6,
        contenders=[
            Contender(name="Longweave", work=ours.way("build"), note="source to manifest"),
            Contender(
                name="Hugging Face datasets and tokenizers, a plain loop",
                work=shipped.way("shipped"),
                aim=25,
            ),
            Contender(name="the same with fastokens", work=fast.way("fast"), aim=2),
        ],
        processes=[ours, floor, shipped, fast],
    )
