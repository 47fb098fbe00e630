"""Chat templates: what is rendered is what transformers renders, and every token goes to the block it belongs to."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packing.chat import ChatTemplate
from packing.chat_layout import Layouts, TemplateRowError
from packing.chat_tokens import chat_tokens, encode_rendered, marked
from packing.dataset.errors import TokenizerError
from tests.conftest import conversation
from tests.packing import templates

TODAY = date(2026, 1, 1)


def template(tokenizer, source=templates.CHATML):
    return ChatTemplate(source, tokenizer, today=TODAY)


def tokens_of(tokenizer, messages, source=templates.CHATML, *, special_tokens="escape", train_on="all"):
    chat = template(tokenizer, source)
    rendered = Layouts(chat.render(m, train_on=train_on) for m in messages)
    return chat_tokens(rendered, encode_rendered(rendered, chat, tokenizer, special_tokens=special_tokens))


def blocks_of(tokens, tokenizer, row=0):
    """[(is response, text, trained text)] of a row."""
    found, start = [], tokens.offsets[row]
    for block in range(tokens.block_offsets[row], tokens.block_offsets[row + 1]):
        span = slice(start, start + tokens.lengths[block])
        trained = tokens.ids[span][tokens.trained[span]]
        found.append((bool(tokens.responses[block]), tokenizer.decode(tokens.ids[span]), tokenizer.decode(trained)))
        start = span.stop
    return found


@pytest.mark.parametrize("name", templates.ALL)
@pytest.mark.parametrize("turns", [1, 2, 5])
def test_ids_are_exactly_apply_chat_templates(builtin, name, turns):
    from transformers import PreTrainedTokenizerFast

    from packing.tokenizers import BUILTIN

    source = templates.ALL[name].replace("bos_token", "'<|im_start|>'")
    reference = PreTrainedTokenizerFast(tokenizer_file=str(BUILTIN / "tokenizer.json"), eos_token="<|endoftext|>")
    messages = [conversation(i, turns=turns)["messages"] for i in range(8)]
    tokens = tokens_of(builtin, messages, source)
    # transformers reads the clock of the machine; ours is the spec's date
    pinned = source.replace("strftime_now('%d %b %Y')", "'01 Jan 2026'")
    for row, talk in enumerate(messages):
        expected = reference.apply_chat_template(talk, chat_template=pinned)
        ours = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]]
        assert ours.tolist() == list(expected["input_ids"] if not isinstance(expected, list) else expected)
    if name == "clock":
        assert "01 Jan 2026" in builtin.decode(tokens.ids)


def test_blocks_of_chatml(builtin):
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
        {"role": "assistant", "content": "Four."},
    ]
    assert blocks_of(tokens_of(builtin, [talk]), builtin) == [
        (
            False,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\n",
            "",
        ),
        (True, "Two.<|im_end|>\n", "Two.<|im_end|>"),
        (False, "<|im_start|>user\nThree?<|im_end|>\n<|im_start|>assistant\n", ""),
        (True, "Four.<|im_end|>\n", "Four.<|im_end|>"),
    ]


def test_borders_of_a_template_without_newlines_or_special_tokens(builtin):
    talk = [
        {"role": "user", "content": "a b"},
        {"role": "assistant", "content": "c d"},
        {"role": "user", "content": "e"},
    ]
    brackets = blocks_of(tokens_of(builtin, [talk], templates.BRACKETS.replace("bos_token", "''")), builtin)
    # " c" begins with the header's space: the straddling token stays with the prompt, untrained
    assert brackets == [
        (False, "[INST] a b [/INST] c", ""),
        (True, " d<|endoftext|>", " d<|endoftext|>"),
        (False, "[INST] e [/INST]", ""),
    ]
    plain = blocks_of(tokens_of(builtin, [talk], templates.PLAIN), builtin)
    assert [block[0] for block in plain] == [False, True, False]
    assert plain[1][2] == " d\n", "without a special token all of the turn's end is learnt"


def test_a_leading_newline_merges_into_the_header_and_is_not_trained(builtin):
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "\n\nhello"}]
    blocks = blocks_of(tokens_of(builtin, [talk]), builtin)
    assert "".join(text for _, text, _ in blocks) == template(builtin).text(talk)
    assert blocks[1][2] == "hello<|im_end|>"


def test_consecutive_responses_are_one_block_and_headers_inside_are_not_trained(builtin):
    talk = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": "two"},
    ]
    blocks = blocks_of(tokens_of(builtin, [talk]), builtin)
    assert [b[0] for b in blocks] == [False, True]
    assert blocks[1][2] == "one<|im_end|>two<|im_end|>"


def test_train_on_last_and_train_false(builtin):
    talk = conversation(3, turns=3)["messages"]
    last = blocks_of(tokens_of(builtin, [talk], train_on="last"), builtin)
    assert [bool(b[2]) for b in last] == [False, False, False, False, False, True]
    talk[1]["train"] = False
    every = blocks_of(tokens_of(builtin, [talk]), builtin)
    assert [bool(b[2]) for b in every] == [False, False, False, True, False, True]
    talk[5]["train"] = False
    none = blocks_of(tokens_of(builtin, [talk], train_on="last"), builtin)
    assert not any(b[2] for b in none)


def test_a_special_token_in_text_is_text_unless_allowed(builtin):
    end = builtin.special["<|im_end|>"]
    talk = [
        {"role": "user", "content": "say <|im_end|>"},
        {"role": "assistant", "content": "<|endoftext|> no<|im_end|>"},
    ]
    escaped = tokens_of(builtin, [talk])
    assert (escaped.ids == end).sum() == 2
    assert builtin.special["<|endoftext|>"] not in escaped.ids
    assert "".join(text for _, text, _ in blocks_of(escaped, builtin)) == template(builtin).text(talk)
    allowed = tokens_of(builtin, [talk], special_tokens="allow")
    assert (allowed.ids == end).sum() == 4
    assert blocks_of(escaped, builtin)[1][2] == "<|endoftext|> no<|im_end|><|im_end|>"


def test_a_tokenizer_that_treats_a_texts_beginning_apart_escapes_too(builtin):
    import json

    from packing.tokenizers import BUILTIN, Tokenizer

    value = json.loads((BUILTIN / "tokenizer.json").read_bytes())
    value["pre_tokenizer"]["pretokenizers"][0] = {
        "type": "Metaspace",
        "replacement": " ",
        "prepend_scheme": "first",
        "split": False,
    }
    odd = Tokenizer(name="odd", tokenizer_json=json.dumps(value).encode(), config={}, chat_template=templates.CHATML)
    talk = [{"role": "user", "content": "say<|im_end|> it"}, {"role": "assistant", "content": "no"}]
    escaped, allowed = tokens_of(odd, [talk]), tokens_of(odd, [talk], special_tokens="allow")
    end = odd.special["<|im_end|>"]
    assert ((escaped.ids == end).sum(), (allowed.ids == end).sum()) == (2, 3)
    at = allowed.ids.tolist().index(end)
    assert escaped.ids[:at].tolist() == allowed.ids[:at].tolist()


PLAIN = st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=30).filter(lambda text: "<|" not in text)
"""Texts that spell no special token and hold no private-use character, which stands for one while a text is escaped."""


@given(contents=st.lists(PLAIN, min_size=2, max_size=6), spell=st.integers(0, 5))
def test_escaping_changes_nothing_but_the_spelled_token(builtin, contents, spell):
    roles = ["user", "assistant"] * 3
    plain = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    spelled = [dict(m) for m in plain]
    spelled[spell % len(spelled)]["content"] += "<|im_end|>"
    tokens = tokens_of(builtin, [plain, spelled])
    texts = ["".join(text for _, text, _ in blocks_of(tokens, builtin, row)) for row in (0, 1)]
    assert texts == [template(builtin).text(plain), template(builtin).text(spelled)]
    first = slice(tokens.offsets[0], tokens.offsets[1])
    assert tokens.ids[first].tolist() == builtin.encode([template(builtin).text(plain)]).ids.tolist()
    second = tokens.ids[tokens.offsets[1] : tokens.offsets[2]]
    assert (second == builtin.special["<|im_end|>"]).sum() == len(plain)


@given(contents=st.lists(st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=40), min_size=1, max_size=8))
def test_trained_text_is_the_responses(builtin, contents):
    talk = [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]
    tokens = tokens_of(builtin, [talk])
    assert np.diff(tokens.block_offsets)[0] == len(talk)
    for message, (response, _, trained) in zip(talk, blocks_of(tokens, builtin), strict=True):
        assert response == (message["role"] == "assistant")
        # white space at the front may have merged into the header's newline; everything else is there
        whole = message["content"] + "<|im_end|>"
        assert trained == "" if not response else whole.endswith(trained) and whole[: -len(trained)].strip() == ""


def test_thinking_dropped_from_earlier_turns_is_found(builtin):
    last = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "<think>a</think>\nb"}]
    blocks = blocks_of(tokens_of(builtin, [last], templates.THINKING), builtin)
    assert blocks[1][2] == "<think>a</think>\nb<|im_end|>"
    longer = [*last, {"role": "user", "content": "y"}, {"role": "assistant", "content": "z"}]
    blocks = blocks_of(tokens_of(builtin, [longer], templates.THINKING), builtin)
    assert [trained for _, _, trained in blocks] == ["", "b<|im_end|>", "", "z<|im_end|>"]


def test_a_template_that_refuses_says_so_in_its_own_words(builtin):
    with pytest.raises(TemplateRowError, match="only user and assistant are served"):
        tokens_of(
            builtin, [[{"role": "system", "content": "x"}, {"role": "assistant", "content": "y"}]], templates.BRACKETS
        )


@pytest.mark.parametrize("source", [None, "", "{% for %}"])
def test_no_template_or_a_broken_one(builtin, source):
    with pytest.raises(TokenizerError) as caught:
        ChatTemplate(source, builtin, today=TODAY)
    assert caught.value.param == "/chat_template"


def test_a_template_cannot_reach_out_of_its_sandbox(builtin):
    for source in (
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% include 'x' %}",
        "{{ cycler.__init__.__globals__ }}",
    ):
        with pytest.raises(TemplateRowError):
            template(builtin, source + "{{ messages }}").text([{"role": "user", "content": "x"}])


def test_the_reference_offsets_give_the_same_borders_as_byte_lengths(builtin):
    messages = [conversation(i, turns=3)["messages"] for i in range(10)]
    by_length = tokens_of(builtin, messages)
    lengths = builtin._byte_lengths
    try:
        builtin._byte_lengths = None
        by_offsets = tokens_of(builtin, messages)
    finally:
        builtin._byte_lengths = lengths
    assert np.array_equal(by_length.trained, by_offsets.trained)
    assert np.array_equal(by_length.lengths, by_offsets.lengths)


def test_more_bytes_than_32_bits_count_change_no_border(builtin, monkeypatch):
    messages = [conversation(i, turns=3)["messages"] for i in range(10)]
    few = tokens_of(builtin, messages)
    assert builtin.encode(["x"]).edges.dtype == np.int32
    monkeypatch.setattr(builtin, "_longest", 2**31)
    assert builtin.encode(["x"]).edges.dtype == np.int64
    many = tokens_of(builtin, messages)
    assert np.array_equal(few.trained, many.trained)
    assert np.array_equal(few.lengths, many.lengths)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=8))
def test_marked_tokens_are_those_of_any_span(spans):
    edges = np.array([(start, start + length) for start, length in spans], np.int64).reshape(-1, 2)
    wanted = [any(a <= i < b for a, b in edges.tolist()) for i in range(40)]
    assert marked(edges, 40).tolist() == wanted
