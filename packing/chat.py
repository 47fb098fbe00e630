"""Chat templates: where every message stands in the rendered text, and so which tokens are whose.

A template is learnt once per shape of conversation (its sequence of roles): it is rendered with sentinels for contents, and what
stands between them is the template's own text. Every row is then rendered for real and compared, so nothing learnt is trusted
unseen; a row that differs (tool calls, trimmed thinking) is laid out by rendering its prefixes instead, or rejected with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any, ClassVar

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from packing.dataset.errors import InputError, TokenizerError
from packing.tokenizers import Tokenizer, utf8_length

SHAPES = 8192
"""How many shapes of conversation a template remembers."""


class TemplateRowError(InputError):
    """A conversation that the template refuses, or whose messages cannot be found in what it renders."""

    code = "bad_row"


@dataclass(frozen=True, slots=True)
class Part:
    """A run of rendered text: the template's own, or a message's content. `bytes` is its length in UTF-8."""

    text: str
    content: bool
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One response: bytes `start`..`end` of the text belong to it, of which the `trained` spans are what a model learns to write."""

    start: int
    end: int
    trained: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A conversation as text, cut into parts, with its responses in order; what lies between them is prompt."""

    text: str
    bytes: int
    parts: tuple[Part, ...]
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class _Shape:
    """The template's text before, between and after the contents, and for each message how much of what follows closes its turn:
    `closing` characters in all, of which the first `trained` are learnt (through the end-of-turn token)."""

    pieces: tuple[Part, ...]
    closing: tuple[int, ...]
    trained: tuple[int, ...]


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks assistant text for other tools; here its body is rendered as it stands."""

    tags: ClassVar[set[str]] = {"generation"}  # pyright: ignore[reportIncompatibleVariableOverride]

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment(today: date) -> ImmutableSandboxedEnvironment:
    """The environment that transformers gives chat templates, with the spec's date for a clock (a test compares the two)."""

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: Any = None,
        indent: Any = None,
        separators: Any = None,
        sort_keys: Any = None,
    ) -> str:
        return json.dumps(
            value, ensure_ascii=bool(ensure_ascii), indent=indent, separators=separators, sort_keys=bool(sort_keys)
        )

    def strftime_now(form: str) -> str:
        return today.strftime(form)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    functions: dict[str, Any] = {"raise_exception": refuse, "strftime_now": strftime_now}
    environment.globals.update(functions)
    return environment


class ChatTemplate:
    """A tokenizer's chat template under a fixed date. Raises TokenizerError where there is none or it cannot be parsed."""

    def __init__(self, source: str | None, tokenizer: Tokenizer, *, today: date) -> None:
        if not source:
            message = (
                f"the tokenizer {tokenizer.name!r} has no chat template: give one as chat_template in the spec, "
                "or in its tokenizer_config.json or chat_template.jinja"
            )
            raise TokenizerError(message, param="/chat_template")
        try:
            self._template = _environment(today).from_string(source)
        except jinja2.TemplateSyntaxError as error:
            message = f"the chat template cannot be parsed (line {error.lineno}: {error.message})"
            raise TokenizerError(message, param="/chat_template") from error
        self._variables: Mapping[str, Any] = tokenizer.special_tokens_map
        self._special = _spelling_of_any(tokenizer.special)
        self._shape = lru_cache(maxsize=SHAPES)(self._learn)

    def text(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False) -> str:
        """The conversation as the template renders it; raises TemplateRowError with the template's own words."""
        try:
            return self._template.render(
                **self._variables,
                messages=[{key: value for key, value in m.items() if key != "train"} for m in messages],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
            )
        except jinja2.TemplateError as error:
            raise TemplateRowError(f"the chat template refuses it ({error})") from error
        except (TypeError, ValueError, KeyError, RecursionError, OverflowError) as error:
            raise TemplateRowError(f"the chat template fails on it ({type(error).__name__}: {error})") from error

    def render(self, messages: Sequence[Mapping[str, Any]], *, train_on: str = "all") -> Rendered:
        """Render a conversation and find its responses. `train_on`: `all` of them or the `last`; a message's own `train: false` wins.

        Raises TemplateRowError where the template refuses the row or rewrites earlier turns, so that no border is certain.
        """
        text = self.text(messages)
        shape = self._shape(tuple(m["role"] for m in messages))
        parts = _assemble(text, messages, shape) if shape is not None else None
        trained = _trained_messages(messages, train_on)
        if parts is None or shape is None:
            return self._by_prefixes(text, messages, trained)
        return _lay_out(text, messages, parts, shape, trained)

    def specials(self, text: str) -> list[tuple[int, int]]:
        """Where special tokens are spelled in a text: (start, end) in characters."""
        return [match.span() for match in self._special.finditer(text)] if self._special else []

    def _learn(self, roles: tuple[str, ...]) -> _Shape | None:
        """The template's own text for a sequence of roles; None where sentinels do not come back once each and in order."""
        pieces = self._pieces(roles)
        if pieces is None:
            return None
        closing, trained = [0] * len(roles), [0] * len(roles)
        for i, role in enumerate(roles):
            if role != "assistant":
                continue
            after = pieces[i + 1]
            if i + 1 < len(roles):
                # What closes a turn in the middle is what both go on with: the next message, and the end of the conversation.
                ending = self._pieces(roles[: i + 1])
                if ending is None:
                    return None
                after = _common_prefix(after, ending[-1])
            closing[i], trained[i] = len(after), self._trained_length(after)
        return _Shape(tuple(Part(p, False, utf8_length(p)) for p in pieces), tuple(closing), tuple(trained))  # noqa: FBT003

    def _pieces(self, roles: tuple[str, ...]) -> list[str] | None:
        marks = [f"<~{i}longweave{i}~>" for i in range(len(roles))]
        try:
            text = self.text([{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)])
        except TemplateRowError:
            return None
        pieces: list[str] = []
        for mark in marks:
            before, found, text = text.partition(mark)
            if not found:
                return None
            pieces.append(before)
        pieces.append(text)
        return None if any("longweave" in piece and "~>" in piece for piece in pieces) else pieces

    def _trained_length(self, closing: str) -> int:
        """Characters of a turn's end that are learnt: through its first special token, or all of it where it has none."""
        spans = self.specials(closing)
        return spans[0][1] if spans else len(closing)

    def _by_prefixes(self, text: str, messages: Sequence[Mapping[str, Any]], trained: Sequence[bool]) -> Rendered:
        """Lay out a row that does not follow its shape: each response lies between two prefixes of the conversation."""
        if any(self.specials(value) for m in messages for value in _texts(m)):
            raise TemplateRowError("it spells a special token and does not follow the template's usual shape")
        turns: list[Turn] = []
        for start, end in _responses(messages):
            before = self.text(messages[:start], add_generation_prompt=True)
            through = self.text(messages[:end])
            if not text.startswith(before) or not text.startswith(through) or len(through) < len(before):
                raise TemplateRowError(
                    "the chat template rewrites earlier turns, so its responses cannot be told from its prompts"
                )
            spans: tuple[tuple[int, int], ...] = ()
            if all(trained[start:end]):
                closed = [span[1] for span in self.specials(text[len(before) : len(through)])]
                learnt = text[: len(before) + (closed[-1] if closed else len(through) - len(before))]
                spans = ((utf8_length(before), utf8_length(learnt)),)
            elif any(trained[start:end]):
                raise TemplateRowError(
                    "one response is trained in part (train: false) and does not follow the template's usual shape"
                )
            turns.append(Turn(start=utf8_length(before), end=utf8_length(through), trained=spans))
        whole = utf8_length(text)
        return Rendered(text=text, bytes=whole, parts=(Part(text, False, whole),), turns=tuple(turns))  # noqa: FBT003


def _common_prefix(one: str, other: str) -> str:
    size = min(len(one), len(other))
    return one[: next((i for i in range(size) if one[i] != other[i]), size)]


def _texts(message: Mapping[str, Any]) -> list[str]:
    """Every string of a message that a template might write."""
    return [
        json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value for value in message.values()
    ]


def _spelling_of_any(special: Mapping[str, int]) -> re.Pattern[str] | None:
    """A pattern for the spelling of any special token, longest first."""
    spellings = sorted(special, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, spellings))) if spellings else None


def _trained_messages(messages: Sequence[Mapping[str, Any]], train_on: str) -> list[bool]:
    trained = [m["role"] == "assistant" and m.get("train", True) for m in messages]
    if train_on == "last":
        last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=-1)
        trained = [flag and i == last for i, flag in enumerate(trained)]
    return trained


def _responses(messages: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Runs of assistant messages, as (first, one past the last): consecutive ones are one response."""
    runs: list[tuple[int, int]] = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        if runs and runs[-1][1] == i:
            runs[-1] = (runs[-1][0], i + 1)
        else:
            runs.append((i, i + 1))
    return runs


def _assemble(text: str, messages: Sequence[Mapping[str, Any]], shape: _Shape) -> tuple[Part, ...] | None:
    """The real rendering as template pieces and contents; None where it is anything else. Templates may trim contents."""
    parts: list[Part] = [shape.pieces[0]]
    position = len(shape.pieces[0].text)
    if not text.startswith(shape.pieces[0].text):
        return None
    for message, piece in zip(messages, shape.pieces[1:], strict=True):
        for content in (message["content"], message["content"].strip()):
            end = position + len(content)
            if text.startswith(content, position) and text.startswith(piece.text, end):
                break
        else:
            return None
        parts += [Part(content, True, utf8_length(content)), piece]  # noqa: FBT003
        position = end + len(piece.text)
    return tuple(parts) if position == len(text) else None


def _lay_out(
    text: str, messages: Sequence[Mapping[str, Any]], parts: tuple[Part, ...], shape: _Shape, trained: Sequence[bool]
) -> Rendered:
    """Find every response's bytes in an assembled rendering: parts are piece, content, piece, content, …, piece."""
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + part.bytes)
    turns: list[Turn] = []
    for first, end in _responses(messages):
        spans: list[tuple[int, int]] = []
        for i in range(first, end):
            if trained[i]:
                learnt = parts[2 * i + 2].text[: shape.trained[i]]
                spans.append((starts[2 * i + 1], starts[2 * i + 2] + utf8_length(learnt)))
        closing = parts[2 * end].text[: shape.closing[end - 1]]
        turns.append(
            Turn(start=starts[2 * first + 1], end=starts[2 * end] + utf8_length(closing), trained=tuple(spans))
        )
    return Rendered(text=text, bytes=starts[-1], parts=parts, turns=tuple(turns))
