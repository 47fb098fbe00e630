"""Rows that need no rendering: only where a template writes contents and does nothing else with them."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

import packing.chat
from packing import fast_engine, skipalign_tokens
from packing.bare_rows import bare
from packing.chat import ChatTemplate
from packing.chat_layout import Joined, Layouts, TemplateRowError
from packing.chat_shapes import Part, Shape, mark
from packing.chat_tokens import ChatTokens, chat_tokens
from packing.dataset.reader import read_manifest
from packing.template_sandbox import STEPS
from packing.template_wording import Wordings, is_tried
from tests.conftest import conversation, write_lines
from tests.packing import templates
from tests.packing.cip_audit import rows_of

EACH = "{% for m in messages %}"
WRITTEN = EACH + "{{ m.role + m.content }}{% endfor %}"
SAME = (
    EACH + "{{ m.role + (m.content | default('', true)) }}{% endfor %}",
    EACH + "{{ m.role + (m.content or '') | trim }}{% endfor %}",
)
LOOKS = {
    "test": EACH + "{% if 'x' in m.content %}y{% endif %}{{ m.role + m.content }}{% endfor %}",
    "truth": EACH + "{{ m.role + (m.content or '-') }}{% endfor %}",
    "length": EACH + "{{ m.role + m.content }}{{ m.content | length }}{% endfor %}",
    "default": EACH + "{{ m.role + m.content | default('-', true) }}{% endfor %}",
    "or name": EACH + "{{ m.role + (m.content or bos_token) }}{% endfor %}",
    "upper": EACH + "{{ m.role + m.content | upper }}{% endfor %}",
    "name": EACH + "{% set c = m.content %}{% if c %}{{ c }}{% endif %}{{ m.role + m.content }}{% endfor %}",
    "late": EACH + "{% if d %}z{% endif %}{% set d = m.content %}{{ m.role + m.content }}{% endfor %}",
    "items": EACH + "{% for k, v in m.items() %}{{ v }}{% endfor %}{% endfor %}",
    "json": EACH + "{{ m | tojson }}{% endfor %}",
    "method": EACH + "{{ m.content.strip('x') }}{% endfor %}",
    "slice": EACH + "{{ m.content[:3] }}{% endfor %}",
    "key": "{% set k = 'content' %}" + EACH + "{% if m[k] %}y{% endif %}{% endfor %}",
    "equal": EACH + "{% if m == messages[-1] %}y{% endif %}{{ m.role + m.content }}{% endfor %}",
    "neighbour": EACH + "{% if loop.previtem %}y{% endif %}{{ m.role + m.content }}{% endfor %}",
    "space": EACH + "{% set ns = namespace(c=m.content) %}{% if ns.c %}y{% endif %}{{ m.content }}{% endfor %}",
    "block": EACH + "{% set c %}{{ m.content }}{% endset %}{% if c %}y{% endif %}{{ m.content }}{% endfor %}",
    "macro": "{% macro w(t) %}{% if t %}y{% endif %}{% endmacro %}" + EACH + "{{ w(m.content) }}{% endfor %}",
}


def chat(tokenizer, source):
    return ChatTemplate(source, tokenizer, today=date(2026, 1, 1))


@pytest.mark.parametrize("name", LOOKS)
def test_a_template_that_looks_at_contents_is_rendered(builtin, name):
    assert not chat(builtin, LOOKS[name])._wordings


def test_what_only_writes_is_known(builtin):
    found = {name: chat(builtin, source)._wordings is not None for name, source in templates.ALL.items()}
    assert found == {"chatml": True, "clock": True, "thinking": False, "brackets": True, "plain": True}
    for source in (WRITTEN, *SAME):
        assert chat(builtin, source)._wordings is not None
    assert chat(builtin, builtin.chat_template)._wordings is not None


@pytest.mark.parametrize("source", [*templates.ALL.values(), *templates.FAMILIES.values(), WRITTEN, *SAME])
def test_rows_are_those_that_rendering_gives(builtin, source):
    fast, slow = chat(builtin, source), chat(builtin, source)
    same = known = 0
    laid, mixed, fitted = [], [], []
    for number in range(120):
        talk = conversation(number, turns=1 + number % 4, longest=5, system=number % 5 == 0)["messages"]
        edges = ("", " ", "\n", "<|im_end|>", "<~0longweave~>", "</think>", "\u00a0", "x")
        talk[number % len(talk)]["content"] = edges[number % 8] + talk[0]["content"] + edges[number // 8 % 8]
        if number % 7 == 3:
            talk += [{"role": "assistant", "content": edges[number % 5]}]
        train_on = ("all", "last")[number // 2 % 2]
        known += fast._wordings is not None and fast._wordings.joined(talk) is not None
        turns = bare(talk)
        joined = fast.joined(*turns, train_on=train_on, spelled=True)
        try:
            expected = slow.render(talk, train_on=train_on)
        except TemplateRowError:
            with pytest.raises(TemplateRowError):
                fast.render(talk, train_on=train_on, unseen=True)
            with pytest.raises(TemplateRowError):
                fast.fitted(*turns, train_on=train_on, spelled=True)
            assert joined is None
            continue
        assert fast.render(talk, train_on=train_on, unseen=True) == expected
        same += 1
        laid.append(expected)
        mixed.append(expected if joined is None or number % 5 == 0 else joined)
        fitted.append(fast.fitted(*turns, train_on=train_on, spelled=True))
    first, *others = (
        chat_tokens(Layouts(rows), builtin.encode([row.text for row in rows])) for rows in (laid, mixed, fitted)
    )
    for name in ChatTokens.__slots__:
        assert all(np.array_equal(getattr(first, name), getattr(other, name)) for other in others), name
    assert sum(isinstance(row, Joined) for row in fitted) > 30
    assert sum(isinstance(row, Joined) for row in mixed) > 60 or fast._wordings is None
    assert same > 30
    assert known > 60 if fast._wordings is not None else not known


def test_a_row_near_the_bounds_is_rendered(builtin):
    talk = [{"role": "user", "content": "x" * (1 << 18)}, {"role": "assistant", "content": "y"}]
    wordings = chat(builtin, templates.CHATML)._wordings
    assert wordings.joined(talk) is None
    assert wordings.joined(talk[1:]) is not None


@pytest.mark.parametrize(
    ("order", "expected"), [((0, 1), ["a", "b"]), ((1, 0), ["b", "a"]), ((0, 1, 0), ["a", "b", "a"])]
)
def test_contents_stand_where_the_shape_says_and_up_to_the_bound(order, expected):
    shape = Shape(tuple(Part("|", content=False, bytes=1) for _ in range(len(order) + 1)), order, ())
    text = "|" + "".join(f" \n{mark(number)}\n |" for number in order)
    wording = Wordings(lambda _: shape, lambda _: (text, STEPS // 2)).of(("user", "assistant"))
    assert wording.values(["a", "b"]) == (expected, [1] * len(expected))
    assert wording.most == 255, "rendering 256 characters might take all steps there are"


def test_about_one_row_in_a_thousand_is_rendered_whoever_asks():
    tried = sum(is_tried(f"{i} {i * 7}") for i in range(40_000))
    assert 20 < tried < 70


def test_an_analysis_that_is_wrong_is_caught_counted_and_not_believed(tmp_path, build, monkeypatch):
    """A template that looks at contents, with an analysis that says it does not."""
    source = (
        EACH + "<|im_start|>{{ m.role + '\\n' + m.content }}<|im_end|>\\n"
        "{% if m.role == 'user' and 'sensors' in m.content %}!{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    talks = write_lines(tmp_path / "t.jsonl", [conversation(i, turns=3) for i in range(1200)])
    folder = build(talks, chat_template=source)
    assert read_manifest(folder).counts["template_disagreements"] == 0
    true = rows_of(folder)
    monkeypatch.setattr("packing.chat.only_writes_contents", lambda *_: True)
    monkeypatch.setattr("packing.chat._learnt", packing.chat._learnt.__wrapped__)
    monkeypatch.setattr(fast_engine, "ONE_IN", 1)
    folder = build(talks, chat_template=source)
    assert read_manifest(folder).counts["template_disagreements"] > 5
    assert rows_of(folder) == true, "from the first disagreement on every row is rendered"
    monkeypatch.setattr(fast_engine, "ONE_IN", 1 << 40)
    folder = build(talks, chat_template=source)
    assert read_manifest(folder).counts["template_disagreements"] == 0
    assert rows_of(folder) != true, "or else this test shows nothing"


def test_tools_and_fields_beside_contents_are_rendered(builtin):
    source = (
        "{% if tools %}!{% endif %}"
        + EACH
        + "{{ m.role + (m.content or '') }}{% if m.tool_calls %}?{% endif %}{% endfor %}"
    )
    template = chat(builtin, source)
    assert template._wordings is not None
    ask, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    calls = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    assert template.render([ask, answer], unseen=True).text == "useraassistantb"
    assert template.render([ask, answer], tools=[{"name": "f"}], unseen=True).text == "!useraassistantb"
    assert template.render([ask, answer | {"tool_calls": calls}], unseen=True).text == "useraassistantb?"
    for spelled in (False, True):
        joined = template.joined(*bare([ask, answer]), train_on="all", spelled=spelled)
        assert joined.text == "useraassistantb"
    for other in (
        answer | {"tool_calls": calls},
        {"role": "assistant", "tool_calls": calls},
        answer | {"train": False},
    ):
        assert bare([ask, other]) is None
    spelling = ("user", "assistant"), ["a", "<|im_end|>"]
    assert template.joined(*spelling, train_on="all", spelled=True).text == "useraassistant<|im_end|>"
    assert template.joined(*spelling, train_on="all", spelled=False) is None
    escaped = template.joined(*spelling, train_on="all", spelled=False, escaped=True)
    assert (escaped.text, escaped.hidden) == ("useraassistant<|im_end|>",) * 2, "this template writes no special token"


def test_what_is_joined_all_at_once_gives_the_rows_of_one_by_one(tmp_path, build, monkeypatch):
    talks = [conversation(i, turns=1 + i % 4) for i in range(40)]
    talks[3]["messages"][0]["content"] = "what is <|im_end|>?"
    talks[5]["messages"][1]["train"] = False
    source = write_lines(tmp_path / "t.jsonl", talks)
    found, joiner = {}, ChatTemplate.joiner
    for fields in ({}, {"special_tokens_in_text": "allow"}, {"train_on": "last"}, {"thinking": "mask"}):
        asked = []
        with monkeypatch.context() as patch:

            def noted(*given, asked=asked, **how):
                join = joiner(*given, **how)
                return lambda *row: asked.append(join(*row)) or asked[-1]

            patch.setattr(ChatTemplate, "joiner", noted)
            rows = rows_of(build(source, **fields))
            assert len(asked) == (0 if "thinking" in fields else 39), "one is more than roles and contents"
            patch.setattr(ChatTemplate, "joiner", lambda *_, **__: lambda *_: False)
            assert rows_of(build(source, **fields)) == rows, "renderings that fit their shape"
            patch.setattr(skipalign_tokens, "_spelling", lambda _: None)
            assert rows_of(build(source, **fields)) == rows, "rendered and taken apart"
        found[str(fields)] = rows
    assert found["{}"] != found["{'special_tokens_in_text': 'allow'}"]


def test_one_disagreement_ends_the_trust(builtin, monkeypatch):
    monkeypatch.setattr("packing.chat.only_writes_contents", lambda *_: True)
    template = chat(builtin, EACH + "{{ m.role + m.content }}{% if 'x' in m.content %}!{% endif %}{% endfor %}")
    same, other = ([{"role": "user", "content": c}, {"role": "assistant", "content": "b"}] for c in ("a", "x"))
    rows = [(talk, template.render(talk, unseen=True).text) for talk in (same, other)]
    assert template.disagreements(rows[:1]) == 0
    assert rows[1][1] == "userxassistantb"
    assert template.disagreements(rows) == 1
    assert template.render(other, unseen=True).text == "userx!assistantb"


def test_what_one_shard_finds_wrong_another_does_not_know_but_what_is_learnt_it_does(builtin, monkeypatch):
    monkeypatch.setattr("packing.chat.only_writes_contents", lambda *_: True)
    source = EACH + "{{ m.role + m.content }}{% if 'x' in m.content %}!!{% endif %}{% endfor %}"
    one, two = (ChatTemplate.of(source, builtin, today=date(2026, 1, 1)) for _ in range(2))
    row = ("user", "assistant"), ["x", "b"]
    talk = [{"role": role, "content": content} for role, content in zip(*row, strict=True)]
    first = one.joined(*row, train_on="all", spelled=True)
    assert one.disagreements([(talk, first.text)]) == 1
    assert one.joined(*row, train_on="all", spelled=True) is None
    again = two.joined(*row, train_on="all", spelled=True)
    assert again.text == first.text
    assert again.outline is first.outline
