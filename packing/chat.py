"""Chat templates: where every message stands in the rendered text, and so which tokens are whose.

A template is learnt once per shape of conversation: it is rendered with marks for contents, and what stands between them is the
template's own text (packing.chat_shapes). Every row is then rendered for real and compared, so nothing learnt is trusted unseen; a row
that fits no shape is laid out by rendering its prefixes instead, or rejected with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import accumulate
from typing import Any

import jinja2

from packing.chat_shapes import (
    REASONING,
    THINK_TAGS,
    Messages,
    Part,
    Shape,
    Slot,
    assemble,
    learn,
    mark,
    skeleton,
)
from packing.dataset.errors import InputError, TokenizerError
from packing.template_sandbox import TemplateLimitError, environment, rendered
from packing.tokenizers import Tokenizer, utf8_length

SHAPES = 8192
"""How many shapes of conversation a template remembers."""
PLAIN_KEYS = frozenset({"role", "content", "train"})
Tools = Sequence[Mapping[str, Any]]


class TemplateRowError(InputError):
    """A conversation that the template refuses, or whose messages cannot be found in what it renders."""

    code = "bad_row"


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


class ChatTemplate:
    """A tokenizer's chat template under a fixed date. Raises TokenizerError where there is none or it cannot be parsed."""

    def __init__(self, source: str | None, tokenizer: Tokenizer, *, today: date) -> None:
        if not source:
            message = (
                f"the tokenizer {tokenizer.name!r} has no chat template: give one as chat_template in the spec, "
                "or in its tokenizer_config.json or chat_template.jinja"
            )
            raise TokenizerError(message, param="/chat_template")
        self._environment = environment(today)
        try:
            self._template = self._environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            message = f"the chat template cannot be parsed (line {error.lineno}: {error.message})"
            raise TokenizerError(message, param="/chat_template") from error
        except (RecursionError, MemoryError, OverflowError, jinja2.TemplateError) as error:
            message = f"the chat template cannot be compiled ({type(error).__name__}: {error})"
            raise TokenizerError(message, param="/chat_template") from error
        self._variables: Mapping[str, Any] = tokenizer.special_tokens_map
        self._special = _spelling_of_any(tokenizer.special)
        self._header: str | None = None
        self._by_roles = lru_cache(maxsize=SHAPES)(self._shape_of_roles)
        self._by_skeleton = lru_cache(maxsize=SHAPES)(self._shape_of_skeleton)

    def text(self, messages: Messages, *, tools: Tools | None = None, add_generation_prompt: bool = False) -> str:
        """The conversation as the template renders it; raises TemplateRowError with the template's own words."""
        variables = {
            **self._variables,
            "messages": [_as_given(message) for message in messages],
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return rendered(self._template, self._environment, variables)
        except TemplateLimitError as error:
            raise TemplateRowError(f"the chat template is stopped: {error}") from error
        except jinja2.TemplateError as error:
            raise TemplateRowError(f"the chat template refuses it ({error})") from error
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError, MemoryError) as error:
            raise TemplateRowError(f"the chat template fails on it ({type(error).__name__}: {error})") from error

    def render(
        self, messages: Messages, *, tools: Tools | None = None, train_on: str = "all", thinking: str = "train"
    ) -> Rendered:
        """Render a conversation and find its responses. `train_on`: `all` of them or the `last`; a message's own `train: false` wins.
        `thinking: mask` leaves the thinking at a response's beginning out of what is trained.

        Raises TemplateRowError where the template refuses the row, or rewrites it so that no border is certain.
        """
        text = self.text(messages, tools=tools)
        trained = _trained_messages(messages, train_on)
        plain = tools is None and all(m.keys() <= PLAIN_KEYS and isinstance(m.get("content"), str) for m in messages)
        if plain:
            shape = self._by_roles(tuple(message["role"] for message in messages))
            slots = [Slot(i, "content", message["content"]) for i, message in enumerate(messages)]
            parts = assemble(text, slots, shape) if shape is not None else None
            if shape is not None and parts is not None:
                return _lay_out(text, messages, parts, shape, trained, thinking)
        if plain and not any(end in message["content"] for message in messages for _, end in THINK_TAGS):
            return self._by_prefixes(text, messages, tools, trained, thinking)
        for split in (False, True):
            marked, slots = skeleton(messages, split=split)
            shape = self._by_skeleton(json.dumps([marked, slots_key(slots), tools], ensure_ascii=False))
            parts = assemble(text, slots, shape) if shape is not None else None
            if shape is not None and parts is not None:
                if any(self.specials(value) for value in _strings([marked, tools])):
                    raise TemplateRowError(
                        "it spells a special token in a tool, a tool call or another field beside its contents"
                    )
                return _lay_out(text, messages, parts, shape, trained, thinking)
        return self._by_prefixes(text, messages, tools, trained, thinking)

    def specials(self, text: str) -> list[tuple[int, int]]:
        """Where special tokens are spelled in a text: (start, end) in characters."""
        return [match.span() for match in self._special.finditer(text)] if self._special else []

    def _shape_of_roles(self, roles: tuple[str, ...]) -> Shape | None:
        marked = [{"role": role, "content": mark(i)} for i, role in enumerate(roles)]
        return self._learn(marked, [Slot(i, "content", "") for i in range(len(roles))], None)

    def _shape_of_skeleton(self, key: str) -> Shape | None:
        marked, slots, tools = json.loads(key)
        return self._learn(marked, [Slot(message, kind, "") for message, kind in slots], tools)

    def _learn(self, marked: Messages, slots: Sequence[Slot], tools: Tools | None) -> Shape | None:
        def render(messages: Messages) -> str | None:
            try:
                return self.text(messages, tools=tools)
            except TemplateRowError:
                return None

        if self._header is None:
            self._header = self._generation_prompt()
        ends = lambda text: [end for _, end in self.specials(text)]  # noqa: E731 (a def of three lines says no more)
        return learn(marked, slots, render, header=self._header, ends=ends)

    def _generation_prompt(self) -> str:
        """What the template adds where a response is to begin; empty where it adds nothing."""
        talk = [{"role": "user", "content": mark(0)}]
        try:
            before, whole = self.text(talk), self.text(talk, add_generation_prompt=True)
        except TemplateRowError:
            return ""
        return whole.removeprefix(before) if whole.startswith(before) else ""

    def _by_prefixes(
        self, text: str, messages: Messages, tools: Tools | None, trained: Sequence[bool], thinking: str
    ) -> Rendered:
        """Lay out a row that does not follow its shape: each response lies between two prefixes of the conversation."""
        if any(self.specials(value) for value in _strings([*messages, tools])):
            raise TemplateRowError("it spells a special token and does not follow the template's usual shape")
        turns: list[Turn] = []
        for start, end in _responses(messages):
            before = self.text(messages[:start], tools=tools, add_generation_prompt=True)
            through = self.text(messages[:end], tools=tools)
            if not text.startswith(before) or not text.startswith(through) or len(through) < len(before):
                raise TemplateRowError(
                    "the chat template rewrites earlier turns, so its responses cannot be told from its prompts"
                )
            spans: tuple[tuple[int, int], ...] = ()
            if all(trained[start:end]):
                closed = [span[1] for span in self.specials(text[len(before) : len(through)])]
                learnt = len(before) + (closed[-1] if closed else len(through) - len(before))
                first = _after_thinking(messages[start:end], text, len(before), learnt, thinking)
                spans = ((utf8_length(text[:first]), utf8_length(text[:learnt])),) if first < learnt else ()
            elif any(trained[start:end]):
                raise TemplateRowError(
                    "one response is trained in part (train: false) and does not follow the template's usual shape"
                )
            turns.append(Turn(start=utf8_length(before), end=utf8_length(through), trained=spans))
        whole = utf8_length(text)
        return Rendered(text=text, bytes=whole, parts=(Part(text, False, whole),), turns=tuple(turns))  # noqa: FBT003


def slots_key(slots: Sequence[Slot]) -> list[tuple[int, str]]:
    """What a shape depends on of its slots: all but their values."""
    return [(slot.message, slot.kind) for slot in slots]


def _as_given(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as transformers hands it to a template: nulls left out, thinking under every name; and without our own `train`."""
    given = {key: value for key, value in message.items() if key != "train" and value is not None}
    thought = next((given[key] for key in REASONING if key in given), None)
    return given if thought is None else {"thinking": thought, **given, "reasoning_content": thought}


def _strings(value: Any) -> list[str]:
    """Every string in a JSON value, names of fields too."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for item in pair for text in _strings(item)]
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []


def _spelling_of_any(special: Mapping[str, int]) -> re.Pattern[str] | None:
    """A pattern for the spelling of any special token, longest first."""
    spellings = sorted(special, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, spellings))) if spellings else None


def _trained_messages(messages: Messages, train_on: str) -> list[bool]:
    trained = [m["role"] == "assistant" and m.get("train", True) for m in messages]
    if train_on == "last":
        last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=-1)
        trained = [flag and i == last for i, flag in enumerate(trained)]
    return trained


def _responses(messages: Messages) -> list[tuple[int, int]]:
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


def _after_thinking(messages: Messages, text: str, start: int, end: int, thinking: str) -> int:
    """Where the trained text of a response at start..end begins, in characters: with `mask`, behind the thinking that stands at its
    beginning, its closing tag and the newlines after it; at `end` where the thinking is never closed.

    Raises TemplateRowError where a message has thinking that the template writes in other ways than between known tags.
    """
    if thinking != "mask":
        return start
    response = text[start:end]
    for opening, closing in THINK_TAGS:
        begins = response.lstrip().startswith(opening) or text[:start].rstrip().endswith(opening)
        if begins:
            head, found, rest = response.partition(closing)
            return start + len(head) + len(found) + len(rest) - len(rest.lstrip("\n")) if found else end
    for message in messages:
        thoughts = [message[key] for key in REASONING if isinstance(message.get(key), str)]
        if any(thought.strip() and thought.strip() in response for thought in thoughts):
            raise TemplateRowError(
                "thinking: mask does not find the thinking that the chat template writes: it knows "
                + " and ".join(f"{opening}…{closing}" for opening, closing in THINK_TAGS)
            )
    return start


def _lay_out(
    text: str, messages: Messages, parts: tuple[Part, ...], shape: Shape, trained: Sequence[bool], thinking: str
) -> Rendered:
    """Find every response's bytes in an assembled rendering: parts are piece, value, piece, value, …, piece."""
    starts = [0, *accumulate(part.bytes for part in parts)]
    turns: list[Turn] = []
    following = -1
    for message, first, last, opening, closing, learnt in shape.places:
        piece, after = parts[2 * first].text, parts[2 * last + 2].text
        start = starts[2 * first + 1] - utf8_length(piece[len(piece) - opening :])
        end = starts[2 * last + 2] + utf8_length(after[:closing])
        spans: tuple[tuple[int, int], ...] = ()
        if trained[message]:
            begin, stop = start, starts[2 * last + 2] + utf8_length(after[:learnt])
            if thinking == "mask":
                inside = "".join(part.text for part in parts[2 * first + 1 : 2 * last + 2])
                before = "".join(part.text for part in parts[: 2 * first + 1])
                cut = len(before) - opening
                stop_at = len(before) + len(inside) + learnt
                begin += utf8_length(
                    text[cut : _after_thinking(messages[message : message + 1], text, cut, stop_at, thinking)]
                )
            spans = ((begin, stop),) if begin < stop else ()
        if message == following and turns:
            turns[-1] = Turn(start=turns[-1].start, end=end, trained=turns[-1].trained + spans)
        else:
            turns.append(Turn(start=start, end=end, trained=spans))
        following = message + 1
    return Rendered(text=text, bytes=starts[-1], parts=parts, turns=tuple(turns))
