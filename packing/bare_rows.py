"""Conversations of nothing but roles and texts, as nearly all are, told by a few looks at each and none at every message.

What is told apart here needs no more of packing.records; whatever is anything else gets its sentences there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
MAX_MESSAGES = 100_000

Turns = tuple[tuple[str, ...], list[str]]
"""The roles and the contents of a conversation, one each a message."""
Take = Callable[[int, str, tuple[str, ...], list[str]], bool]
"""Who takes conversations that may be bare as they are read: asked with the index, the id, the roles and the contents, of which it has to
see for itself that they are texts and usual; whether it has taken them."""


def nobody(_index: int, _id: str, _roles: tuple[str, ...], _contents: list[str]) -> bool:
    """Takes none."""
    return False


@dataclass(slots=True)
class Bare:
    """A conversation of nothing but roles and texts, without tools; numbers and names are those of a Conversation (packing.records)."""

    index: int
    row: int
    name: str
    id: str
    roles: tuple[str, ...]
    contents: list[str]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation as messages."""
        return messages_of(self.roles, self.contents)


def messages_of(roles: tuple[str, ...], contents: list[str]) -> list[dict[str, Any]]:
    """Roles and contents as messages."""
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]


def turns_of(messages: Any) -> Turns:
    """The roles and contents of messages that have both and nothing else, whatever those are; raises KeyError or TypeError where there is
    anything else."""
    if type(messages) is not list:
        raise TypeError
    roles = tuple([message["role"] for message in messages])
    # A message has both keys, so two for each are all there are.
    if sum(map(len, messages)) != 2 * len(roles):
        raise KeyError
    return roles, [message["content"] for message in messages]


def bare(messages: Any) -> Turns | None:
    """The roles and contents of messages that are nothing else, of known roles, one of them an assistant's; None for whatever is anything
    else, usable or not."""
    try:
        roles, contents = turns_of(messages)
        return (roles, contents) if are_bare(roles, contents) else None
    except (KeyError, TypeError):
        return None


def are_bare(roles: tuple[Any, ...], contents: list[Any]) -> bool:
    """Whether the roles and contents of messages are usual roles and texts; raises TypeError where a role cannot be one at all."""
    return are_usual(roles) and set(map(type, contents)) == _TEXTS


_TEXTS = {str}


@lru_cache(maxsize=256)
def are_usual(roles: tuple[Any, ...]) -> bool:
    """Whether roles are known ones, one of them an assistant's; raises TypeError where one cannot be a role at all."""
    return ROLES.issuperset(roles) and "assistant" in roles and len(roles) <= MAX_MESSAGES


def views_of(table: pa.Table) -> Iterator[memoryview]:
    """The lines of a piece where they lie."""
    for chunk in table.column("line").cast(pa.large_binary()).chunks:
        edges = np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + len(chunk) + 1].tolist()
        data = memoryview(chunk.buffers()[2] or b"")
        for start, end in pairwise(edges):
            yield data[start:end]


def lines_of(table: pa.Table) -> Iterator[bytes | None]:
    """The lines of a piece, None for a blank one."""
    for view in views_of(table):
        line = view.tobytes()
        yield line if line and not line.isspace() else None


def bare_lists(column: pa.ChunkedArray) -> Iterator[Turns | None] | None:
    """What `bare` says of every row of a column; None where the column can hold anything but lists of roles and contents."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return None
    fields = {field.name: field.type for field in kind.value_type}
    if set(fields) != {"role", "content"} or not all(map(_is_text, fields.values())):
        return None
    return _lists(column)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _lists(column: pa.ChunkedArray) -> Iterator[Turns | None]:
    for chunk in column.chunks:
        lengths = chunk.value_lengths().fill_null(0).to_numpy()
        ends = np.cumsum(lengths).tolist()
        messages = chunk.flatten()
        names = [field.name for field in messages.type]
        flat = dict(zip(names, (values.to_pylist() for values in messages.flatten()), strict=True))
        for end, length in zip(ends, lengths.tolist(), strict=True):
            roles, contents = tuple(flat["role"][end - length : end]), flat["content"][end - length : end]
            yield (roles, contents) if are_bare(roles, contents) else None
