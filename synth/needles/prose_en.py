"""The builtin haystack in English: articles of paragraphs, each about one topic with a second one beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from packing.draws import Draws
from synth.needles import lexicon_en as lexicon
from synth.needles.grammar import Article, Grammar, Slot, Stream, compiled

SENTENCES_OF_STOCK = 0.043
"""Share of sentences that are set phrases: the rate of repeated 8-grams comes from them (tests/synth/needles/test_haystack.py)."""

_IRREGULAR_GERUND = {"dye": "dyeing"}


def past(verb: str) -> str:
    """The past tense of a regular verb; a particle behind a hyphen stays as it is."""
    head, dash, particle = verb.partition("-")
    if head in _IRREGULAR_PAST:
        made = _IRREGULAR_PAST[head]
    elif head.endswith("e"):
        made = head + "d"
    elif head.endswith("y") and head[-2] not in "aeiou":
        made = head[:-1] + "ied"
    elif head in _DOUBLED:
        made = head + head[-1] + "ed"
    else:
        made = head + "ed"
    return f"{made} {particle.replace('-', ' ')}" if dash else made


def gerund(verb: str) -> str:
    """The -ing form of a regular verb."""
    head, dash, particle = verb.partition("-")
    if head in _IRREGULAR_GERUND:
        made = _IRREGULAR_GERUND[head]
    elif head.endswith("e") and not head.endswith("ee"):
        made = head[:-1] + "ing"
    elif head in _DOUBLED:
        made = head + head[-1] + "ing"
    else:
        made = head + "ing"
    return f"{made} {particle.replace('-', ' ')}" if dash else made


_DOUBLED = frozenset(
    {"chop", "trim", "stir", "wrap", "nod", "permit", "admit", "spin", "forbid", "forget", "trap", "ship", "stop", "transmit", "regret",
     "prefer", "label", "travel", "unravel", "typeset"}
)  # fmt: skip
_IRREGULAR_PAST = {
    "spin": "spun", "sell": "sold", "teach": "taught", "weave": "wove", "feed": "fed", "build": "built", "throw": "threw",
    "sweep": "swept", "sleep": "slept", "freeze": "froze", "forbid": "forbade", "forget": "forgot", "wind": "wound",
    "sew": "sewed", "blow": "blew", "light": "lit", "withdraw": "withdrew", "rebroadcast": "rebroadcast",
    "broadcast": "broadcast", "hide": "hid", "proofread": "proofread", "typeset": "typeset",
}  # fmt: skip


def plural(noun: str) -> str:
    """The plural of a regular noun."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("man") and not noun.endswith("human"):
        return noun[:-3] + "men"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    for single, many in (("shelf", "shelves"), ("loaf", "loaves"), ("knife", "knives"), ("child", "children")):
        if noun.endswith(single):
            return noun.removesuffix(single) + many
    return noun + "s"


def _spoken(noun: str) -> str:
    return noun.replace("-", " ")


def _noun(article: Article) -> str:
    number = article.stream.number()
    group = "topic" if number < 0.42 else "beside" if number < 0.6 else "general"
    return article.stream.often(article.words[group])


def _verb(article: Article) -> str:
    group = "topic verbs" if article.stream.number() < 0.25 else "verbs"
    return article.stream.often(article.words[group])


def _adjective(article: Article) -> str:
    group = "topic adjectives" if article.stream.number() < 0.25 else "adjectives"
    return article.stream.often(article.words[group])


def _name(kind: str) -> Slot:
    return lambda article: article.stream.zipf(article.names[kind])


def _invented(endings: Sequence[str], stream: Stream) -> str:
    count = 1 + (stream.number() < 0.45)
    stem = "".join(stream.one(lexicon.SYLLABLES) for _ in range(count))
    return (stem + stream.one(endings)).capitalize()


def _number(article: Article) -> str:
    scale = article.stream.number()
    largest = 12 if scale < 0.5 else 100 if scale < 0.8 else 4000
    value = 2 + article.stream.below(largest - 2)
    return _SMALL[value] if value < 13 else f"{value:,}"


_SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]

SLOTS: dict[str, Slot] = {
    "n": lambda a: _spoken(_noun(a)),
    "ns": lambda a: _spoken(plural(_noun(a))),
    "v": lambda a: _verb(a).replace("-", " "),
    "ved": lambda a: past(_verb(a)),
    "ving": lambda a: gerund(_verb(a)),
    "i": lambda a: a.stream.often(a.words["intransitive"]).replace("-", " "),
    "ied": lambda a: past(a.stream.often(a.words["intransitive"])),
    "adj": _adjective,
    "adv": lambda a: a.stream.often(a.words["adverbs"]),
    "time": lambda a: a.stream.often(a.words["times"]),
    "prep": lambda a: a.stream.often(a.words["prepositions"]),
    "who": _name("person"),
    "town": _name("place"),
    "num": _number,
    "year": lambda a: str(1690 + a.stream.below(260)),
}

RULES: dict[str, list[str]] = {
    "s": [
        "4*{np} {vp}.",
        "3*{np} {vp} {pp}.",
        "2*{Time}, {np} {vp}.",
        "2*{np} {vp}, {and} {np} {vp}.",
        "{sub} {np} {vp}, {np} {vp}.",
        "{np} {vp} {sublate} {np} {vp}.",
        "{np}, {rel}, {vp}.",
        "There was {a} {n} {pp}, {and} {np} {vp}.",
        "There were {num} {ns} {pp}, and {quant} of them {was} {adj}.",
        "{who} {said} that {np} {vp}.",
        "{who} {said} that {np} {vp}, which {np} {never} {believed}.",
        "According to {np}, {np} {vp}.",
        "It was {who} who {ved} {np} {time}.",
        "What {who} {ved} was {a} {n} {pp}.",
        "Instead of {ving} {np}, {who} {ved} {np}.",
        "By {ving} {np}, {np} {hoped} to {v} {np}.",
        "{np} had to {v} {np} before anyone could {v} {np}.",
        "Neither {np} nor {np} {vp}.",
        "If {np} had {adv} {ved} {np}, {np} would have {ied}.",
        "The more {np} {ied}, the more {np} {vp}.",
        "In {year}, {np} {vp} {pp}.",
        "Of the {num} {ns} in {town}, only {num} {was2} {adj}.",
        "{who} {ied} {adv}, {ved} {np} and {ied}.",
        "{np} {was} {adj}, {adj} and {deg} {adj}.",
        "To {v} {np} was {deg} {adj}; to {v} {np} was {adj}.",
        "Everybody in {town} {knew} that {np} {vp}.",
        '"{quote}," {who} {said2} {time}.',
        "{where} {town} and {town}, {np} {vp}.",
        "Why {np} {vp} {remained} {a} {n} for {np}.",
        "With {a} {n} and {num} {ns}, {np} {ved} {np} {pp}.",
    ],
    "np": [
        "4*the {n}",
        "2*the {adj} {n}",
        "2*{who}",
        "{a} {n}",
        "{a} {adj} {n}",
        "{poss} {n}",
        "{poss} {adj} {n}",
        "the {ns}",
        "{num} {ns}",
        "the {n} {pp}",
        "the {n} of the {n}",
        "the {n} that {who} had {ved}",
        "{who}'s {n}",
        "most of the {ns}",
        "the {ns} of {town}",
        "both {who} and the {n}",
        "every {n} in {town}",
    ],
    "vp": [
        "4*{ved} {np}",
        "2*{adv} {ved} {np}",
        "2*{ied} {adv}",
        "{ied}",
        "{ied} {pp}",
        "{began} to {v} {np}",
        "{wanted} to {v} {np} {time}",
        "had {adv} {ved} {np}",
        "could not {v} {np}",
        "2*{was} {deg} {adj}",
        "seemed {adj} to {np}",
        "{ved} {np} and {ved} {np}",
        "{ved} {np} without {ving} {np}",
        "{ied} until {np} {ved} {np}",
        "turned out to be {a} {adj} {n}",
    ],
    "pp": [
        "3*{prep} the {n}",
        "{prep} the {adj} {n}",
        "{prep} {poss} {n}",
        "in {town}",
        "on the road to {town}",
        "{time}",
        "from the {n} to the {n}",
    ],
    "rel": ["who {vp}", "whose {n} {vp}", "which {np} {ved}", "as {who} {said2}", "{adj} and {adj}", "{ving} {np}"],
    "a": ["a"],
    "poss": ["his", "her", "their", "its", "somebody's"],
    "and": ["3*and", "2*but", "so", "for", "yet", "while"],
    "sub": ["When", "Because", "Although", "After", "Before", "As soon as", "Unless", "Since", "Whenever", "Wherever"],
    "sublate": ["2*because", "although", "until", "unless", "before", "after", "as if", "even though", "so that"],
    "was": ["had been", "seemed", "looked", "proved", "remained", "became"],
    "was2": ["were", "had been", "seemed", "looked"],
    "quant": ["one", "none", "each", "hardly any", "at least one"],
    "deg": ["very", "rather", "too", "almost", "never quite", "unusually", "by no means", "more or less"],
    "said": ["insisted", "claimed", "believed", "reported", "swore", "explained", "assumed", "admitted"],
    "said2": ["remarked", "wrote", "replied", "repeated", "joked", "warned", "noted"],
    "never": ["never", "hardly", "at first", "at last", "always", "secretly"],
    "believed": ["believed", "understood", "forgave", "denied", "expected", "repeated"],
    "hoped": ["hoped", "tried", "managed", "meant", "offered", "threatened"],
    "began": ["began", "tried", "refused", "promised", "forgot", "decided", "learned", "continued"],
    "wanted": ["wanted", "used", "happened", "intended", "wished"],
    "knew": ["knew", "said", "thought", "remembered", "took it for granted"],
    "remained": ["remained", "became", "was", "is"],
    "where": ["Between", "Halfway between", "Somewhere between"],
    "quote": [
        "I would rather {v} {np} than {v} {np}",
        "Nobody can {v} {a} {adj} {n}",
        "Without {np} there is no {n}",
        "We shall {v} {np} {time}",
        "The {n} is {adj}, and so is the {n}",
        "Never {v} {a} {n} before you have {ved} {np}",
        "Who would have thought that {np} would {v} {np}",
    ],
    "Time": ["{time}"],
}

GRAMMAR: Grammar = compiled(RULES, SLOTS)
_VOWEL = re.compile(r"\b(a|A) (?=[aeioAEIO]|u(?!ni|se|su))")


def sentence(article: Article) -> str:
    """One sentence: mostly of the grammar, now and then a set phrase."""
    if article.stream.number() < SENTENCES_OF_STOCK:
        return article.stream.one(lexicon.STOCK)
    text = _VOWEL.sub(r"\1n ", GRAMMAR.expand("<s>", article))
    start = 1 if text[0] == '"' else 0
    return text[:start] + text[start].upper() + text[start + 1 :]


def article(draws: Draws, number: int) -> list[list[str]]:
    """Article `number` of the text that `draws` stands for: paragraphs of sentences, some two thousand words in all."""
    stream = Stream(draws, number)
    topics = sorted(lexicon.TOPICS)
    first = stream.below(len(topics))
    second = (first + 1 + stream.below(len(topics) - 1)) % len(topics)
    topic, beside = lexicon.TOPICS[topics[first]], lexicon.TOPICS[topics[second]]
    words = {
        "topic": stream.shuffled(topic[0].split()),
        "beside": stream.shuffled(beside[0].split()),
        "general": stream.shuffled(lexicon.NOUNS),
        "topic verbs": stream.shuffled(topic[1].split()),
        "verbs": stream.shuffled(lexicon.TRANSITIVE),
        "intransitive": stream.shuffled(lexicon.INTRANSITIVE),
        "topic adjectives": stream.shuffled(topic[2].split()),
        "adjectives": stream.shuffled(lexicon.ADJECTIVES),
        "adverbs": stream.shuffled(lexicon.ADVERBS),
        "times": stream.shuffled(lexicon.TIMES),
        "prepositions": stream.shuffled(lexicon.PREPOSITIONS),
    }
    family = [_invented(lexicon.FAMILY_ENDINGS, stream) for _ in range(16)]
    given = stream.shuffled(lexicon.GIVEN)[:16]
    people = [f"{a} {b}" if stream.number() < 0.5 else b for a, b in zip(given, family, strict=True)]
    places = [_invented(lexicon.PLACE_ENDINGS, stream) for _ in range(12)]
    made = Article(stream, words, {"person": people, "place": places})
    return [[sentence(made) for _ in range(2 + stream.below(6))] for _ in range(22 + stream.below(20))]
