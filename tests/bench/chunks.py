"""CIP rows from a corpus beside Hugging Face datasets as people use it: map a tokenizer over the texts, weave in a plain loop, write
Parquet."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import datasets
import fastokens
import numpy as np
from transformers import AutoTokenizer

from packing.tokenizers import BUILTIN
from service.commands.specs import take_in_sources
from service.engine.executor import InlineExecutor
from service.engine.line import Unwatched, build_dataset
from service.engine.tokenizers import find_tokenizer
from service.kinds import spec_of
from service.storage.objects import Objects
from synth.needles.haystack import builtin_units
from tests.bench.measure import Contender, Race

LENGTH = 32_768


def corpus(path: Path, bytes_wanted: int) -> None:
    """Documents of the builtin prose, some kilobytes each."""
    with path.open("w", encoding="utf-8") as sink:
        size = number = 0
        document: list[str] = []
        for paragraph in builtin_units("en_US", "test"):
            document.append(" ".join(paragraph))
            if sum(map(len, document)) > 2000 + 4000 * (number % 5):
                text = "\n\n".join(document)
                sink.write(json.dumps({"id": f"d{number}", "text": text}) + "\n")
                size, number, document = size + len(text), number + 1, []
            if size > bytes_wanted:
                return


def ours(path: Path) -> int:
    """A whole build in this process, source to manifest; tokens."""
    out = Path(tempfile.mkdtemp(prefix="longweave-bench-"))
    try:
        spec = spec_of({"kind": "cip", "source": {"path": str(path)}, "sequence_length": LENGTH})
        objects = Objects.local(out)
        manifest = build_dataset(
            spec=spec,
            sources=take_in_sources(spec, objects, ".work/pieces"),
            tokenizer=find_tokenizer("builtin"),
            objects=objects,
            work=".work",
            target="",
            executor=InlineExecutor(),
            watch=Unwatched(),
        )
        return manifest.counts["tokens"]
    finally:
        shutil.rmtree(out)


def with_datasets(path: Path, encode: Callable[[list[str]], list[list[int]]]) -> int:
    """datasets' map, then chunks in two rounds until a row is full, as lists, into Parquet."""
    out = Path(tempfile.mkdtemp(prefix="longweave-bench-"))
    try:
        rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(out / "cache"))
        mapped = rows.map(
            lambda batch: {"ids": encode(batch["text"])},
            batched=True,
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
    finally:
        shutil.rmtree(out)


def race(folder: Path, *, short: bool) -> Race:
    """Ours and datasets, as shipped and with the fast tokenizer."""
    datasets.disable_progress_bars()
    path = folder / "corpus.jsonl"
    corpus(path, 3_000_000 if short else 12_000_000)
    reference = AutoTokenizer.from_pretrained(str(BUILTIN))
    fast = fastokens.Tokenizer.from_file(str(BUILTIN / "tokenizer.json"))

    def by_fast(texts: list[str]) -> list[list[int]]:
        ids, offsets = fast.encode_batch_flat(texts)
        return [
            part.tolist()
            for part in np.split(np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64)[1:-1].astype(int))
        ]

    ours(path)
    return Race(
        title=f"cip: rows of {LENGTH:,} tokens",
        unit="tokens",
        contenders=[
            Contender("Longweave", lambda: ours(path)),
            Contender("datasets, Hugging Face", lambda: with_datasets(path, lambda t: reference(t)["input_ids"])),
            Contender("datasets, fastokens", lambda: with_datasets(path, by_fast)),
        ],
        aims={"datasets, Hugging Face": 25, "datasets, fastokens": 2},
    )
