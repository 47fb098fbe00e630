"""The shape of a conversation under its template: what the template writes itself, and where each value of a message goes.

A skeleton is the conversation with marks for its values; rendered, it shows the template's own text between them. A shape fits a row
only where that text and the row's values, at most trimmed or JSON-escaped, make up the real rendering to the last character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from packing.tokenizers import utf8_length

Messages = Sequence[Mapping[str, Any]]
Render = Callable[[Messages], str | None]
"""A conversation as text, or None where the template refuses it."""

SHAPES = 8192
"""How many shapes of conversation a template remembers."""
MARK = re.compile(r"<~(\d+)longweave~>")
THINK_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""What stands around thinking, in contents and in what templates write."""
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Fields of a message that hold thinking; the first that is there counts (as transformers has it)."""


def mark(number: int) -> str:
    """The mark of a slot."""
    return f"<~{number}longweave~>"


@dataclass(frozen=True, slots=True)
class Part:
    """A run of rendered text: the template's own, or a message's content. `bytes` is its length in UTF-8."""

    text: str
    content: bool
    bytes: int


class Slot(NamedTuple):
    """A value of a message: its content, its thinking, what follows the thinking, or the name of its first tool call."""

    message: int
    kind: str
    value: str


class Place(NamedTuple):
    """Where a response stands in a shape: its message; the gaps of its first and last slot; and in characters what the template writes
    of it before the first (`opening`), what closes it after the last (`closing`), of which `trained` is learnt."""

    message: int
    first: int
    last: int
    opening: int
    closing: int
    trained: int


@dataclass(frozen=True, slots=True)
class Shape:
    """n + 1 pieces of the template's own text around n gaps; `order` says which slot fills each gap, `places` where responses are."""

    pieces: tuple[Part, ...]
    order: tuple[int, ...]
    places: tuple[Place, ...]


def skeleton(messages: Messages, *, split: bool) -> tuple[list[dict[str, Any]], list[Slot]]:
    """The conversation with marks for values, and the slots they stand for, numbered alike. With `split`, a content with one block of
    thinking is marked inside and behind it. An empty content beside tool calls, and one that is not there, stays as it is."""
    slots: list[Slot] = []

    def put(message: int, kind: str, value: str) -> str:
        slots.append(Slot(message, kind, value))
        return mark(len(slots) - 1)

    marked: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        copy, before = dict(message), len(slots)
        assistant, calls, content = copy["role"] == "assistant", copy.get("tool_calls"), copy.get("content")
        reasoning = next((copy[key] for key in REASONING if isinstance(copy.get(key), str)), "") if assistant else ""
        if reasoning:
            token = put(i, "thinking", reasoning)
            copy |= {key: token for key in REASONING if copy.get(key) == reasoning}
        if isinstance(content, str) and (content or not calls):
            block = thinking_block(content) if split and assistant else None
            if block is None:
                copy["content"] = put(i, "content", content)
            else:
                before, opening, thought, closing, answer = block
                before = put(i, "thinking", before) if before.strip() else before
                copy["content"] = before + opening + put(i, "thinking", thought) + closing + put(i, "answer", answer)
        if assistant and calls and len(slots) == before:
            copy["tool_calls"] = _named(calls, lambda name, i=i: put(i, "call", name))
        marked.append(copy)
    return marked, slots


def thinking_block(content: str) -> tuple[str, str, str, str, str] | None:
    """A content as what stands before its thinking, the opening tag, the thinking, the closing tag, and the rest; None where it has none,
    or more than one block of it. The opening tag may be missing: some templates write it into the header."""
    for opening, closing in THINK_TAGS:
        head, found, rest = content.partition(closing)
        before, opened, thought = head.rpartition(opening)
        if found and opening not in before + rest and closing not in rest:
            return before, opened, thought, closing, rest
    return None


def _named(calls: Any, put: Callable[[str], str]) -> Any:
    """Tool calls with a mark for the name of the first."""
    if not isinstance(calls, list) or not calls or not isinstance(calls[0], dict):
        return calls
    call = dict(calls[0])
    function = call.get("function")
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        call["function"] = {**function, "name": put(function["name"])}
    elif isinstance(call.get("name"), str):
        call["name"] = put(call["name"])
    return [call, *calls[1:]]


def pieces_of(text: str | None) -> tuple[list[str], list[int]] | None:
    """A rendered skeleton as the text around its marks, and the marks' numbers in order; None where a mark was taken apart."""
    if text is None:
        return None
    found = MARK.split(text)
    pieces = found[::2]
    return None if any("longweave~>" in piece for piece in pieces) else (pieces, [int(n) for n in found[1::2]])


def learn(
    messages: Messages, slots: Sequence[Slot], render: Render, *, header: str, ends: Callable[[str], list[int]]
) -> Shape | None:
    """The shape of a skeleton; None where a response's values do not come back once each and in order.

    `header` is what the template adds for a generation prompt, `ends` says where special tokens end in a text.
    """
    found = pieces_of(render(messages))
    if found is None:
        return None
    pieces, order = found
    if any(number >= len(slots) for number in order):
        return None
    places: list[Place] = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        gaps = [gap for gap, number in enumerate(order) if slots[number].message == i]
        if not gaps or gaps != list(range(gaps[0], gaps[-1] + 1)) or len({order[gap] for gap in gaps}) < len(gaps):
            return None
        if any(slot.message == i and slot.kind != "thinking" and n not in order for n, slot in enumerate(slots)):
            return None
        if places and gaps[0] <= places[-1].last:
            return None
        opening = _opening(messages, i, pieces, gaps[0], slots[order[gaps[0]]], render, header)
        closing = _closing(messages, i, pieces[gaps[-1] + 1], slots, render)
        if opening is None or closing is None:
            return None
        specials = ends(closing)
        trained = specials[-1 if message.get("tool_calls") else 0] if specials else len(closing)
        places.append(Place(i, gaps[0], gaps[-1], opening, len(closing), trained))
    parts = tuple(Part(piece, False, utf8_length(piece)) for piece in pieces)  # noqa: FBT003
    return Shape(parts, tuple(order), tuple(places))


def _opening(
    messages: Messages, i: int, pieces: Sequence[str], gap: int, first: Slot, render: Render, header: str
) -> int | None:
    """Characters before a response's first slot that are the response's: what follows the header. None where the header is not clear."""
    piece = pieces[gap]
    if header and header in piece:
        return len(piece) - piece.rindex(header) - len(header)
    if first.kind == "content":
        return 0
    # No header to go by: what a plain answer in this place has in common with this one is the header.
    token = mark(len(MARK.findall(json.dumps(messages, ensure_ascii=False))))
    plain = {"role": "assistant", "content": token}
    for others in (messages[i + 1 :], ()):
        text = render([*messages[:i], plain, *others])
        if text is None or text.count(token) != 1:
            continue
        before = MARK.split(text[: text.index(token)])
        shared = common_prefix(before[-1], piece)
        return len(piece) - len(shared) if before[:-1:2] == list(pieces[:gap]) else None
    return None


def _closing(messages: Messages, i: int, after: str, slots: Sequence[Slot], render: Render) -> str | None:
    """What closes a response: in the middle, what both its next message and the end of the conversation go on with."""
    if i + 1 == len(messages):
        return after
    ending = pieces_of(render(messages[: i + 1]))
    if ending is None or not ending[1] or ending[1][-1] >= len(slots) or slots[ending[1][-1]].message != i:
        return None
    return common_prefix(after, ending[0][-1])


def common_prefix(one: str, other: str) -> str:
    """What two texts begin with."""
    size = min(len(one), len(other))
    return one[: next((i for i in range(size) if one[i] != other[i]), size)]


def _renderings(value: str) -> list[str]:
    """What a template may make of a value: it as it is, trimmed in some way, or as it stands inside a JSON string."""
    newlines = value.strip("\n"), value.lstrip("\n"), value.rstrip("\n")
    escaped = json.dumps(value, ensure_ascii=False)[1:-1]
    return list(dict.fromkeys((value, value.strip(), value.lstrip(), value.rstrip(), *newlines, escaped)))


def assemble(text: str, slots: Sequence[Slot], shape: Shape) -> tuple[Part, ...] | None:
    """The real rendering as piece, value, piece, value, …, piece; None where it is anything else, or could be read in two ways.

    All values as they are, or all trimmed, is what templates do; otherwise any mixture that fits, if only one does.
    """
    for form in (str, str.strip):
        values = [form(slots[number].value) for number in shape.order]
        parts = joined(values, shape)
        if sum(len(part.text) for part in parts) == len(text) and "".join(part.text for part in parts) == text:
            return parts
    values = _only_reading(text, slots, shape)
    return None if values is None else joined(values, shape)


def joined(values: Sequence[str], shape: Shape) -> tuple[Part, ...]:
    """The parts of a rendering whose gaps hold these values: piece, value, piece, value, …, piece."""
    parts = [shape.pieces[0]]
    for value, piece in zip(values, shape.pieces[1:], strict=True):
        parts += [Part(value, True, utf8_length(value)), piece]  # noqa: FBT003
    return tuple(parts)


def _only_reading(text: str, slots: Sequence[Slot], shape: Shape) -> list[str] | None:
    """The one choice of renderings that makes up the text. Every gap maps the positions it may begin at to those it may end at, so the
    work grows with gaps × positions and not with their combinations."""
    if not text.startswith(shape.pieces[0].text):
        return None
    reached: dict[int, int] = {len(shape.pieces[0].text): 1}
    back: list[dict[int, tuple[int, str]]] = []
    for number, piece in zip(shape.order, shape.pieces[1:], strict=True):
        following: dict[int, int] = {}
        steps: dict[int, tuple[int, str]] = {}
        for position, ways in reached.items():
            for value in _renderings(slots[number].value):
                end = position + len(value)
                if text.startswith(value, position) and text.startswith(piece.text, end):
                    end += len(piece.text)
                    following[end] = min(2, following.get(end, 0) + ways)
                    steps[end] = (position, value)
        reached, back = following, [*back, steps]
    if reached.get(len(text)) != 1:
        return None
    values: list[str] = []
    position = len(text)
    for steps in reversed(back):
        position, value = steps[position]
        values.append(value)
    return values[::-1]


def slots_key(slots: Sequence[Slot]) -> list[tuple[int, str]]:
    """What a shape depends on of its slots: all but their values."""
    return [(slot.message, slot.kind) for slot in slots]


def as_given(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as transformers hands it to a template: nulls left out, thinking under every name; and without our own `train`."""
    given = {key: value for key, value in message.items() if key != "train" and value is not None}
    thought = next((given[key] for key in REASONING if key in given), None)
    return given if thought is None else {"thinking": thought, **given, "reasoning_content": thought}


def strings(value: Any) -> list[str]:
    """Every string in a JSON value, names of fields too."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for item in pair for text in strings(item)]
    return [text for item in value for text in strings(item)] if isinstance(value, list) else []
