"""The builtin haystack in Chinese: the same kind of articles, a short paragraph of one to three sentences on a line.

A line is the unit that needles stand between: many tokenizers join a full stop to the letters behind it, never to those of another line.
"""

from __future__ import annotations

from packing.draws import Draws
from synth.needles import lexicon_zh as lexicon
from synth.needles.grammar import Article, Slot, Stream, compiled

SENTENCES_OF_STOCK = 0.02


def _from(*groups: tuple[float, str]) -> Slot:
    def word(article: Article) -> str:
        number = article.stream.number()
        group = next(name for limit, name in groups if number < limit)
        return article.stream.often(article.words[group])

    return word


def _name(kind: str) -> Slot:
    return lambda article: article.stream.often(article.names[kind])


_noun = _from((0.42, "topic"), (0.6, "beside"), (1.0, "general"))
SLOTS: dict[str, Slot] = {
    "n": _noun,
    "v": _from((0.3, "topic verbs"), (1.0, "verbs")),
    "i": _from((1.0, "intransitive")),
    "adj": _from((0.3, "topic adjectives"), (1.0, "adjectives")),
    "adv": _from((1.0, "adverbs")),
    "time": _from((1.0, "times")),
    "by": _from((1.0, "places")),
    "who": _name("person"),
    "town": _name("place"),
    "num": lambda a: str(2 + a.stream.below(20 if a.stream.number() < 0.6 else 900)),
    "year": lambda a: str(1690 + a.stream.below(260)),
}

RULES: dict[str, list[str]] = {
    "s": [
        "4*{np}{vp}。",
        "3*{time}，{np}{vp}。",
        "2*{np}{vp}，{and}{np}{vp}。",
        "{sub}{np}{vp}，{np}就{vp}。",
        "虽然{np}{vp}，{np}还是{vp}。",
        "{np}{by}有{num}{cl}{n}，其中一{cl}很{adj}。",
        "{who}{said}，{np}{vp}。",
        "据{np}说，{np}{vp}。",
        "正是{who}{time}{v}了{np}。",
        "{who}没有{v}{np}，而是{v}了{np}。",
        "为了{v}{np}，{who}只好{v}{np}。",
        "无论是{np}还是{np}，都{deg}{adj}。",
        "要不是{np}{adv}{v}了{np}，{np}早就{i}了。",
        "{year}年，{np}在{town}{v}了{np}。",
        "{town}的{num}{cl}{n}里，只有{num}{cl}{deg}{adj}。",
        "“{quote}。”{who}{time}{said2}。",
        "从{town}到{town}的路上，{np}{vp}。",
        "{np}为什么{vp}，至今没有人{v}过。",
    ],
    "np": [
        "4*{n}",
        "3*{who}",
        "2*{adj}的{n}",
        "2*{who}的{n}",
        "那{cl}{n}",
        "一{cl}{adj}的{n}",
        "{town}的{n}",
        "{n}{by}的{n}",
        "{who}{v}过的{n}",
        "所有的{n}",
        "每一{cl}{n}",
    ],
    "vp": [
        "4*{v}了{np}",
        "2*{adv}{v}了{np}",
        "{adv}{i}了",
        "在{n}{by}{i}了",
        "开始{v}{np}",
        "想{time}{v}{np}",
        "不能{v}{np}",
        "看上去{deg}{adj}",
        "对{np}来说{deg}{adj}",
        "{v}了{np}，又{v}了{np}",
        "一直{i}，直到{np}{v}了{np}",
        "原来是一{cl}{adj}的{n}",
    ],
    "and": ["2*而", "可是", "于是", "同时", "不过"],
    "sub": ["因为", "等到", "自从", "只要", "如果"],
    "cl": ["个", "件", "处", "种"],
    "deg": ["很", "相当", "太", "几乎", "格外", "多少有些"],
    "said": ["说", "认为", "坚持说", "承认", "解释说", "猜想"],
    "said2": ["说道", "写道", "答道", "提醒说"],
    "quote": ["与其{v}{np}，不如{v}{np}", "没有{np}就没有{n}", "我们{time}一定要{v}{np}", "{n}很{adj}，{n}也一样"],
}

GRAMMAR = compiled(RULES, SLOTS)


def sentence(article: Article) -> str:
    """One sentence: mostly of the grammar, now and then a set phrase."""
    if article.stream.number() < SENTENCES_OF_STOCK:
        return article.stream.one(lexicon.STOCK)
    return GRAMMAR.expand("<s>", article)


def article(draws: Draws, number: int) -> list[list[str]]:
    """Article `number` of the text that `draws` stands for: paragraphs of one to three sentences."""
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
        "verbs": stream.shuffled(lexicon.VERBS),
        "intransitive": stream.shuffled(lexicon.INTRANSITIVE),
        "topic adjectives": stream.shuffled(topic[2].split()),
        "adjectives": stream.shuffled(lexicon.ADJECTIVES),
        "adverbs": stream.shuffled(lexicon.ADVERBS),
        "times": stream.shuffled(lexicon.TIMES),
        "places": stream.shuffled(lexicon.PLACES_BY),
    }
    people = [_person(stream) for _ in range(14)]
    places = [
        stream.one(lexicon.PLACE_FIRST) + stream.one(lexicon.PLACE_SECOND) + stream.one(lexicon.PLACE_THIRD)
        for _ in range(10)
    ]
    made = Article(stream, words, {"person": people, "place": places})
    return [[sentence(made) for _ in range(1 + stream.below(3))] for _ in range(40 + stream.below(40))]


def _person(stream: Stream) -> str:
    return stream.one(lexicon.FAMILY) + "".join(stream.one(lexicon.GIVEN) for _ in range(1 + stream.below(2)))
