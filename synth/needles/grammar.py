"""A small generative grammar: productions with slots, words drawn by Zipf's law, topics that persist over an article.

A text is cut into articles that know nothing of each other, so any stretch of it can be made on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from packing.draws import Draws

DRAWS_AT_ONCE = 2048


class Stream:
    """Uniform numbers in [0, 1), one after another, a function of (draws, row) alone."""

    def __init__(self, draws: Draws, row: int) -> None:
        self._draws, self._row, self._next = draws, row, 0
        self._numbers: list[float] = []

    def number(self) -> float:
        """The next number."""
        if not self._numbers:
            places = range(self._next, self._next + DRAWS_AT_ONCE)
            self._numbers = self._draws.uniform(self._row, list(places)).tolist()
            self._numbers.reverse()
            self._next += DRAWS_AT_ONCE
        return self._numbers.pop()

    def below(self, count: int) -> int:
        """A whole number in 0..count - 1."""
        return int(self.number() * count)

    def one(self, words: Sequence[str]) -> str:
        """One of the words, each as likely."""
        return words[int(self.number() * len(words))]

    def zipf(self, words: Sequence[str]) -> str:
        """One of the words by Zipf's law: the k-th with a chance in proportion to log(1 + 1/k)."""
        return words[int((len(words) + 1) ** self.number()) - 1]

    def often(self, words: Sequence[str]) -> str:
        """One of the words by a flatter law: the k-th with a chance falling as k**-0.375."""
        return words[int(len(words) * self.number() ** 1.6)]

    def shuffled(self, words: Sequence[str]) -> list[str]:
        """The words in another order."""
        keys = [self.number() for _ in words]
        return [words[i] for i in sorted(range(len(words)), key=keys.__getitem__)]


Slot = Callable[["Article"], str]


@dataclass(slots=True)
class Article:
    """What persists while an article is written: the stream, the lexicon of its topics by word class, the names that recur."""

    stream: Stream
    words: Mapping[str, Sequence[str]]
    names: Mapping[str, Sequence[str]]
    last: str = field(default="")


@dataclass(frozen=True, slots=True)
class Grammar:
    """Compiled productions: for every symbol a list of alternatives, each a list of literal texts, symbols and slots."""

    rules: Mapping[str, Sequence[Sequence[str | Slot]]]

    def expand(self, symbol: str, article: Article) -> str:
        """One sentence of the grammar from `symbol`."""
        parts: list[str] = []
        stack: list[str | Slot] = [symbol]
        rules, number = self.rules, article.stream.number
        while stack:
            item = stack.pop()
            if not isinstance(item, str):
                parts.append(item(article))
            elif item in rules:
                choices = rules[item]
                stack.extend(choices[int(number() * len(choices))])
            else:
                parts.append(item)
        return "".join(parts)


def compiled(rules: Mapping[str, Sequence[str]], slots: Mapping[str, Slot]) -> Grammar:
    """Productions written as texts with {symbol} or {slot} in them; raises KeyError for a name that is neither.

    An alternative that begins with `3*` is three times as likely as one that does not.
    """
    made: dict[str, list[Sequence[str | Slot]]] = {}
    for symbol, alternatives in rules.items():
        made[f"<{symbol}>"] = []
        for text in alternatives:
            weight, star, rest = text.partition("*")
            times, body = (int(weight), rest) if star and weight.isdigit() else (1, text)
            parts = tuple(reversed(_parts(body, rules, slots)))
            made[f"<{symbol}>"] += [parts] * times
    return Grammar(made)


def _parts(text: str, rules: Mapping[str, Sequence[str]], slots: Mapping[str, Slot]) -> list[str | Slot]:
    parts: list[str | Slot] = []
    for number, piece in enumerate(text.replace("}", "{").split("{")):
        if number % 2:
            parts.append(f"<{piece}>" if piece in rules else slots[piece])
        elif piece:
            parts.append(piece)
    return parts
