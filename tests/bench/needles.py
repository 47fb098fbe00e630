"""Needle probes of 131,072 tokens beside RULER's way, written from its description: size the haystack by bisection in words; for every
sample cut the whole haystack into sentences with nltk, put the needle between two of them, tokenise the whole by the tokenizer's
`tokenize`, and find the answer's place by tokenising what stands before it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import fastokens
from nltk.tokenize.punkt import PunktSentenceTokenizer
from transformers import AutoTokenizer

from packing.plan import Tally
from packing.tokenizers import BUILTIN, Tokenizer
from service.engine.memory import keep_freed_memory
from service.kinds import KINDS, spec_of
from synth.needles.haystack import builtin_units
from tests.bench.apart import Apart
from tests.bench.measure import Contender, Race, Work

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
    """RULER's niah over a text of words, `length_of` counting tokens as its tokenizer class does."""

    def __init__(self, length_of: Callable[[str], int], words: list[str], size: int = 0) -> None:
        self._length_of = length_of
        self._words = words
        # Its own parameters, not the trained ones that RULER's users download: the work is the same.
        self._sentences = PunktSentenceTokenizer()
        # Sized once and outside the race: what is compared is a sample more, not the start.
        self.size = size or self._sized(random.Random(0))

    def run(self, samples: int) -> int:
        draws = random.Random(0)
        for _ in range(samples):
            used = self.size
            while True:
                text, before = self._sample(used, draws)
                if self._length_of(text) + BUDGET <= LENGTH:
                    break
                used -= 500
            self._length_of(before)
        return samples

    def _sized(self, draws: random.Random) -> int:
        each = self._length_of(" ".join(self._words[:1000])) / 1000
        low, high = 10, int(3 * LENGTH / each)
        while low < high - 500:
            middle = (low + high) // 2
            text, _ = self._sample(middle, draws)
            if self._length_of(text) + BUDGET <= LENGTH:
                low = middle
            else:
                high = middle
        return low

    def _sample(self, words: int, draws: random.Random) -> tuple[str, str]:
        several = -(-words // len(self._words))
        sentences = self._sentences.tokenize(" ".join((self._words * several)[:words]).strip())
        key, value = f"key-{draws.randrange(10**6)}", str(draws.randrange(10**6, 10**7))
        place = draws.randrange(len(sentences))
        needle = f"One of the special magic numbers for {key} is: {value}."
        context = " ".join([" ".join(sentences[:place]), needle, " ".join(sentences[place:])])
        text = TEMPLATE.format(context=context, query=key)
        return text, text[: text.find(value)]


def product(probes: int) -> Mapping[str, Work]:
    """Ours in a process like a worker's. The haystack is made once a process, the peers' lies ready."""
    keep_freed_memory()
    tokenizer = Tokenizer.load(BUILTIN, name="builtin")
    ours(tokenizer, 10)
    return {"build": lambda: ours(tokenizer, probes)}


def peers(samples: int) -> Mapping[str, Work]:
    """RULER's way with its own kind of tokenizer, and with the fast one, which makes twice as many samples a turn."""
    words: list[str] = []
    for paragraph in builtin_units("en_US", "test"):
        words += " ".join(paragraph).split()
        if len(words) > 90_000:
            break
    reference = AutoTokenizer.from_pretrained(str(BUILTIN))
    fast = fastokens.Tokenizer.from_file(str(BUILTIN / "tokenizer.json"))
    same = RulersWay(lambda text: len(fast.encode_batch_flat([text])[0]) // 4, words)
    slow = RulersWay(lambda text: len(reference.tokenize(text)), words, same.size)  # one vocabulary, one size
    return {"slow": lambda: slow.run(samples), "fast": lambda: same.run(2 * samples)}


def race(*, short: bool) -> Race:
    """Ours and RULER's way with its own kind of tokenizer, and with the fast one."""
    probes, samples = (20, 1) if short else (200, 8)
    build, others = Apart(product, probes), Apart(peers, samples)
    return Race(
        title="`needle`, niah_single at 131,072 tokens",
        unit="probes",
        contenders=[
            Contender(name="Longweave", work=build.way("build"), note="rows checked as they are written"),
            Contender(
                name="RULER's way, transformers' `tokenize`",
                work=others.way("slow"),
                aim=100,
                note="its start and its sizing left out",
            ),
            Contender(
                name="RULER's way, fastokens",
                work=others.way("fast"),
                aim=20,
                note="likewise; the rest is nltk's sentences",
            ),
        ],
        processes=[build, others],
    )
