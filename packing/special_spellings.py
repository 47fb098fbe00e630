"""Where texts spell the special tokens of a tokenizer, and how a text is written that spells some which are to stay text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import reduce

from packing.chat_shapes import common_prefix
from packing.tokenizers import Tokenizer


class SpecialSpellings:
    """The spellings of a tokenizer's special tokens; `firsts` are the characters that begin them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._any = _spelling_of_any(tokenizer.special)
        openings = _openings_of(tokenizer.special)
        self.firsts = tuple(openings)
        self._openings = tuple(openings.values())
        self._guards = tokenizer.guard_characters
        self._hidden = tokenizer.hidden

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where special tokens are spelled in a text: (start, end) in characters."""
        return [match.span() for match in self._any.finditer(text)] if self._any else []

    def counts(self, text: str) -> list[int]:
        """How often a text holds each character that begins special tokens."""
        return [text.count(first) for first in self.firsts]

    def absent(self, texts: Iterable[str]) -> bool:
        """Whether texts certainly spell none."""
        text = "\0".join(texts)
        begun = [at for opening in self._openings if (at := text.find(opening)) >= 0]
        return not begun or self._any is None or self._any.search(text, min(begun)) is None

    def hidden(self, text: str) -> str:
        """A text with its special tokens spelled as Tokenizer.encode_hidden expects them."""
        return self._hidden(text, self.spans(text))

    def escapable(self, text: str) -> bool:
        """Whether a text holds none of the private-use characters that stand for special tokens where one is escaped."""
        # Those are of the last plane of Unicode, whose characters begin with this byte.
        return text.isascii() or b"\xf4" not in text.encode() or self._guards.search(text) is None


def _spelling_of_any(special: Mapping[str, int]) -> re.Pattern[str] | None:
    """A pattern for the spelling of any special token, longest first."""
    spellings = sorted(special, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, spellings))) if spellings else None


def _openings_of(special: Mapping[str, int]) -> dict[str, str]:
    """What spellings of special tokens begin with, by their first characters: a text without any of these spells none."""
    first: dict[str, list[str]] = {}
    for text in special:
        first.setdefault(text[:1], []).append(text)
    return {character: reduce(common_prefix, texts) for character, texts in first.items()}
