"""Needle probes of 131,072 tokens beside RULER's way, written from its description: size the haystack by bisection, every probe of the
search and every sample tokenised whole by the tokenizer's `tokenize`, the answer's place by tokenising what stands before it."""

from __future__ import annotations

import random
from collections.abc import Callable

import fastokens
from transformers import AutoTokenizer

from packing.plan import Tally
from packing.tokenizers import BUILTIN, Tokenizer
from service.kinds import KINDS, spec_of
from synth.needles.haystack import builtin_units
from tests.bench.measure import Contender, Race

LENGTH, BUDGET = 131_072, 128
TEMPLATE = "A special magic number is hidden within the following text.\n{context}\nWhat is the special magic number for {query}?"


class Inputs:
    """The tokenizer and nothing to read."""

    pieces = ()

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer


def ours(tokenizer: Tokenizer, probes: int) -> int:
    """Build probes as a shard does, rows checked as they are written."""
    spec = spec_of(
        {"kind": "needle", "tasks": ["niah_single"], "lengths": [LENGTH], "depths": 10, "repeats": probes // 10}
    )
    kind, inputs, count = KINDS["needle"], Inputs(tokenizer), 0
    for shard in kind.plan(spec, inputs, []).shards:
        for batch in kind.build(spec, shard, inputs, Tally()):
            kind.check(spec, batch)
            count += batch.num_rows
    return count


class RulersWay:
    """RULER's niah over a text of sentences, `length_of` counting tokens as its tokenizer class does."""

    def __init__(self, length_of: Callable[[str], int], sentences: list[str]) -> None:
        self._length_of = length_of
        self._sentences = sentences
        # Sized once and outside the race: what is compared is a sample more, not the start.
        self._size = self._sized(random.Random(0))

    def run(self, samples: int) -> int:
        draws = random.Random(0)
        for _ in range(samples):
            used = self._size
            while True:
                text, before = self._sample(used, draws)
                if self._length_of(text) + BUDGET <= LENGTH:
                    break
                used -= 5
            self._length_of(before)
        return samples

    def _sized(self, draws: random.Random) -> int:
        each = self._length_of(" ".join(self._sentences[:100])) / 100
        low, high = 10, int(3 * LENGTH / each)
        while low < high - 5:
            middle = (low + high) // 2
            text, _ = self._sample(middle, draws)
            if self._length_of(text) + BUDGET <= LENGTH:
                low = middle
            else:
                high = middle
        return low

    def _sample(self, sentences: int, draws: random.Random) -> tuple[str, str]:
        several = -(-sentences // len(self._sentences))
        chosen = (self._sentences * several)[:sentences]
        key, value = f"key-{draws.randrange(10**6)}", str(draws.randrange(10**6, 10**7))
        place = draws.randrange(sentences)
        needle = f"One of the special magic numbers for {key} is: {value}."
        text = TEMPLATE.format(context=" ".join([*chosen[:place], needle, *chosen[place:]]), query=key)
        return text, text[: text.find(value)]


def race(*, short: bool) -> Race:
    """Ours and RULER's way with its own kind of tokenizer, and with the fast one."""
    tokenizer = Tokenizer.load(BUILTIN, name="builtin")
    sentences: list[str] = []
    for paragraph in builtin_units("en_US", "test"):
        sentences += paragraph
        if len(sentences) > 12_000:
            break
    reference = AutoTokenizer.from_pretrained(str(BUILTIN))
    fast = fastokens.Tokenizer.from_file(str(BUILTIN / "tokenizer.json"))
    peers = RulersWay(lambda text: len(reference.tokenize(text)), sentences)
    same = RulersWay(lambda text: len(fast.encode_batch_flat([text])[0]) // 4, sentences)
    ours(tokenizer, 10)  # the haystack is made once a process, theirs lies ready
    probes, samples = (100, 2) if short else (200, 8)
    return Race(
        title="needles: niah_single at 131,072 tokens",
        unit="probes",
        contenders=[
            Contender("Longweave", lambda: ours(tokenizer, probes)),
            Contender("RULER's way, transformers' tokenize", lambda: peers.run(samples)),
            Contender("RULER's way, fastokens", lambda: same.run(4 * samples)),
        ],
        aims={"RULER's way, transformers' tokenize": 100, "RULER's way, fastokens": 20},
    )
