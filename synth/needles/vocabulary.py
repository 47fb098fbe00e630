"""What needles are made of: words, numbers and UUIDs, with no value in common between train and test."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from synth.needles import lexicon_en, lexicon_zh
from synth.needles.chance import Chance
from synth.needles.grammar import Stream

SPLITS = ("test", "train")
_HEX = "0123456789abcdef"
_STRIDE = 104729
"""A prime, so that words of syllables come in no order of the alphabet."""


def mine(number: int, split: str) -> bool:
    """Whether a number belongs to a split: by the parity of the sum of its digits."""
    return sum(map(int, str(number))) % 2 == SPLITS.index(split)


def number(chance: Chance | Stream, split: str, digits: int = 7, *, pool: bool = False) -> str:
    """A number of so many digits that belongs to the split; those of a pool begin with an even digit, all others with an odd one."""
    first = 2 + 2 * chance.below(4) if pool else 1 + 2 * chance.below(5)
    value = first * 10 ** (digits - 1) + chance.below(10 ** (digits - 1))
    if not mine(value, split):
        value += 1 if value % 10 < 9 else -1
    return str(value)


def uuid(chance: Chance | Stream, split: str, *, pool: bool = False) -> str:
    """A UUID of version 4 that belongs to the split, by the parity of its last digit, and to a pool or not, by that of its first."""
    digits = [_HEX[chance.below(16)] for _ in range(32)]
    digits[0] = _HEX[2 * chance.below(8) + (not pool)]
    digits[12], digits[16] = "4", "89ab"[chance.below(4)]
    digits[31] = _HEX[2 * chance.below(8) + SPLITS.index(split)]
    text = "".join(digits)
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=8)
def nouns(locale: str, split: str) -> tuple[str, ...]:
    """Plain nouns of one split, in a fixed order."""
    lexicon = lexicon_en if locale == "en_US" else lexicon_zh
    topics = [word for topic in lexicon.TOPICS.values() for word in topic[0].split()]
    every = sorted({word for word in [*topics, *lexicon.NOUNS] if "-" not in word})
    return tuple(every[SPLITS.index(split) :: 2])


@lru_cache(maxsize=2)
def adjectives(locale: str) -> tuple[str, ...]:
    """Plain adjectives."""
    lexicon = lexicon_en if locale == "en_US" else lexicon_zh
    return tuple(sorted({word for word in lexicon.ADJECTIVES if "-" not in word}))


def word(chance: Chance | Stream, locale: str, split: str, *, pool: bool = False) -> str:
    """An adjective and a noun as one word, as RULER's keys are: the noun belongs to the split, and to a pool or not."""
    first = adjectives(locale)[chance.below(len(adjectives(locale)))]
    own = nouns(locale, split)[int(pool) :: 2]
    second = own[chance.below(len(own))]
    return f"{first}-{second}" if locale == "en_US" else f"{first}{second}"


def person(chance: Chance, locale: str, split: str) -> str:
    """A given name of one split that no builtin text has."""
    return chance.one((lexicon_en if locale == "en_US" else lexicon_zh).PEOPLE[SPLITS.index(split) :: 2])


def letters(below: Callable[[int], int], split: str, count: int, *, first: str = "a") -> str:
    """A word of so many letters that means nothing; its last letter belongs to the split."""
    made = [below(26) for _ in range(count - 1)]
    made.append(2 * below(13) + SPLITS.index(split))
    return "".join(chr(ord(first) + letter) for letter in made)


def value(kind: str, chance: Chance | Stream, locale: str, split: str, *, pool: bool = False) -> str:
    """A key or a value of a needle: `words`, `numbers` or `uuids`. What a pool holds, no needle that is asked for has."""
    if kind == "words":
        return word(chance, locale, split, pool=pool)
    return number(chance, split, pool=pool) if kind == "numbers" else uuid(chance, split, pool=pool)


def distinct(kind: str, count: int, chance: Chance, locale: str, split: str) -> list[str]:
    """A few different keys or values."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[value(kind, chance, locale, split)] = None
    return list(found)


@lru_cache(maxsize=8)
def _real_words(locale: str) -> tuple[str, ...]:
    """Every plain word of a lexicon, of any class."""
    lexicon = lexicon_en if locale == "en_US" else lexicon_zh
    verbs = lexicon_en.TRANSITIVE if locale == "en_US" else lexicon_zh.VERBS
    classes = (lexicon.ADJECTIVES, lexicon.ADVERBS, lexicon.INTRANSITIVE, verbs)
    every = {word for words in classes for word in words if "-" not in word}
    return tuple(sorted(every - set(nouns(locale, "test")) - set(nouns(locale, "train"))))


@lru_cache(maxsize=4)
def plain_words(locale: str, split: str, count: int) -> tuple[str, ...]:
    """At least `count` different single words of one split for lists: those of the lexicon first, then some made of syllables."""
    found = [*nouns(locale, split), *_real_words(locale)[SPLITS.index(split) :: 2]]
    parts = lexicon_en.SYLLABLES if locale == "en_US" else sorted(set(lexicon_zh.FAMILY + lexicon_zh.GIVEN))
    every = len(parts) ** 3
    seen = set(_real_words(locale)) | set(nouns(locale, "test")) | set(nouns(locale, "train"))
    for step in range(every):
        if len(found) >= count:
            break
        place = step * _STRIDE % every
        text = parts[place % len(parts)] + parts[place // len(parts) % len(parts)] + parts[place // len(parts) ** 2]
        if text not in seen:
            seen.add(text)
            if len(seen) % 2 == SPLITS.index(split):
                found.append(text)
    return tuple(found)
