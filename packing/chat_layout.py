"""Where every response stands in a rendered conversation, and which of it a model learns to write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from packing.chat_shapes import REASONING, THINK_TAGS, Messages, Part, Shape
from packing.dataset.errors import InputError
from packing.special_spellings import SpecialSpellings
from packing.tokenizers import utf8_length


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outline:
    """Where the responses of conversations of one shape stand, whatever their contents: `parts` are piece, value, piece, value, …, piece
    of a text, of which the pieces are the template's own and the values empty here, and `hidden` the same with special tokens spelled as
    they are in a text that is escaped; `opened` says how often the pieces hold each character that begins special tokens, `bytes` how
    long they are together; `turns` int64 [turns, 2, 2] and `spans` int64 [spans, 2, 2] are the ends of responses and of what is trained,
    each as how many values and how many bytes of pieces stand before it."""

    parts: list[str]
    hidden: list[str]
    opened: list[int]
    bytes: int
    turns: NDArray[np.int64]
    spans: NDArray[np.int64]


class Joined(NamedTuple):
    """A conversation put together without rendering it: its text, the bytes of every value in the gaps of its outline; and, where its
    contents spell special tokens that are to stay text, the text with the template's own spelled otherwise."""

    text: str
    sizes: list[int]
    outline: Outline
    hidden: str | None = None


Layout = Rendered | Joined


class Layouts:
    """Conversations laid out, as columns: `texts` of all; `rendered` by their places among them; of the others, which are joined,
    `outlines` and, end to end, `sizes`, the bytes of every value; `hidden` by place what joined ones are where they are escaped."""

    def __init__(self, layouts: Iterable[Layout] = ()) -> None:
        self.texts: list[str] = []
        self.rendered: dict[int, Rendered] = {}
        self.outlines: list[Outline] = []
        self.sizes: list[int] = []
        self.hidden: dict[int, str] = {}
        for layout in layouts:
            self.add(layout)

    def __len__(self) -> int:
        return len(self.texts)

    def add(self, layout: Layout) -> None:
        """Add a conversation behind the others. Of a joined one nothing is kept that the garbage collector would look through."""
        if isinstance(layout, Joined):
            self.add_joined(*layout)
        else:
            self.rendered[len(self.texts)] = layout
            self.texts.append(layout.text)

    def add_joined(self, text: str, sizes: list[int], outline: Outline, hidden: str | None) -> None:
        """Add what a joined one is made of."""
        if hidden is not None:
            self.hidden[len(self.texts)] = hidden
        self.outlines.append(outline)
        self.sizes.extend(sizes)
        self.texts.append(text)


def trained_messages(messages: Messages, train_on: str) -> list[bool]:
    """Which messages are trained: `all` of the assistant's or the `last`, but none that says `train: false`."""
    trained = [m["role"] == "assistant" and m.get("train", True) for m in messages]
    if train_on == "last":
        last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=-1)
        trained = [flag and i == last for i, flag in enumerate(trained)]
    return trained


def responses(messages: Messages) -> list[tuple[int, int]]:
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


def after_thinking(messages: Messages, text: str, start: int, end: int, thinking: str) -> int:
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


def lay_out(
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
                    text[cut : after_thinking(messages[message : message + 1], text, cut, stop_at, thinking)]
                )
            spans = ((begin, stop),) if begin < stop else ()
        if message == following and turns:
            turns[-1] = Turn(start=turns[-1].start, end=end, trained=turns[-1].trained + spans)
        else:
            turns.append(Turn(start=start, end=end, trained=spans))
        following = message + 1
    return Rendered(text=text, bytes=starts[-1], parts=parts, turns=tuple(turns))


def outline_of(shape: Shape, trained: Sequence[bool], spellings: SpecialSpellings) -> Outline:
    """What `lay_out` finds of every row of a shape whose thinking is trained, for rows of any contents."""
    turns: list[tuple[tuple[int, int], tuple[int, int]]] = []
    spans: list[tuple[tuple[int, int], tuple[int, int]]] = []
    following = -1
    for message, first, last, opening, closing, learnt in shape.places:
        piece, after = shape.pieces[first].text, shape.pieces[last + 1].text
        start = 2 * first + 1, -utf8_length(piece[len(piece) - opening :])
        end = 2 * last + 2, utf8_length(after[:closing])
        if trained[message]:
            spans.append((start, (end[0], utf8_length(after[:learnt]))))
        if message == following and turns:
            turns[-1] = turns[-1][0], end
        else:
            turns.append((start, end))
        following = message + 1
    parts, hidden = ([""] * (2 * len(shape.pieces) - 1) for _ in range(2))
    parts[::2] = [piece.text for piece in shape.pieces]
    hidden[::2] = map(spellings.hidden, parts[::2])
    own = [0, *accumulate(map(utf8_length, parts))]

    def placed(edges: list[tuple[tuple[int, int], tuple[int, int]]]) -> NDArray[np.int64]:
        ends = [[(part // 2, own[part] + shift) for part, shift in pair] for pair in edges]
        return np.array(ends, np.int64).reshape(-1, 2, 2)

    return Outline(
        parts=parts,
        hidden=hidden,
        opened=spellings.counts("".join(parts)),
        bytes=own[-1],
        turns=placed(turns),
        spans=placed(spans),
    )


def filled(parts: list[str], values: Sequence[str]) -> str:
    """The text whose gaps hold these values."""
    parts = parts.copy()
    parts[1::2] = values
    return "".join(parts)
