"""Rows of nothing but roles and texts take the short way, and it leads where the long one does."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packing import records, skipalign_tokens
from packing.bare_rows import Bare, are_usual, bare, bare_lists, lines_of, messages_of
from packing.chat import ChatTemplate
from packing.dataset.reader import read_manifest
from packing.records import Rejected, conversations, unusable
from packing.spec import Columns
from tests.conftest import conversation, write_lines
from tests.packing import templates


def nothing_is_bare(_):
    raise KeyError


TEXTS = st.text(max_size=5) | st.sampled_from(["", " ", "<|im_end|>", "城市", "\ud7ff\ue000", "\0", "{}"])
ROLES = st.sampled_from(["system", "user", "assistant", "assistant", "tool", "robot"])
ANY = st.none() | st.booleans() | st.integers(0, 3) | TEXTS | st.lists(st.integers(0, 3), max_size=2)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": TEXTS})
    | st.dictionaries(
        st.sampled_from(["role", "content", "train", "from", "value", "tool_calls"]), ROLES | ANY, max_size=3
    )
    | ANY,
    max_size=4,
)
PLAIN = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXTS}), min_size=1, max_size=4
)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "messages": PLAIN | MESSAGES | ANY,
        "id": ANY,
        "tools": st.sampled_from([None, [], "", [{"name": "f"}], 5]),
        "prompt": TEXTS,
        "completion": TEXTS,
        "conversations": MESSAGES,
    },
)


def rows_of(folder):
    return [row for file in read_manifest(folder).files for row in pq.read_table(folder / file.path).to_pylist()]


def told(table, container, columns):
    """What rows are, the short way and the long one: numbers, id, messages and tools, or why they are rejected."""
    count = table.num_rows
    found = conversations(
        table, container=container, name="s", row=range(1, count + 1), index=range(count), columns=columns
    )
    return [
        (item.row, item.reason)
        if isinstance(item, Rejected)
        else (item.row, item.index, item.id, item.messages, None if isinstance(item, Bare) else item.tools)
        for item in found
    ]


def told_or_taken(table, container, columns):
    """The same where every other bare row is taken as it is read."""
    count, taken = table.num_rows, {}

    def take(index, name, roles, contents):
        "".join(contents)
        if index % 2 == 0 or not are_usual(roles):
            return False
        taken[index] = (index + 1, index, name, messages_of(roles, contents), None)
        return True

    rows = conversations(
        table, container=container, name="s", row=range(1, count + 1), index=range(count), columns=columns, take=take
    )
    left = {
        item.row - 1: (item.row, item.reason)
        if isinstance(item, Rejected)
        else (item.row, item.index, item.id, item.messages, None if isinstance(item, Bare) else item.tools)
        for item in rows
    }
    assert not left.keys() & taken.keys()
    return [row for _, row in sorted((left | taken).items())], len(taken)


def by_the_long_way(table, container, columns):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "turns_of", nothing_is_bare)
        patch.setattr(records, "bare", lambda _: None)
        patch.setattr(records, "bare_lists", lambda _: None)
        bad = list(unusable(table, container=container, name="s", first_row=1))
        return told(table, container, columns), bad


def test_both_ways_read_any_line_alike():
    seen = Counter()

    @given(
        st.lists(st.fixed_dictionaries({"messages": PLAIN, "id": ANY}), max_size=3),
        st.lists(RECORDS | ANY, max_size=3),
        st.sampled_from([Columns(), Columns(id="id"), Columns(messages="messages")]),
    )
    def alike(usual, others, columns):
        rows = [*usual, *others]
        lines = [json.dumps(row, ensure_ascii=len(rows) % 2 == 0).encode() + b"\n" for row in rows]
        table = pa.table({"line": pa.array([*lines, b"  \n", b"{]"], pa.large_binary())})
        slow, bad = by_the_long_way(table, "lines", columns)
        assert told(table, "lines", columns) == slow
        both, taken = told_or_taken(table, "lines", columns)
        assert both == slow
        seen["taken"] += taken
        assert list(unusable(table, container="lines", name="s", first_row=1)) == bad
        seen["bare"] += sum(bare(row.get("messages")) is not None for row in rows if isinstance(row, dict))
        seen["rejected"] += len(bad)

    alike()
    assert seen["bare"] > 20
    assert seen["taken"] > 10
    assert seen["rejected"] > 50


def test_both_ways_read_any_column_alike():
    seen = Counter()
    message = st.fixed_dictionaries({"role": ROLES | st.none(), "content": TEXTS | st.none()}) | st.none()
    lists = st.none() | st.lists(message, max_size=3) | PLAIN
    struct = pa.struct([("content", pa.large_string()), ("role", pa.string())])

    @given(st.lists(lists, min_size=1, max_size=6), st.integers(0, 2), st.booleans(), st.sampled_from(["id", None]))
    def alike(rows, skipped, numbered, name):
        table = pa.table({"messages": pa.chunked_array([pa.array(rows, pa.list_(struct))] * 2)})
        if numbered:
            ids = [None if i % 3 == 2 else i for i in range(2 * len(rows))]
            table = table.append_column("id", pa.array(ids, pa.int64()))
        table = table.slice(skipped)
        columns = Columns(id=name)
        slow, _ = by_the_long_way(table, "columns", columns)
        assert told(table, "columns", columns) == slow
        both, taken = told_or_taken(table, "columns", columns)
        assert both == slow
        seen["taken"] += taken
        turns = bare_lists(table.column("messages"))
        seen["bare"] += sum(found is not None for found in turns)

    alike()
    assert seen["bare"] > 100
    assert seen["taken"] > 20


USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    "messages",
    [
        [USER, {**ANSWER, "train": False}],
        [USER, {"role": ["assistant"], "content": "b"}, ANSWER],
        [USER, {"role": {}, "content": "b"}, ANSWER],
        [USER, {"role": "assistant"}],
        [USER, "assistant"],
        [USER],
        [],
        (USER, ANSWER),
        None,
    ],
)
def test_whatever_is_more_or_less_is_not_bare(messages):
    assert bare(messages) is None


def test_a_conversation_with_tools_is_not_bare():
    row = {"messages": [USER, ANSWER], "tools": [{"name": "f"}]}
    lines = pa.table({"line": pa.array([json.dumps(row).encode()], pa.large_binary())})
    for table, container in ((lines, "lines"), (pa.Table.from_pylist([row]), "columns")):
        assert told(table, container, Columns()) == [(1, 0, "1", row["messages"], row["tools"])]


def test_columns_that_may_hold_more_are_read_whole():
    fields = [("role", pa.string()), ("content", pa.string())]
    for kind in (pa.struct([*fields, ("train", pa.bool_())]), pa.struct(fields[:1]), pa.string()):
        assert bare_lists(pa.chunked_array([pa.array([], pa.list_(kind))])) is None
    assert bare_lists(pa.chunked_array([pa.array(["[]"])])) is None


def test_lines_are_those_of_any_cut():
    lines = [b'{"a": 1}\n', b"\n", b" \t\r\n", b"", b"x", "城\n".encode()]
    whole = pa.chunked_array([pa.array(lines, pa.large_binary()), pa.array(lines[::-1], pa.large_binary())])
    expected = [line if line.strip() else None for line in lines + lines[::-1]]
    for start in range(12):
        assert list(lines_of(pa.table({"line": whole}).slice(start, 7))) == expected[start : start + 7]
    assert list(lines_of(pa.table({"line": whole.cast(pa.binary())}))) == expected
    assert list(lines_of(pa.table({"line": pa.chunked_array([], pa.large_binary())}))) == []


@pytest.mark.parametrize("name", ["chatml", "clock", "brackets", "thinking"])
def test_datasets_are_those_that_rendering_every_row_gives(tmp_path, build, monkeypatch, name):
    """Every template, contents of every sort, lines and columns: the rows are those of the long way, and the short one was taken."""
    source = (templates.ALL | templates.FAMILIES)[name]
    edges = ("", " ", "\n", "<|im_end|>", "a <think> b", "</think>", "\u00a0", "\ue000<|im_end|>", "x<", "|>")
    edges += ("\U00100000<|im_end|>",)
    talks = [conversation(i, turns=1 + i % 4, longest=6, system=i % 9 == 4) for i in range(60)]
    for number, talk in enumerate(talks):
        chosen = talk["messages"][number % len(talk["messages"])]
        chosen["content"] = edges[number % 11] + chosen["content"] * (number % 7 > 0) + edges[number // 11 % 11]
    lines = write_lines(tmp_path / "t.jsonl", talks)
    pq.write_table(pa.Table.from_pylist(talks), tmp_path / "t.parquet")
    joiner, taken = ChatTemplate.joiner, Counter()

    def counted(self, layouts, **how):
        join = joiner(self, layouts, **how)

        def one(*row):
            hidden = len(layouts.hidden)
            found = join(*row)
            taken[found] += 1
            taken["escaped"] += len(layouts.hidden) - hidden
            return found

        return one

    found = {}
    for path in (lines, tmp_path / "t.parquet"):
        for fields in (
            {"special_tokens_in_text": "escape", "train_on": "all"},
            {"special_tokens_in_text": "allow", "train_on": "last"},
        ):
            fields |= {"chat_template": source, "on_bad_row": "skip", "strategy": "all"}
            monkeypatch.setattr(ChatTemplate, "joiner", counted)
            rows = rows_of(build(path, **fields))
            monkeypatch.setattr(ChatTemplate, "joiner", lambda *_, **__: lambda *_: False)
            with monkeypatch.context() as patch:
                patch.setattr(records, "turns_of", nothing_is_bare)
                patch.setattr(records, "bare", lambda _: None)
                patch.setattr(records, "bare_lists", lambda _: None)
                patch.setattr(skipalign_tokens, "_spelling", lambda _: None)
                assert rows_of(build(path, **fields)) == rows
            assert found.setdefault(fields["train_on"], rows) == rows
    if name != "thinking":
        assert taken[True] > 150
        assert taken["escaped"] > 10, "a special token is spelled in some"
    else:
        assert not taken[True], "it looks at contents"
