"""Rows that need no rendering: how a template that only writes contents words those of given roles (packing.template_flow says which do).

About one row in a thousand is rendered all the same, chosen by what is in it, and a disagreement ends the trust (packing.chat).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from packing.chat_shapes import SHAPES, Messages, Part, Shape, joined, mark
from packing.fast_engine import LOOKED_AT
from packing.template_sandbox import STEPS

ONE_IN = 1024
MOST_CHARACTERS = 1 << 18
"""Characters of contents up to which a row may go unrendered: far from every bound on a rendering."""
STEP_CHARACTERS = 128
"""Characters of contents for which a rendering is taken to need a share of its steps more: a fraction of what they do cost."""
PLAIN_KEYS = frozenset({"role", "content", "train"})

Counted = Callable[[Messages], tuple[str, int]]
"""A rendering and the steps it took."""


class _Wording(NamedTuple):
    """What a template writes around contents, whether it writes those as they are or trimmed, and in how many steps."""

    shape: Shape
    form: Callable[[str], str]
    steps: int


class Wordings:
    """A template that only writes contents: its wording of every sequence of roles, found when it is first asked for."""

    def __init__(self, shape_of: Callable[[tuple[str, ...]], Shape | None], render: Counted) -> None:
        self._shape_of = shape_of
        self._render = render
        self._wording = lru_cache(maxsize=SHAPES)(self._wording_of)

    def joined(self, messages: Messages) -> tuple[Shape, tuple[Part, ...]] | None:
        """The shape and parts of a plain row without rendering it; None where it must be rendered to be known."""
        found = self.values(tuple([message["role"] for message in messages]), [m["content"] for m in messages])
        if found is None:
            return None
        shape, values = found
        return shape, joined(values, shape)

    def values(self, roles: tuple[str, ...], contents: Sequence[str]) -> tuple[Shape, list[str]] | None:
        """The shape of a plain row and what fills its gaps, without rendering it; None where it must be rendered to be known."""
        wording = self._wording(roles)
        if wording is None:
            return None
        size = sum(map(len, contents))
        # Near the bounds on a rendering it takes a rendering to know on which side a row is.
        if size > MOST_CHARACTERS or wording.steps * (1 + size // STEP_CHARACTERS) > STEPS:
            return None
        shape, form, _ = wording
        return shape, [form(contents[number]) for number in shape.order]

    def _wording_of(self, roles: tuple[str, ...]) -> _Wording | None:
        """Found by rendering contents with space around them. None where there is no shape, or where some contents are trimmed and some
        are not, for then borders may be uncertain."""
        shape = self._shape_of(roles)
        if shape is None:
            return None
        spaced = [f" \n{mark(i)}\n " for i in range(len(roles))]
        text, steps = self._render(
            [{"role": role, "content": value} for role, value in zip(roles, spaced, strict=True)]
        )
        for form in (str, str.strip):
            parts = joined([form(spaced[number]) for number in shape.order], shape)
            if "".join(part.text for part in parts) == text:
                return _Wording(shape, form, max(1, steps))
        return None


def is_plain(message: Mapping[str, Any]) -> bool:
    """Whether a message is nothing but a role and a text."""
    return message.keys() <= PLAIN_KEYS and isinstance(message.get("content"), str)


def is_tried(messages: Messages) -> bool:
    """Whether a plain row is one of those that are rendered to try the analysis: the same whoever builds which shard."""
    last = messages[-1]["content"]
    return zlib.crc32(last[:LOOKED_AT].encode("utf-8", "surrogatepass"), len(last) & 0xFFFFFFFF) % ONE_IN == 0
