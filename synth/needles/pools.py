"""Pools of units other than prose: lines of needles, pairs, dictionaries, edges, rounds of talk. Made once, tokenised once, and every
probe takes a run of them. What a pool holds is never an answer: keys that are asked for come from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

from packing.draws import Draws
from synth.needles import vocabulary
from synth.needles.grammar import Stream
from synth.needles.haystack import ARTICLES
from synth.needles.units import Measure, Units
from synth.needles.wording import WORDING


def _stream(name: str, locale: str, split: str) -> Stream:
    return Stream(Draws(0, f"pool/{name}/{locale}/{split}"), 0)


def _filled(made: Iterator[str], tokens: int, measure: Measure) -> Units:
    """At least so many tokens of units, a tenth more to choose runs from."""
    texts: list[str] = []
    total = 0
    while total < tokens * 1.1 + 2000:
        part = [next(made) for _ in range(256)]
        texts += part
        total += int(measure.along(part).sum())
    return Units.of(texts, measure)


@lru_cache(maxsize=6)
def needle_lines(keys: str, values: str, locale: str, split: str, tokens: int, measure: Measure) -> Units:
    """Statements of the needle's form, a line each, on keys and with values that no needle has that is asked for."""
    stream = _stream(f"needles/{keys}/{values}", locale, split)
    wording = WORDING[locale]

    def made() -> Iterator[str]:
        while True:
            key = vocabulary.value(keys, stream, locale, split, pool=True)
            value = vocabulary.value(values, stream, locale, split, pool=True)
            yield wording.needle.format(kind=wording.kinds[values][0], key=key, value=value) + "\n"

    return _filled(made(), tokens, measure)


@lru_cache(maxsize=4)
def pairs(split: str, tokens: int, measure: Measure) -> Units:
    """Members of a JSON object: UUID keys and UUID values, each with the space before it and the comma behind it."""
    stream = _stream("pairs", "any", split)

    def made() -> Iterator[str]:
        while True:
            yield pair(vocabulary.uuid(stream, split, pool=True), vocabulary.uuid(stream, split, pool=True))

    return _filled(made(), tokens, measure)


def pair(key: str, value: str) -> str:
    """A member of a JSON object as a unit."""
    return f' "{key}": "{value}",'


def asked_key(chance: Callable[[int], int], split: str) -> int:
    """A dictionary key that no pool has and no other split asks for."""
    return 100 + 10 * chance(990) + (3 if split == "test" else 7)


@lru_cache(maxsize=4)
def dictionaries(split: str, tokens: int, measure: Measure) -> Units:
    """Dictionaries of three or four integer keys of three or four digits (Artificial Needles, arXiv 2406.19292), a line each."""
    stream = _stream("dictionaries", "any", split)

    def made() -> Iterator[str]:
        while True:
            yield dictionary({other_key(stream.below): 10 + stream.below(9990) for _ in range(3 + stream.below(2))})

    return _filled(made(), tokens, measure)


def dictionary(entries: dict[int, int]) -> str:
    """A dictionary as a unit, behind its label."""
    return " {" + ", ".join(f"{key}: {value}" for key, value in entries.items()) + "}\n"


def other_key(below: Callable[[int], int]) -> int:
    """A dictionary key that nobody asks for."""
    key = 100 + below(9900)
    return key + 1 if key % 10 in (3, 7) else key


@lru_cache(maxsize=4)
def edges(split: str, tokens: int, measure: Measure) -> Units:
    """Edges between nodes that no planted walk passes, a line each."""
    stream = _stream("edges", "any", split)

    def made() -> Iterator[str]:
        nodes = [node(stream.below, split, planted=False) for _ in range(4000)]
        while True:
            yield f"{stream.one(nodes)} -> {stream.one(nodes)}\n"

    return _filled(made(), tokens, measure)


def node(below: Callable[[int], int], split: str, *, planted: bool) -> str:
    """The name of a node: eight hexadecimal digits. The last belongs to the split, the first to planted nodes or to the pool's."""
    digits = [
        2 * below(8) + (not planted),
        *(below(16) for _ in range(6)),
        2 * below(8) + vocabulary.SPLITS.index(split),
    ]
    return "".join(f"{digit:x}" for digit in digits)


@lru_cache(maxsize=4)
def rounds(locale: str, split: str, tokens: int, measure: Measure) -> Units:
    """Rounds of talk: a request for a piece of writing on a subject, and the piece, a line each."""
    stream = _stream("rounds", locale, split)
    draws = Draws(0, f"pool/rounds/prose/{locale}/{split}")
    wording = WORDING[locale]
    article = ARTICLES[locale]

    def made() -> Iterator[str]:
        number = 0
        subjects = vocabulary.nouns(locale, split)
        while True:
            for paragraph in article(draws, number):
                genre, subject = stream.one(wording.genres), subjects[2 * stream.below(len(subjects) // 2)]
                yield talk(locale, genre, subject, paragraph[:3])
            number += 1

    return _filled(made(), tokens, measure)


def talk(locale: str, genre: str, subject: str, sentences: list[str]) -> str:
    """One round as a unit."""
    joined = (" " if locale == "en_US" else "").join(sentences)
    return WORDING[locale].round.format(genre=genre, subject=subject, text=joined)
