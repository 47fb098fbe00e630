"""Rows of a source as conversations or documents, each read, named and, where it cannot be used, rejected with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from packing.bare_rows import Bare, Take, Turns, are_bare, bare, bare_lists, lines_of, nobody, turns_of, views_of
from packing.message_shapes import Reason, conversation_of, names_of, tools_of
from packing.spec import Columns

Item = TypeVar("Item")
CONVERSATIONAL = frozenset({"messages", "conversations", "prompt", "instruction"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One conversation: `index` counts rows over all pieces from 0, `row` in its file from 1. `tools` is what its `tools` column says."""

    index: int
    row: int
    name: str
    id: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None


@dataclass(slots=True, kw_only=True)
class Document:
    """One document: a `text`, or the `ids` int32 [n] and `labels` int32 [n] of a row that is tokens already; its `domain` where it has
    one. `escaped` says that a special token's spelling in its text stays text, which is found out later."""

    index: int
    row: int
    name: str
    id: str
    text: str = ""
    ids: NDArray[np.int32] | None = None
    labels: NDArray[np.int32] | None = None
    domain: str = ""
    escaped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A row that is no conversation, and why."""

    row: int
    name: str
    reason: str


def conversations(
    table: pa.Table,
    *,
    container: str,
    name: str,
    row: Sequence[int],
    index: Sequence[int],
    columns: Columns,
    take: Take = nobody,
) -> Iterator[Bare | Conversation | Rejected]:
    """Rows of a piece in order, with their numbers; blank lines are passed over in silence, and so is what `take` takes of bare ones."""

    def read(record: dict[str, Any], number: int, place: int) -> Bare | Conversation:
        messages: Any = record.get(columns.messages or "messages")
        turns = bare(messages)
        if turns is None:
            messages = conversation_of(record, columns)
            turns = bare(messages)
        found = _id_of(record, columns, number)
        tools = tools_of(record.get("tools"))
        if turns is not None and tools is None:
            return Bare(place, number, name, found, *turns)
        return Conversation(index=place, row=number, name=name, id=found, messages=messages, tools=tools)

    if container == "lines":
        yield from _of_lines(table, name, row, index, columns, read, take)
        return
    turns = _bare_column(table, columns) if container == "columns" else None
    if turns is None:
        yield from _each(table, container, name, row, index, read)
        return
    key = columns.id or "id"
    ids = table.column(key).to_pylist() if key in table.column_names else [None] * table.num_rows
    for i, (number, place, found, known) in enumerate(zip(row, index, ids, turns, strict=True)):
        if known is None or (columns.id and found is None):
            yield from _each(table.slice(i, 1), container, name, [number], [place], read)
        elif not take(place, _name(found, number), *known):
            yield Bare(place, number, name, _name(found, number), *known)


def _of_lines(
    table: pa.Table,
    name: str,
    row: Sequence[int],
    index: Sequence[int],
    columns: Columns,
    read: Callable[[dict[str, Any], int, int], Bare | Conversation],
    take: Take,
) -> Iterator[Bare | Conversation | Rejected]:
    """`_each` for conversations in lines, which looks at those of nothing but roles and texts as little as it can."""
    key, known_by = columns.messages or "messages", columns.id or "id"
    for number, place, line in zip(row, index, views_of(table), strict=True):
        item = None
        try:
            record: Any = orjson.loads(line)
            roles, contents = turns_of(record[key])
            known = record.get(known_by)
            if "tools" not in record and not (columns.id and known is None):
                found = known if type(known) is str else _name(known, number)
                # Whether contents are texts is seen where they are joined: what raises there is looked at again.
                if take(place, found, roles, contents):
                    continue
                item = Bare(place, number, name, found, roles, contents) if are_bare(roles, contents) else None
        except (ValueError, KeyError, TypeError):  # no JSON, no such column, no record, no plain messages
            pass
        if item is None:
            data = line.tobytes()
            item = None if not data or data.isspace() else _item(data, name, number, place, read)
            del data
        # A line may be 100 MB long: who works on what was in it does so without the line.
        record = roles = contents = None
        if item is not None:
            yield item
            del item


def _bare_column(table: pa.Table, columns: Columns) -> Iterator[Turns | None] | None:
    """What `bare` says of every row, out of one column; None where rows may hold more than it and an id."""
    key = columns.messages or "messages"
    return None if key not in table.column_names or "tools" in table.column_names else bare_lists(table.column(key))


def documents(
    table: pa.Table, *, container: str, name: str, row: Sequence[int], index: Sequence[int], columns: Columns
) -> Iterator[Document | Rejected]:
    """Rows of a piece as documents: `text` (or the column the spec names), else `input_ids`; blank lines are passed over."""
    columns = Columns() if container == "texts" else columns

    def read(record: dict[str, Any], number: int, place: int) -> Document:
        found = _id_of(record, columns, number)
        domain = _domain(record, columns)
        return Document(index=place, row=number, name=name, id=found, domain=domain, **_document(record, columns))

    if container == "lines":
        return _documents_of_lines(table, name, row, index, columns, read)
    return _each(table, container, name, row, index, read)


def _documents_of_lines(
    table: pa.Table,
    name: str,
    row: Sequence[int],
    index: Sequence[int],
    columns: Columns,
    read: Callable[[dict[str, Any], int, int], Document],
) -> Iterator[Document | Rejected]:
    """`_each` for documents in lines, which looks at those with a text and what else is asked of them as little as it can."""
    key, known_by, domain_by = columns.text or "text", columns.id or "id", columns.domain or "domain"
    for number, place, line in zip(row, index, lines_of(table), strict=True):
        if line is None:
            continue
        record = text = found = domain = None
        try:
            record = orjson.loads(line)
            text, found, domain = record[key], record.get(known_by), record.get(domain_by)
        except (ValueError, KeyError, TypeError, AttributeError):  # no JSON, no such column, no record
            pass
        lacking = (columns.id and found is None) or (columns.domain and domain is None)
        if isinstance(text, str) and text and not text.isspace() and not lacking:
            of = "" if domain is None else _domain_name(domain)
            item = Document(index=place, row=number, name=name, id=_name(found, number), text=text, domain=of)
        else:
            item = _item(record if isinstance(record, dict) else line, name, number, place, read)
        # A line may be 100 MB long: who works on what was in it does so without the line.
        del line, record, text
        yield item
        del item


def _each(
    table: pa.Table,
    container: str,
    name: str,
    row: Sequence[int],
    index: Sequence[int],
    read: Callable[[dict[str, Any], int, int], Item],
) -> Iterator[Item | Rejected]:
    """What `read` makes of every row with its two numbers, or why it makes nothing of it."""
    values = _values(table, container)
    for number, place, value in zip(row, index, values, strict=True):
        if value is None:
            continue
        item = _item(value, name, number, place, read)
        # A line may be 100 MB long: who works on what was in it does so without the line.
        del value
        yield item
        del item


def _item(
    value: Any, name: str, number: int, place: int, read: Callable[[dict[str, Any], int, int], Item]
) -> Item | Rejected:
    try:
        return read(_parse(value) if isinstance(value, bytes) else value, number, place)
    except Reason as reason:
        return Rejected(row=number, name=name, reason=str(reason))


def unusable(table: pa.Table, *, container: str, name: str, first_row: int) -> Iterator[Rejected]:
    """Rows that are neither a conversation nor a document by the usual names of columns."""
    for number, value in enumerate(_values(table, container), first_row):
        try:
            record = None if value is None else _parse(value) if isinstance(value, bytes) else value
            if record is None or bare(record.get("messages")) is not None:
                continue
            if not (CONVERSATIONAL.isdisjoint(record) and _is_text(record)):
                conversation_of(record, Columns())
        except Reason as reason:
            yield Rejected(row=number, name=name, reason=str(reason))


def _is_text(record: Mapping[str, Any]) -> bool:
    try:
        return bool(_document(record, Columns()))
    except Reason:
        return False


def first_is_document(table: pa.Table, *, container: str, columns: Columns) -> bool:
    """Whether the first row that is a record at all holds a document and no conversation."""
    if container == "texts" or columns.text or columns.messages:
        return columns.messages is None
    for value in _values(table, container):
        try:
            record = _parse(value) if isinstance(value, bytes) else value
        except Reason:
            continue
        if record is not None:
            return not CONVERSATIONAL & record.keys() and bool({"text", "input_ids"} & record.keys())
    return False


def _document(record: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    text = _decoded(record.get(columns.text or "text"))
    if isinstance(text, str):
        if not text.strip():
            raise Reason("its text is empty")
        return {"text": text}
    if columns.text:
        raise Reason(f"no text in column {columns.text!r}; it has {names_of(record)}")
    ids = record.get("input_ids")
    if ids is None:
        raise Reason(f"neither text nor input_ids; it has {names_of(record)}")
    if len(record.get("seq_lengths") or [0]) > 1:
        raise Reason("it holds several sequences, and positions are those of one")
    labels = record.get("labels")
    if labels is not None and len(labels) != len(ids):
        raise Reason("labels and input_ids differ in length")
    return {"ids": _whole_numbers(ids), "labels": None if labels is None else _whole_numbers(labels)}


def _decoded(value: Any) -> Any:
    """A text that came as bytes, out of a file or a binary column."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Reason(f"not UTF-8 (byte {error.start})") from None


def _whole_numbers(values: Any) -> NDArray[np.int32]:
    array = np.asarray(values)
    if array.ndim != 1 or not len(array) or not np.issubdtype(array.dtype, np.integer) or abs(array).max() >= 2**31:
        raise Reason("input_ids and labels are lists of whole numbers, at least one")
    return array.astype(np.int32)


def _values(table: pa.Table, container: str) -> Iterator[Any]:
    """The rows of a piece before anything is made of them: a line's bytes (None where it is blank), or a record."""
    if container == "lines":
        yield from lines_of(table)
    elif container == "texts":
        for name, data in zip(table.column("id").to_pylist(), table.column("data"), strict=True):
            yield {"id": name, "text": data.as_py()}
    else:
        yield from _rows(table)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1024):
        for record in batch.to_pylist():
            yield _without_nulls(record)


def _without_nulls(value: Any) -> Any:
    """Arrow gives every struct all fields of its type; an absent one is null there and must be absent for a template."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _parse(line: bytes) -> dict[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Reason(f"not JSON ({error})") from None
    if not isinstance(record, dict):
        raise Reason("not a JSON object")
    return record


def _id_of(record: Mapping[str, Any], columns: Columns, row: int) -> str:
    value = record.get(columns.id or "id")
    if columns.id and value is None:
        raise Reason(f"no column {columns.id!r}; it has {names_of(record)}")
    return _name(value, row)


def _name(value: Any, row: int) -> str:
    """What a row's id says, where it is a text or a number; else its number."""
    return value if type(value) is str else str(value) if isinstance(value, str | int) else str(row)


def _domain(record: Mapping[str, Any], columns: Columns) -> str:
    value = record.get(columns.domain or "domain")
    if columns.domain and value is None:
        raise Reason(f"no column {columns.domain!r}; it has {names_of(record)}")
    return _domain_name(value)


def _domain_name(value: Any) -> str:
    return str(value) if isinstance(value, str | int) else ""
