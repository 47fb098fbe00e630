"""Text to token ids: any `tokenizer.json`, as flat arrays, with every token's first byte.

The reference is Hugging Face `tokenizers`; a faster engine may stand behind `Tokenizer.encode` if it agrees token for token.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any
from unicodedata import is_normalized

import numpy as np
import tokenizers
from numpy.typing import NDArray

from packing.dataset.errors import TokenizerError
from packing.dataset.manifest import canonical_json
from packing.fast_engine import FastEngine
from packing.runs import taken
from packing.tokenizer_engines import (
    as_loaded,
    byte_lengths,
    changes,
    engine_of,
    guarded,
    guards,
    normalises_to_nfc,
    opening_token,
    with_class_tokens,
)

LARGEST_FILE = 128 * 1024 * 1024
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
BUILTIN = Path(__file__).parent / "builtin_tokenizer"


class Encoded:
    """Tokens of several texts, end to end: `ids` int32 [n], `offsets` int64 [texts + 1] into them, `starts` int64 [n] the byte of its
    text (UTF-8) where each token begins. `disagreed`: how many texts the faster engine was caught at; their batch is the reference's."""

    def __init__(
        self,
        ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
        starts: NDArray[np.int64] | None = None,
        *,
        edges: NDArray[np.signedinteger[Any]] | None = None,
        disagreed: int = 0,
    ) -> None:
        """Give `starts`, or `edges` int32 or int64 [n + 1], which rise: where every token begins, and the last ends, when all texts lie end
        to end."""
        self.ids = ids
        self.offsets = offsets
        self.disagreed = disagreed
        self.edges = edges
        self._starts = starts

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The byte of its text where each token begins, int64 [n]."""
        if self._starts is not None:
            return self._starts
        assert self.edges is not None
        edges = self.edges.astype(np.int64, copy=False)
        return edges[:-1] - np.repeat(edges[self.offsets[:-1]], np.diff(self.offsets))


class Tokenizer:
    """One tokenizer: its ids, its special tokens, its chat template, the token it wants before a text (`opening`). Reading it runs no
    code of its files."""

    def __init__(
        self, *, name: str, tokenizer_json: bytes, config: Mapping[str, Any], chat_template: str | None
    ) -> None:
        self.name = name
        config = with_class_tokens(tokenizer_json, config)
        self._value = as_loaded(tokenizer_json, config, name)
        self._natural = engine_of(self._value, name)
        added = self._natural.get_added_tokens_decoder()
        self.special = {token.content: int(i) for i, token in added.items() if token.special}
        self.vocab_size = max(max(self._natural.get_vocab().values()), max(added, default=0)) + 1
        self.special_tokens_map = {
            key: text for key, value in config.items() if key.endswith("_token") and (text := _token_text(value))
        }
        self.eos_token = self.special_tokens_map.get("eos_token")
        self.bos_token = self.special_tokens_map.get("bos_token")
        self.opening = opening_token(tokenizer_json, config, self.bos_token)
        self.chat_template = chat_template
        self.sha256 = hashlib.sha256(tokenizer_json).hexdigest()
        about = {"tokenizer": self.sha256, "chat_template": chat_template, "special_tokens": self.special_tokens_map}
        if self.opening is not None:
            about["opening"] = self.opening
        if (pipeline := changes(tokenizer_json, self._value)) is not None:
            about["loaded_as"] = pipeline
        self.digest = hashlib.sha256(canonical_json(about)).hexdigest()
        self._byte_lengths = byte_lengths(self._value, self._natural, self.vocab_size)
        self._longest = 0 if self._byte_lengths is None else int(self._byte_lengths.max())
        self._nfc = normalises_to_nfc(self._value)

    @classmethod
    def load(cls, folder: Path, *, name: str | None = None) -> Tokenizer:
        """The tokenizer in a directory with tokenizer.json; raises TokenizerError naming the file that is at fault."""
        tokenizer_json = _read(folder / "tokenizer.json")
        if tokenizer_json is None:
            message = f"{folder} holds no tokenizer.json"
            raise TokenizerError(message, param="/tokenizer")
        config_text = _read(folder / "tokenizer_config.json")
        try:
            config: Any = json.loads(config_text) if config_text is not None else {}
        except (ValueError, RecursionError) as error:
            message = f"{folder / 'tokenizer_config.json'} is no JSON ({error})"
            raise TokenizerError(message, param="/tokenizer") from error
        if not isinstance(config, dict):
            message = f"{folder / 'tokenizer_config.json'} is no JSON object"
            raise TokenizerError(message, param="/tokenizer")
        template = _read(folder / "chat_template.jinja")
        try:
            chat_template = (
                template.decode() if template is not None else _default_template(config.get("chat_template"))
            )
        except UnicodeDecodeError as error:
            message = f"{folder / 'chat_template.jinja'} is not UTF-8 (byte {error.start})"
            raise TokenizerError(message, param="/tokenizer") from error
        try:
            return cls(
                name=name or folder.resolve().name,
                tokenizer_json=tokenizer_json,
                config=config,
                chat_template=chat_template,
            )
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            # files are data of anybody's: a list where a mapping belongs ends here, whichever field it is
            message = (
                f"tokenizer.json or tokenizer_config.json of {name or folder.name!r} has a field of another form than Hugging Face "
                f"tokenizers write ({type(error).__name__}: {error})"
            )
            raise TokenizerError(message, param="/tokenizer") from error

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode texts as they are: a special token's spelling becomes that token. Adds nothing at either end."""
        return self._encode(self._natural, lambda: self._natural_fast, texts)

    def encode_escaped(self, texts: Sequence[str], own: Sequence[Sequence[tuple[int, int]]]) -> Encoded:
        """Encode texts in which only the special tokens at `own` (start, end in characters) are recognised; spelled anywhere else they
        are ordinary text. Expects texts without `guard_characters`."""
        return self.encode_hidden(texts, list(map(self.hidden, texts, own)))

    def hidden(self, text: str, own: Sequence[tuple[int, int]]) -> str:
        """A text with its special tokens at `own` (start, end in characters) spelled as `encode_hidden` expects them."""
        ends = [0, *(edge for span in own for edge in span)]
        between = [text[a:b] for a, b in zip(ends[::2], [*ends[1::2], len(text)], strict=True)]
        tokens = [self._guard_spelling[text[a:b]] for a, b in own]
        return "".join(part for pair in zip(between, [*tokens, ""], strict=True) for part in pair)

    def encode_hidden(self, texts: Sequence[str], hidden: Sequence[str]) -> Encoded:
        """`encode_escaped` of texts whose own special tokens are `hidden` already."""
        engine, renumbered = self._guarded
        return self._encode(engine, lambda: self._guarded_fast, texts, hidden=hidden, renumbered=renumbered)

    def spells_special(self, text: str) -> bool:
        """Whether a text holds the spelling of a special token."""
        # One character is looked for at twenty times the speed of a pattern, and most texts have none that a spelling begins with.
        for first in self._openings:
            if first in text:
                return self._spellings.search(text) is not None
        return False

    @cached_property
    def _openings(self) -> tuple[str, ...]:
        """The first characters of special tokens."""
        return tuple(sorted({text[:1] for text in self.special}))

    @cached_property
    def _spellings(self) -> re.Pattern[str]:
        """Finds the first special token that a text spells."""
        return re.compile("|".join(map(re.escape, sorted(self.special, key=len, reverse=True))) or "(?!)")

    @cached_property
    def guard_characters(self) -> re.Pattern[str]:
        """The private-use characters that stand for special tokens while a text is escaped."""
        used = sorted(text[0] for text in self._guard_spelling.values())
        return re.compile(f"[{used[0]}-{used[-1]}]" if used else "(?!)")

    @cached_property
    def _guard_spelling(self) -> dict[str, str]:
        return guards(self.special)

    @cached_property
    def _natural_fast(self) -> FastEngine:
        return FastEngine(self._value, self._natural)

    @cached_property
    def _guarded_fast(self) -> FastEngine:
        return FastEngine(guarded(self._value, self._guard_spelling), self._guarded[0])

    @cached_property
    def _guarded(self) -> tuple[tokenizers.Tokenizer, NDArray[np.int32]]:
        """The engine for escaped texts, and what its ids are here."""
        spelling = self._guard_spelling
        engine = engine_of(guarded(self._value, spelling), self.name)
        size = max(max(engine.get_vocab().values(), default=0), max(engine.get_added_tokens_decoder(), default=0)) + 1
        renumbered = np.arange(size, dtype=np.int32)
        for text, i in self.special.items():
            renumbered[engine.token_to_id(spelling[text])] = i
        return engine, renumbered

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens spelled out."""
        return self._natural.decode(list(ids), skip_special_tokens=False)

    @cached_property
    def cuts_at_words(self) -> bool:
        """Whether texts are cut into pre-tokens that are tokenised each for itself, with nothing put before or between them: byte-level
        BPE as it comes, or behind NFC."""
        return self._byte_lengths is not None and self._natural.pre_tokenizer is not None

    def apart(self, left: str, right: str) -> bool:
        """Whether `left + right` has the tokens of `left` and behind them those of `right`, for certain: their border is one of
        pre-tokens, which look no further than the character behind them."""
        cutter = self._natural.pre_tokenizer
        if not self.cuts_at_words or cutter is None or not (left and right):
            return False
        if self._nfc and not is_normalized("NFC", left[-1] + right[0]):
            return False
        pieces = [[piece for piece, _ in cutter.pre_tokenize_str(text)] for text in (left, right, left + right)]
        return pieces[0] + pieces[1] == pieces[2]

    def describe(self) -> dict[str, Any]:
        """What a manifest says of the tokenizer: `sha256` is that of tokenizer.json, `digest` covers template and special tokens too."""
        return {"name": self.name, "sha256": self.sha256, "digest": self.digest, "vocab_size": self.vocab_size}

    def _encode(
        self,
        engine: tokenizers.Tokenizer,
        fast: Callable[[], FastEngine],
        texts: Sequence[str],
        *,
        hidden: Sequence[str] | None = None,
        renumbered: NDArray[np.int32] | None = None,
    ) -> Encoded:
        """Encode `hidden` in the place of `texts`, code point for code point the same but for special tokens' spelling."""
        given = list(texts if hidden is None else hidden)
        by_length = self._byte_lengths is not None and not (
            self._nfc and not all(is_normalized("NFC", t) for t in texts)
        )
        disagreed = 0
        if by_length and (found := fast().encode(given)) is not None:
            ids, offsets = found
            disagreed = fast().disagrees(given, ids, offsets)
            encoded = None if disagreed else self._by_length(texts, _renumbered(ids, renumbered), offsets, 0)
            if encoded is not None:
                return encoded
        # Without offsets the reference is faster; where byte lengths cannot give them, it is asked for both at once.
        encode = engine.encode_batch_fast if by_length else engine.encode_batch
        encodings = encode(given, add_special_tokens=False)
        counts = np.fromiter((len(e.ids) for e in encodings), np.int64, count=len(encodings))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), np.int32, count=int(offsets[-1]))
        ids = _renumbered(ids, renumbered)
        encoded = self._by_length(texts, ids, offsets, disagreed) if by_length else None
        if encoded is None:
            encodings = engine.encode_batch(given, add_special_tokens=False) if by_length else encodings
            encoded = Encoded(ids, offsets, _starts_by_offsets(texts, encodings), disagreed=disagreed)
        return encoded

    def _by_length(
        self, texts: Sequence[str], ids: NDArray[np.int32], offsets: NDArray[np.int64], disagreed: int
    ) -> Encoded | None:
        """Byte-level tokens lie end to end, so their lengths add up to their starts; None where they do not."""
        if self._byte_lengths is None:
            return None
        sizes = map(len, texts) if all(map(str.isascii, texts)) else map(utf8_length, texts)
        text_bytes = np.fromiter(sizes, np.int64, count=len(texts))
        lengths = taken(self._byte_lengths, ids)
        # Summed in the type that they have, lengths take a third of the time.
        kind = np.int32 if len(ids) * self._longest < 2**31 else np.int64
        edges = np.zeros(len(ids) + 1, kind)
        np.cumsum(lengths, dtype=kind, out=edges[1:])
        total = np.diff(edges[offsets])
        return Encoded(ids, offsets, edges=edges, disagreed=disagreed) if np.array_equal(total, text_bytes) else None


def _renumbered(ids: NDArray[np.int32], numbers: NDArray[np.int32] | None) -> NDArray[np.int32]:
    return ids if numbers is None else numbers[ids]


def _starts_by_offsets(texts: Sequence[str], encodings: Sequence[tokenizers.Encoding]) -> NDArray[np.int64]:
    """The reference's own offsets, in code points, turned into bytes: exact with normalisers too, and slower.

    A token that a normaliser put before or moved behind its neighbour begins, for us, no earlier than what stands before it.
    """
    rows: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for text, encoding in zip(texts, encodings, strict=True):
        firsts = np.fromiter((start for start, _ in encoding.offsets), np.int64, count=len(encoding.ids))
        firsts = np.maximum.accumulate(firsts)
        rows.append(firsts if text.isascii() else _code_point_bytes(text)[firsts])
    return np.concatenate(rows)


def utf8_length(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def _code_point_bytes(text: str) -> NDArray[np.int64]:
    """The byte where each code point begins, and the length at the end: int64 [len(text) + 1]."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    widths = 1 + (points > 0x7F).astype(np.int64) + (points > 0x7FF) + (points > 0xFFFF)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(widths)])


def _read(path: Path) -> bytes | None:
    try:
        if path.stat().st_size > LARGEST_FILE:
            message = f"{path} has more than {LARGEST_FILE} bytes"
            raise TokenizerError(message, param="/tokenizer")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _token_text(value: Any) -> str | None:
    """A special token in tokenizer_config.json is a string or an object with `content`."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _default_template(value: Any) -> str | None:
    """A template is a string, or a list of named ones of which `default` counts."""
    if isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None
