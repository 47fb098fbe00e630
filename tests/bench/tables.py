"""SynL conversations beside what people do: a Faker call a cell, or pools of Faker values sampled with polars; rows counted one by one and
taken until the length is reached, one lookup question, the whole rendered by the chat template and counted."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import fastokens
import numpy as np
import polars as pl
from faker import Faker
from transformers import AutoTokenizer

from packing.plan import Tally
from packing.tokenizers import BUILTIN, Tokenizer
from service.engine.memory import keep_freed_memory
from service.kinds import KINDS, spec_of
from tests.bench.apart import Apart
from tests.bench.measure import Contender, Race, Work
from tests.bench.needles import Inputs

LENGTH = 8192
FIELDS = ("name", "company", "city", "job", "email", "date", "street_address", "phone_number", "country", "word")
MARGIN = 200


def ours(tokenizer: Tokenizer, samples: int) -> int:
    """Tokens of conversations built as a shard does, with its audit, rows checked as they are written."""
    spec = spec_of(
        {"kind": "synl", "samples": samples, "length": [LENGTH], "locales": {"en_US": 1}, "split": {"train": 1}}
    )
    kind, inputs, tokens = KINDS["synl"], Inputs(tokenizer), 0
    for shard in kind.plan(spec, inputs, []).shards:
        for batch in kind.build(spec, shard, inputs, Tally()):
            kind.check(spec, batch)
            tokens += int(batch.column("n_tokens").to_numpy().sum())
    return tokens


def conversation(lines: list[str], draws: random.Random) -> list[dict[str, str]]:
    """A table of lines with one lookup question."""
    row = draws.choice(lines[1:]).split(",")
    question = f"Table:\n{chr(10).join(lines)}\n\nWhat is the {FIELDS[2]} of {row[0]}?"
    return [{"role": "user", "content": question}, {"role": "assistant", "content": row[2]}]


def until_full(line: Callable[[], str], count: Callable[[list[str]], list[int]]) -> list[str]:
    """Lines until the length is reached, counted in batches."""
    lines, total = [",".join(FIELDS)], 0
    while True:
        more = [line() for _ in range(40)]
        for text, tokens in zip(more, count([f"{text}\n" for text in more]), strict=True):
            total += tokens
            if total > LENGTH - MARGIN:
                return lines
            lines.append(text)


def with_faker(
    samples: int, whole: Callable[[list[dict[str, str]]], int], count: Callable[[list[str]], list[int]]
) -> int:
    """A call of Faker for every cell."""
    fake, draws = Faker("en_US", use_weighting=False), random.Random(0)
    fake.seed_instance(0)

    def line() -> str:
        return ",".join(str(getattr(fake, name)()).replace(",", "") for name in FIELDS)

    return sum(whole(conversation(until_full(line, count), draws)) for _ in range(samples))


def with_pools(
    samples: int,
    pools: pl.DataFrame,
    whole: Callable[[list[dict[str, str]]], int],
    count: Callable[[list[str]], list[int]],
) -> int:
    """Pools of Faker values, sampled a column at a time and written by polars."""
    draws, rows, total = np.random.default_rng(0), random.Random(0), 0
    for _ in range(samples):
        table = pl.DataFrame({name: pools[name].gather(draws.integers(0, len(pools), 400)) for name in FIELDS})
        lines = iter(table.write_csv(include_header=False).splitlines())
        total += whole(conversation(until_full(lambda lines=lines: next(lines), count), rows))
    return total


def product(samples: int) -> Mapping[str, Work]:
    """Ours in a process like a worker's. Pools are drawn once a process, the peers' lie ready."""
    keep_freed_memory()
    tokenizer = Tokenizer.load(BUILTIN, name="builtin")
    ours(tokenizer, 4)
    return {"build": lambda: ours(tokenizer, samples)}


def peers(samples: int, slow: int) -> Mapping[str, Work]:
    """Faker with Hugging Face's tokenizer, pools with it and with the fast one: `slow` and `samples` conversations a turn."""
    reference = AutoTokenizer.from_pretrained(str(BUILTIN))
    fast = fastokens.Tokenizer.from_file(str(BUILTIN / "tokenizer.json"))
    fake = Faker("en_US", use_weighting=False)
    fake.seed_instance(0)
    pools = pl.DataFrame({name: [str(getattr(fake, name)()).replace(",", "") for _ in range(2000)] for name in FIELDS})

    def by_reference(texts: list[str]) -> list[int]:
        return [len(ids) for ids in reference(texts, add_special_tokens=False)["input_ids"]]

    def by_fast(texts: list[str]) -> list[int]:
        return np.diff(np.frombuffer(fast.encode_batch_flat(texts)[1], np.uint64).astype(np.int64)).tolist()

    def whole_by_reference(messages: list[dict[str, str]]) -> int:
        return len(reference.apply_chat_template(messages, tokenize=True, return_dict=False))

    def whole_by_fast(messages: list[dict[str, str]]) -> int:
        text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        return by_fast([text])[0]

    return {
        "faker": lambda: with_faker(slow, whole_by_reference, by_reference),
        "pools": lambda: with_pools(slow, pools, whole_by_reference, by_reference),
        "fast": lambda: with_pools(samples, pools, whole_by_fast, by_fast),
    }


def race(*, short: bool) -> Race:
    """Ours, Faker with Hugging Face's tokenizer, pools with the fast one."""
    samples, slow = (8, 1) if short else (400, 12)
    build, others = Apart(product, samples), Apart(peers, samples, slow)
    return Race(
        title="`synl`, conversations of 8,192 tokens",
        unit="tokens",
        contenders=[
            Contender(name="Longweave", work=build.way("build"), note="audit included"),
            Contender(
                name="a Faker call a cell, Hugging Face tokenizers",
                work=others.way("faker"),
                aim=100,
                note="one lookup question, no answers checked",
            ),
            Contender(
                name="pools of Faker values, polars, Hugging Face tokenizers",
                work=others.way("pools"),
                note="likewise",
            ),
            Contender(name="pools of Faker values, polars, fastokens", work=others.way("fast"), aim=5, note="likewise"),
        ],
        processes=[build, others],
    )
