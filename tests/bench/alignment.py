"""SkipAlign rows from conversations beside Hugging Face datasets with `apply_chat_template` and positions made PoSE's way, row by row."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import torch
from transformers import AutoTokenizer

from packing.tokenizers import BUILTIN
from tests.bench import builds
from tests.bench.apart import Apart
from tests.bench.measure import Contender, Race, Result, Work, measure

LONGEST, WINDOW = 4096, 131_072
Messages = list[dict[str, str]]


def skipped(batch: list[list[int]], draws: random.Random) -> dict[str, list[Any]]:
    """Two chunks a row, the second moved: PoSE's preprocessing, as its users map it over a dataset."""
    rows: list[list[int]] = []
    positions: list[torch.Tensor] = []
    for ids in batch:
        place = torch.arange(len(ids), dtype=torch.long)
        cut = draws.randint(0, len(ids) // 2)
        place[cut:] += draws.randint(0, WINDOW - len(ids))
        rows.append(ids[:cut] + ids[cut:])
        positions.append(place)
    return {"input_ids": rows, "labels": rows, "position_ids": positions}


Encode = Callable[[list[Messages]], list[list[int]]]


def ids_by(reference: Any) -> Encode:
    """Conversations to ids as users of transformers write it."""
    return lambda batch: reference.apply_chat_template(
        batch, tokenize=True, return_dict=False, truncation=True, max_length=LONGEST
    )


def fast_ids_by(reference: Any) -> Encode:
    """The same with the template rendered first and fastokens behind it."""
    return lambda batch: [ids[:LONGEST] for ids in builds.flat(reference.apply_chat_template(batch, tokenize=False))]


def with_datasets(path: Path, encode: Encode, processes: int | None = None) -> int:
    """datasets' map over conversations, then its map over ids, into Parquet; labels are the ids, prompts included."""
    draws = random.Random(0)
    with builds.folder() as out:
        rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(out / "cache"))
        mapped = rows.map(
            lambda batch: skipped(encode(batch["messages"]), draws),
            batched=True,
            num_proc=processes,
            remove_columns=rows.column_names,
            new_fingerprint="bench",  # the cache is thrown away; a function made here has no name to be cached by
        )
        mapped.to_parquet(str(out / "rows.parquet"))
        return sum(len(row) for row in mapped.with_format("arrow")["input_ids"])


def rendered(rows: pl.DataFrame) -> list[str]:
    """What a chat template makes of the conversations: ChatML, like the builtin one's."""
    return [
        "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
        for messages in rows["messages"].to_list()
    ]


def positions(folder: Path, *, short: bool) -> Iterator[Result]:
    """Bytes that a token's position takes on disk: as a spec that says nothing has it, where half of the rows skip, and where all do."""
    path = folder / "conversations.jsonl"
    builds.conversations(path, 600_000 if short else 24_000_000)
    for probability, note in ((0.5, "`skipalign` as it comes: every second row skips"), (1, "every row skips")):
        with builds.folder() as out:
            manifest = builds.build(
                out,
                kind="skipalign",
                source={"path": str(path)},
                max_position=WINDOW,
                max_length=LONGEST,
                probability=probability,
            )
            each = builds.column_bytes(out, manifest, "position_ids") / manifest.counts["tokens"]
        what = "positions on disk" if probability < 1 else ""
        yield measure(what, "Longweave", [each], "B/token", most=0.03, note=note)


def peers(path: Path, way: str) -> Mapping[str, Work]:
    """datasets over conversations, where it has been before: `shipped` by `apply_chat_template`, `fast` by its text and fastokens."""
    datasets.disable_progress_bars()
    reference = AutoTokenizer.from_pretrained(str(BUILTIN))
    encode = ids_by(reference) if way == "shipped" else fast_ids_by(reference)
    with_datasets(path, encode)
    return {way: lambda: with_datasets(path, encode)}


def race(folder: Path, *, short: bool) -> Race:
    """Ours and datasets, as shipped and with the fast tokenizer, each in a process of its own."""
    path = folder / "conversations.jsonl"
    builds.conversations(path, 600_000 if short else 24_000_000)
    spec = {"kind": "skipalign", "source": {"path": str(path)}, "max_position": WINDOW, "max_length": LONGEST}
    ours = Apart(builds.product, spec)
    floor = Apart(builds.floor, path, rendered, spec)
    shipped, fast = (Apart(peers, path, way) for way in ("shipped", "fast"))
    return Race(
        title="`skipalign`, conversations of about 870 tokens",
        unit="tokens",
        floor={stage: floor.way(stage) for stage in builds.FLOOR},
        floor_aim=0.6,
        contenders=[
            Contender(name="Longweave", work=ours.way("build"), note="source to manifest; labels on responses only"),
            Contender(
                name="datasets' `map`, `apply_chat_template`, positions PoSE's way",
                work=shipped.way("shipped"),
                aim=25,
                note="prompts are trained too; one process, for more only add processor time",
            ),
            Contender(name="the same with fastokens", work=fast.way("fast"), aim=2, note="likewise"),
        ],
        processes=[ours, floor, shipped, fast],
    )
