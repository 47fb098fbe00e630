"""Haystacks: units of text that hold no answer. The builtin ones are generated, need no download and do not repeat themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count

from packing.draws import Draws
from packing.tokenizers import Tokenizer
from synth.needles import prose_en, prose_zh
from synth.needles.units import Measure, Units

NOISE = {
    "en_US": (
        "The grass is green.",
        " The sky is blue.",
        " The sun is yellow.",
        " Here we go.",
        " There and back again.\n",
    ),
    "zh_CN": ("草是绿的。天是蓝的。\n", "太阳是黄的。我们走吧。\n", "去了又回来。\n"),
}
"""The sentences that RULER and InfiniteBench repeat, and their like in Chinese."""
PARAGRAPH = 12
"""Sentences after which a paragraph of a user's text is broken, so that there are places to begin at."""
LONGEST = 2000
"""Characters of a unit: what is longer is cut at a space or, without one, there."""
ARTICLES = {"en_US": prose_en.article, "zh_CN": prose_zh.article}
_SENTENCE_END = re.compile(r"(?<=[.!?…][\"'”’)\]])\s+|(?<=[.!?…])\s+")
_WRAPPED = re.compile(r"(?<=[^\s.!?:。！？])[ \t]*\r?\n[ \t]*(?=[a-z(])")
"""A line's end inside a sentence: nothing ends before it, and a small letter stands behind it."""
_FULL_WIDTH_END = re.compile(r"(?<=[。！？])(?![”’」』。！？])")
Article = Callable[[Draws, int], list[list[str]]]


def lines_of(paragraphs: Sequence[Sequence[str]], *, joined: str) -> list[str]:
    """Paragraphs of sentences as units: every paragraph is a line, its sentences apart by `joined`; without one, it is one unit."""
    units: list[str] = []
    for sentences in paragraphs:
        if not joined:
            units.append("".join(sentences) + "\n")
            continue
        first = len(units)
        units += [sentences[0], *(joined + sentence for sentence in sentences[1:])]
        units[-1] = f"{units[-1]}\n"
        assert len(units) > first
    return units


def builtin_units(locale: str, split: str) -> Iterator[list[str]]:
    """The builtin text, article by article, without end; train and test have no article in common."""
    article: Article = ARTICLES[locale]
    draws = Draws(0, f"haystack/{locale}/{split}")
    for number in count():
        yield lines_of(article(draws, number), joined=" " if locale == "en_US" else "")


@lru_cache(maxsize=2)
def measure_of(tokenizer: Tokenizer) -> Measure:
    """The measure of a tokenizer: what it has counted stays counted while the tokenizer is in use."""
    return Measure(tokenizer)


@lru_cache(maxsize=4)
def builtin(locale: str, split: str, tokens: int, measure: Measure) -> Units:
    """At least `tokens` of the builtin text, tokenised; kept for the next call."""
    texts: list[str] = []
    counted = 0
    for article in builtin_units(locale, split):
        texts += article
        counted += int(measure.along(article).sum())
        if counted >= tokens:
            break
    return Units.of(texts, measure)


@lru_cache(maxsize=4)
def fillers(locale: str, split: str, measure: Measure) -> Units:
    """Sentences as lines of their own, from an article that no haystack reaches."""
    prose = ARTICLES[locale](Draws(0, f"fillers/{locale}/{split}"), 0)
    return Units.of([sentence + "\n" for paragraph in prose for sentence in paragraph], measure)


@lru_cache(maxsize=4)
def noise(locale: str, tokens: int, measure: Measure) -> Units:
    """At least `tokens` of sentences that repeat themselves and say nothing."""
    sentences = list(NOISE[locale])
    each = int(measure.along(sentences * 4).sum()) / 4
    times = int(tokens / each) + 2
    return Units.of(sentences * times, measure)


def sentences_of(text: str, special: Sequence[str]) -> list[str]:
    """A user's text as units: white space is narrowed to a space or a line's end, sentences are the units, and those that spell a
    special token are left out."""
    units: list[str] = []
    for paragraph in re.split(r"\s*\n\s*", _WRAPPED.sub(" ", text.strip())):
        clean = " ".join(paragraph.split())
        found = [part for sentence in _SENTENCE_END.split(clean) for part in _cut(sentence)]
        found = [s for s in found if s and not any(token in s for token in special)]
        for first in range(0, len(found), PARAGRAPH):
            units += _paragraph(found[first : first + PARAGRAPH])
    return units


def _paragraph(sentences: Sequence[str]) -> list[str]:
    """Sentences as the units of a line; a full-width stop ends the line, since many tokenizers join it to the letter behind it."""
    pieces = [piece for sentence in sentences for piece in _FULL_WIDTH_END.split(sentence) if piece]
    if len(pieces) > len(sentences):
        return [piece.strip() + "\n" for piece in pieces if piece.strip()]
    return lines_of([sentences], joined=" ")


def _cut(sentence: str) -> Iterator[str]:
    while len(sentence) > LONGEST:
        place = sentence.rfind(" ", LONGEST // 2, LONGEST)
        place = LONGEST if place < 0 else place
        yield sentence[:place]
        sentence = sentence[place:].lstrip()
    yield sentence
