"""Rows that need no rendering: how a template that only writes contents words those of given roles (packing.template_flow says which do).

About one row in a thousand is rendered all the same, chosen by what is in it, and a disagreement ends the trust (packing.chat).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from packing.chat_shapes import SHAPES, Messages, Part, Shape, joined, mark
from packing.template_sandbox import STEPS

ONE_IN, LOOKED_AT = 1024, 256
"""How many texts one is tried of, and how many of its characters say whether it is."""
MOST_CHARACTERS = 1 << 18
"""Characters of contents up to which a row may go unrendered: far from every bound on a rendering."""
STEP_CHARACTERS = 128
"""Characters of contents for which a rendering is taken to need a share of its steps more: a fraction of what they do cost."""
PLAIN_KEYS = frozenset({"role", "content", "train"})

Counted = Callable[[Messages], tuple[str, int]]
"""A rendering and the steps it took."""


class Wording(NamedTuple):
    """What a template writes around contents of given roles, whether it writes those as they are or trimmed, whether each once and in
    order, and how many characters they may have together in a row that goes unrendered."""

    shape: Shape
    form: Callable[[str], str]
    in_order: bool
    most: int

    @property
    def is_plain(self) -> bool:
        """Whether what fills the gaps are the contents as they are, in order."""
        return self.form is str and self.in_order

    def values(self, contents: Sequence[str]) -> tuple[list[str], list[int]]:
        """What fills the gaps, and the characters of each."""
        values = [self.form(contents[number]) for number in self.shape.order]
        return values, list(map(len, values))


class Wordings:
    """A template that only writes contents: its wording of every sequence of roles, found when it is first asked for."""

    def __init__(self, shape_of: Callable[[tuple[str, ...]], Shape | None], render: Counted) -> None:
        self._shape_of = shape_of
        self._render = render
        self.of = lru_cache(maxsize=SHAPES)(self._of)

    def joined(self, messages: Messages) -> tuple[Shape, tuple[Part, ...]] | None:
        """The shape and parts of a plain row without rendering it; None where it must be rendered to be known."""
        wording = self.of(tuple([message["role"] for message in messages]))
        contents = [message["content"] for message in messages]
        if wording is None or sum(map(len, contents)) > wording.most:
            return None
        return wording.shape, joined(wording.values(contents)[0], wording.shape)

    def _of(self, roles: tuple[str, ...]) -> Wording | None:
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
                # Near the bounds on a rendering it takes a rendering to know on which side a row is.
                most = min(MOST_CHARACTERS, STEPS // max(1, steps) * STEP_CHARACTERS - 1)
                return Wording(shape, form, shape.order == tuple(range(len(roles))), most)
        return None


def is_plain(message: Mapping[str, Any]) -> bool:
    """Whether a message is nothing but a role and a text."""
    return message.keys() <= PLAIN_KEYS and isinstance(message.get("content"), str)


def is_tried(last: str) -> bool:
    """Whether a plain row whose last content this is is one of those that are rendered to try the analysis, where rows come one by one: the
    same whoever builds which shard."""
    return zlib.crc32(last[:LOOKED_AT].encode("utf-8", "surrogatepass"), len(last) & 0xFFFFFFFF) % ONE_IN == 0
