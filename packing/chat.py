"""Chat templates: where every message stands in the rendered text, and so which tokens are whose.

A template is learnt once per shape of conversation: it is rendered with marks for contents, and what stands between them is the
template's own text (packing.chat_shapes). Every row is then rendered for real and compared, so nothing learnt is trusted unseen; a row
that fits no shape is laid out by rendering its prefixes instead, or rejected with the reason. Only where a template's syntax tree shows
that it does nothing with contents but write them (packing.template_flow) may most rows be put together unrendered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from datetime import date
from functools import lru_cache
from typing import Any

import jinja2

from packing.bare_rows import are_usual
from packing.chat_layout import (
    Joined,
    Layout,
    Layouts,
    Outline,
    Rendered,
    TemplateRowError,
    Turn,
    after_thinking,
    filled,
    lay_out,
    outline_of,
    responses,
    trained_messages,
)
from packing.chat_shapes import (
    SHAPES,
    THINK_TAGS,
    Messages,
    Part,
    Shape,
    Slot,
    as_given,
    assemble,
    learn,
    mark,
    skeleton,
    slots_key,
    strings,
)
from packing.dataset.errors import TokenizerError
from packing.special_spellings import SpecialSpellings
from packing.template_flow import only_writes_contents
from packing.template_sandbox import STEPS, TemplateLimitError, environment, rendered
from packing.template_wording import Wording, Wordings, is_plain
from packing.tokenizers import Tokenizer, utf8_length

Tools = Sequence[Mapping[str, Any]]
Join = Callable[[tuple[str, ...], list[str]], bool]
"""Joins roles and contents, and says whether it has: it has not where the row must be rendered to be known. Raises TypeError where a
content is no text, with nothing done."""


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
        self._spellings = SpecialSpellings(tokenizer)
        self._header: str | None = None
        self._by_roles = lru_cache(maxsize=SHAPES)(self._shape_of_roles)
        only_writes = only_writes_contents(self._environment, source)
        self._wordings = Wordings(self._by_roles, self._counted) if only_writes else None
        self._joining = lru_cache(maxsize=SHAPES)(self._joining_of_roles)
        self._fitting = lru_cache(maxsize=SHAPES)(self._fitting_of_roles)
        self._by_skeleton = lru_cache(maxsize=SHAPES)(self._shape_of_skeleton)

    @classmethod
    def of(cls, source: str | None, tokenizer: Tokenizer, *, today: date) -> ChatTemplate:
        """A template that shares what is learnt of its shapes with others of this process, but not their `disagreements`: what a shard
        believes of a template must not depend on which were built before."""
        return copy(_learnt(source, tokenizer, today))

    def text(self, messages: Messages, *, tools: Tools | None = None, add_generation_prompt: bool = False) -> str:
        """The conversation as the template renders it; raises TemplateRowError with the template's own words."""
        variables = {
            **self._variables,
            "messages": [as_given(message) for message in messages],
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
        self,
        messages: Messages,
        *,
        tools: Tools | None = None,
        train_on: str = "all",
        thinking: str = "train",
        unseen: bool = False,
    ) -> Rendered:
        """Render a conversation and find its responses. `train_on`: `all` of them or the `last`; a message's own `train: false` wins.
        `thinking: mask` leaves the thinking at a response's beginning out of what is trained. With `unseen`, a row that the template can
        only write in one way is put together without rendering it: hold such rows to `disagreements`.

        Raises TemplateRowError where the template refuses the row, or rewrites it so that no border is certain.
        """
        trained = trained_messages(messages, train_on)
        plain = tools is None and all(map(is_plain, messages))
        if unseen and plain and self._wordings is not None:
            found = self._wordings.joined(messages)
            if found is not None:
                shape, parts = found
                return lay_out("".join([part.text for part in parts]), messages, parts, shape, trained, thinking)
        return self._found(self.text(messages, tools=tools), messages, tools, trained, thinking)

    def _found(
        self, text: str, messages: Messages, tools: Tools | None, trained: Sequence[bool], thinking: str
    ) -> Rendered:
        """What `render` makes of a rendering."""
        plain = tools is None and all(map(is_plain, messages))
        if plain:
            shape = self._by_roles(tuple(message["role"] for message in messages))
            slots = [Slot(i, "content", message["content"]) for i, message in enumerate(messages)]
            parts = assemble(text, slots, shape) if shape is not None else None
            if shape is not None and parts is not None:
                return lay_out(text, messages, parts, shape, trained, thinking)
        if plain and not any(end in message["content"] for message in messages for _, end in THINK_TAGS):
            return self._by_prefixes(text, messages, tools, trained, thinking)
        for split in (False, True):
            marked, slots = skeleton(messages, split=split)
            shape = self._by_skeleton(json.dumps([marked, slots_key(slots), tools], ensure_ascii=False))
            parts = assemble(text, slots, shape) if shape is not None else None
            if shape is not None and parts is not None:
                if any(self.specials(value) for value in strings([marked, tools])):
                    raise TemplateRowError(
                        "it spells a special token in a tool, a tool call or another field beside its contents"
                    )
                return lay_out(text, messages, parts, shape, trained, thinking)
        return self._by_prefixes(text, messages, tools, trained, thinking)

    def joined(
        self, roles: tuple[str, ...], contents: list[str], *, train_on: str, spelled: bool, escaped: bool = False
    ) -> Joined | None:
        """What `render` makes of a row of nothing but roles and contents, `unseen` and `thinking` trained, with its responses still to be
        found: for many rows at once that is quicker. None where the row must be rendered to be known, or may spell a special token, unless
        those may be `spelled`, or can be `escaped`. Hold such rows to `disagreements`."""
        layouts = Layouts()
        if not self.joiner(layouts, train_on=train_on, spelled=spelled, escaped=escaped)(roles, contents):
            return None
        return Joined(layouts.texts[0], layouts.sizes, layouts.outlines[0], layouts.hidden.get(0))

    def joiner(self, layouts: Layouts, *, train_on: str, spelled: bool, escaped: bool = False) -> Join:
        """`joined` for many rows, which are added to `layouts`, as long as no disagreement is found."""
        firsts = () if spelled else self._spellings.firsts
        text_of, outline_of, sizes_of = layouts.texts.append, layouts.outlines.append, layouts.sizes.extend
        known: dict[tuple[str, ...], tuple[list[str], int, Wording | None, Outline | None]] = {}

        def join(roles: tuple[str, ...], contents: list[str]) -> bool:
            # Every call, copy and attribute here would be one a row: they were a third of what reading a row takes.
            found = known.get(roles)
            if found is None:
                found = known[roles] = self._parts_of(roles, train_on)
            parts, most, wording, outline = found
            sizes = list(map(len, contents))
            if outline is None or sum(sizes) > most:
                return False
            values = contents
            if wording is not None:
                values, sizes = wording.values(contents)
            parts[1::2] = values
            text = "".join(parts)
            if not text.isascii():
                sizes = list(map(utf8_length, values))
            for first in firsts:
                for value in values:
                    if first in value:
                        whole = self._spelled(text, outline, values, sizes, escaped=escaped)
                        if whole is not None:
                            layouts.add(whole)
                        return whole is not None
            text_of(text)
            outline_of(outline)
            sizes_of(sizes)
            return True

        return join

    def _parts_of(self, roles: tuple[str, ...], train_on: str) -> tuple[list[str], int, Wording | None, Outline | None]:
        """Of rows that are joined: the parts of their text, how many characters the contents may have, the wording where values are not
        just the contents in order, and the outline, which is None where rows of these roles are not joined."""
        outline, wording = self._joining(roles, train_on) if are_usual(roles) else (None, None)
        if outline is None or wording is None or self._wordings is None:
            return [], 0, None, None
        return outline.parts.copy(), wording.most, None if wording.is_plain else wording, outline

    def fitted(
        self, roles: tuple[str, ...], contents: Sequence[str], *, train_on: str, spelled: bool, escaped: bool = False
    ) -> Layout:
        """What `render` makes of a row of nothing but roles and contents whose `thinking` is trained, as `joined` says it where its
        rendering is the text of its shape, which most are: that is quicker than to find every part of it."""
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        text = self.text(messages)
        outline, shape = self._fitting(roles, train_on)
        if outline is not None and shape is not None:
            for form in (str, str.strip):
                values = [form(contents[number]) for number in shape.order]
                if filled(outline.parts, values) == text:
                    sizes = list(map(utf8_length, values))
                    found = None if spelled else self._spelled(text, outline, values, sizes, escaped=escaped)
                    if spelled or found is not None:
                        return found or Joined(text, sizes, outline)
                    break
        return self._found(text, messages, None, trained_messages(messages, train_on), "train")

    def _spelled(
        self, text: str, outline: Outline, values: Sequence[str], sizes: list[int], *, escaped: bool
    ) -> Joined | None:
        """A row as it is to be tokenised, of which a value may spell special tokens; None where it must not be joined."""
        if self._spellings.absent(values):
            return Joined(text, sizes, outline)
        hidden = filled(outline.hidden, values) if escaped and self._spellings.escapable(text) else None
        return None if hidden is None else Joined(text, sizes, outline, hidden)

    @property
    def joins(self) -> bool:
        """Whether rows are put together unrendered, and so to be held to `disagreements`."""
        return self._wordings is not None

    def disagreements(self, tried: Iterable[tuple[Messages, str]]) -> int:
        """How many of the rows that are tried are worded differently when they are rendered. Where there is one, no row will be put
        together unrendered any more; its batch should be rendered again."""
        wrong = sum(self._text_or_none(messages) != text for messages, text in tried)
        if wrong:
            self._wordings = None
        return wrong

    def specials(self, text: str) -> list[tuple[int, int]]:
        """Where special tokens are spelled in a text: (start, end) in characters."""
        return self._spellings.spans(text)

    def _shape_of_roles(self, roles: tuple[str, ...]) -> Shape | None:
        marked = [{"role": role, "content": mark(i)} for i, role in enumerate(roles)]
        return self._learn(marked, [Slot(i, "content", "") for i in range(len(roles))], None)

    def _joining_of_roles(self, roles: tuple[str, ...], train_on: str) -> tuple[Outline, Wording] | tuple[None, None]:
        """How rows of these roles are put together unrendered; None where they are not."""
        wording = None if self._wordings is None else self._wordings.of(roles)
        return (None, None) if wording is None else (self._outline(wording.shape, roles, train_on), wording)

    def _fitting_of_roles(self, roles: tuple[str, ...], train_on: str) -> tuple[Outline, Shape] | tuple[None, None]:
        """What renderings of rows of these roles are compared with; None where they have no shape."""
        shape = self._by_roles(roles)
        return (None, None) if shape is None else (self._outline(shape, roles, train_on), shape)

    def _outline(self, shape: Shape, roles: tuple[str, ...], train_on: str) -> Outline:
        return outline_of(shape, trained_messages([{"role": role} for role in roles], train_on), self._spellings)

    def _shape_of_skeleton(self, key: str) -> Shape | None:
        marked, slots, tools = json.loads(key)
        return self._learn(marked, [Slot(message, kind, "") for message, kind in slots], tools)

    def _learn(self, marked: Messages, slots: Sequence[Slot], tools: Tools | None) -> Shape | None:
        if self._header is None:
            self._header = self._generation_prompt()
        ends = lambda text: [end for _, end in self.specials(text)]  # noqa: E731 (a def of three lines says no more)
        return learn(marked, slots, lambda m: self._text_or_none(m, tools), header=self._header, ends=ends)

    def _text_or_none(self, messages: Messages, tools: Tools | None = None) -> str | None:
        try:
            return self.text(messages, tools=tools)
        except TemplateRowError:
            return None

    def _counted(self, messages: Messages) -> tuple[str, int]:
        text = self.text(messages)
        return text, STEPS - self._environment.budget.left

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
        if any(self.specials(value) for value in strings([*messages, tools])):
            raise TemplateRowError("it spells a special token and does not follow the template's usual shape")
        turns: list[Turn] = []
        for start, end in responses(messages):
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
                first = after_thinking(messages[start:end], text, len(before), learnt, thinking)
                spans = ((utf8_length(text[:first]), utf8_length(text[:learnt])),) if first < learnt else ()
            elif any(trained[start:end]):
                raise TemplateRowError(
                    "one response is trained in part (train: false) and does not follow the template's usual shape"
                )
            turns.append(Turn(start=utf8_length(before), end=utf8_length(through), trained=spans))
        whole = utf8_length(text)
        return Rendered(text=text, bytes=whole, parts=(Part(text, False, whole),), turns=tuple(turns))  # noqa: FBT003


@lru_cache(maxsize=4)
def _learnt(source: str | None, tokenizer: Tokenizer, today: date) -> ChatTemplate:
    return ChatTemplate(source, tokenizer, today=today)
