"""The shapes of the big families' templates: whose every token is, tool calls, thinking; and templates that never end."""

from __future__ import annotations

import json
from datetime import date
from time import process_time

import pytest

from packing.chat import ChatTemplate
from packing.chat_layout import TemplateRowError
from packing.chat_shapes import Part, Shape, Slot, assemble
from packing.dataset.errors import TokenizerError
from packing.message_shapes import Reason, messages_of, tools_of
from packing.records import Conversation
from tests.conftest import write_lines
from tests.packing import templates
from tests.packing.test_tokenizer_families import family, ours, reference_ids, theirs, tokens_of

TODAY = date(2026, 1, 1)
SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
    {"role": "assistant", "content": "Four. "},
]
TOOLS = [
    {"type": "function", "function": {"name": "rain", "description": "Rain in mm", "parameters": {"type": "object"}}}
]
CALL = {"type": "function", "function": {"name": "rain", "arguments": {"city": "Bonn", "note": 'say "hi"'}}}
CALLED = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": '{"mm": 3}\n'},
    {"role": "assistant", "content": "Three."},
]


def blocks(talk, source, *, name="bpe", **options):
    """[(is response, text, trained text)], after checking that the ids are apply_chat_template's."""
    tokenizer, engine = ours(name), family(name)
    _, tokens = tokens_of(tokenizer, [talk], source, **options)
    assert tokens.ids.tolist() == reference_ids(theirs(engine), talk, source, tools=options.get("tools"))
    found, start = [], 0
    for length, response in zip(tokens.lengths.tolist(), tokens.responses.tolist(), strict=True):
        ids, trained = (a[start : start + length] for a in (tokens.ids, tokens.trained))
        found.append((response, tokenizer.decode(ids.tolist()), tokenizer.decode(ids[trained].tolist())))
        start += length
    return found


def learnt(talk, source, **options):
    return [trained for response, _, trained in blocks(talk, source, **options) if response]


def test_llama_has_a_clock_a_preamble_and_trims():
    assert blocks([SYSTEM, *TALK], templates.LLAMA) == [
        (
            False,
            "<s><|head|>system<|body|>\n\nToday Date: 01 Jan 2026\n\nBe brief.<|im_end|>"
            "<|head|>user<|body|>\n\nOne?<|im_end|><|head|>assistant<|body|>\n\n",
            "",
        ),
        (True, "Two.<|im_end|>", "Two.<|im_end|>"),
        (False, "<|head|>user<|body|>\n\nThree?<|im_end|><|head|>assistant<|body|>\n\n", ""),
        (True, "Four.<|im_end|>", "Four.<|im_end|>"),
    ]


def test_qwen_writes_an_empty_thought_in_the_last_turn_which_the_model_must_learn_to_write():
    assert blocks([SYSTEM, *TALK], templates.QWEN) == [
        (
            False,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\n",
            "",
        ),
        (True, "Two.<|im_end|>\n", "Two.<|im_end|>"),
        (False, "<|im_start|>user\nThree?<|im_end|>\n<|im_start|>assistant\n", ""),
        (True, "<think>\n\n</think>\n\nFour. <|im_end|>\n", "<think>\n\n</think>\n\nFour. <|im_end|>"),
    ]


def test_mistral_puts_the_system_prompt_into_the_last_user_turn():
    assert blocks([SYSTEM, *TALK], templates.MISTRAL) == [
        (False, "<s>[INST] One?[/INST] ", ""),
        (True, "Two.</s>", "Two.</s>"),
        (False, "[INST] Be brief.\n\nThree?[/INST] ", ""),
        (True, "Four.</s>", "Four.</s>"),
    ]
    with pytest.raises(TemplateRowError, match="must take turns"):
        blocks([TALK[0], TALK[0], TALK[1]], templates.MISTRAL)


def test_gemma_has_a_model_and_no_system():
    assert blocks([SYSTEM, *TALK], templates.GEMMA) == [
        (False, "<s><|im_start|>user\nBe brief.\n\nOne?<|im_end|>\n<|im_start|>model\n", ""),
        (True, "Two.<|im_end|>\n", "Two.<|im_end|>"),
        (False, "<|im_start|>user\nThree?<|im_end|>\n<|im_start|>model\n", ""),
        (True, "Four.<|im_end|>\n", "Four.<|im_end|>"),
    ]


THOUGHTS = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nTwo."},
    {"role": "user", "content": "Three?"},
    {"role": "assistant", "content": "<think>\n\nso\n</think>\nFour."},
]
FIELDS = [
    THOUGHTS[0],
    {"role": "assistant", "content": "Two.", "reasoning_content": "hm"},
    THOUGHTS[2],
    {"role": "assistant", "content": "Four.", "reasoning_content": "\nso\n"},
]


RENAMED = [{("reasoning" if key == "reasoning_content" else key): value for key, value in m.items()} for m in FIELDS]


@pytest.mark.parametrize("name", ["bpe", "nfc", "prepend"])
def test_earlier_thinking_is_dropped_and_the_last_is_the_responses(name):
    for talk in (THOUGHTS, FIELDS, RENAMED):
        assert [plain.replace(" ", "") for plain in learnt(talk, templates.QWEN, name=name)] == [
            "Two.<|im_end|>",
            "<think>\nso\n</think>\n\nFour.<|im_end|>",
        ]


def test_thinking_is_masked_with_its_tags_and_the_newlines_behind_them():
    for talk in (THOUGHTS, FIELDS, RENAMED):
        assert learnt(talk, templates.QWEN, thinking="mask") == ["Two.<|im_end|>", "Four.<|im_end|>"]
    assert learnt(TALK, templates.QWEN, thinking="mask") == ["Two.<|im_end|>", "Four. <|im_end|>"]
    assert learnt(THOUGHTS, templates.CHATML, thinking="mask") == ["Two.<|im_end|>", "Four.<|im_end|>"]
    kept = ["<think>\nhm\n</think>\n\nTwo.<|im_end|>", "<think>\n\nso\n</think>\nFour.<|im_end|>"]
    assert learnt(THOUGHTS, templates.CHATML) == kept


def test_only_thinking_at_the_beginning_is_masked_and_all_of_it_where_it_is_not_closed():
    def trained(content):
        return learnt([TALK[0], {"role": "assistant", "content": content}], templates.CHATML, thinking="mask")

    assert trained("Write <think>x</think> so.") == ["Write <think>x</think> so.<|im_end|>"]
    assert trained("<think>and on and on") == [""]
    assert trained("[THINK]x[/THINK]y") == ["y<|im_end|>"]


def test_thinking_in_tags_that_are_not_known_is_not_masked_by_guess():
    source = templates.CHATML.replace(
        "m['content'] +", "('(' + m.reasoning_content + ')' if m.reasoning_content else '') + m['content'] +"
    )
    assert learnt(FIELDS, source)[0] == "(hm)Two.<|im_end|>"
    with pytest.raises(TemplateRowError, match="thinking: mask does not find the thinking"):
        learnt(FIELDS, source, thinking="mask")


def test_a_thinking_tag_in_the_generation_prompt_is_the_prompts():
    source = templates.CHATML.replace("assistant\n'", "assistant\n<think>\n'").replace(
        "m['role'] + '\n'", "m['role'] + '\n' + ('<think>\n' if m['role'] == 'assistant' else '')"
    )
    talk = [TALK[0], {"role": "assistant", "content": "hm\n</think>\n\nTwo."}]
    assert blocks(talk, source)[1][2] == "hm\n</think>\n\nTwo.<|im_end|>"
    assert blocks(talk, source, thinking="mask")[1][2] == "Two.<|im_end|>"


def test_tool_calls_are_trained_and_tool_messages_are_prompt():
    call = (
        '<tool_call>\n{"name": "rain", "arguments": {"city": "Bonn", "note": "say \\"hi\\""}}\n</tool_call><|im_end|>'
    )
    qwen = blocks(CALLED, templates.QWEN, tools=TOOLS)
    assert [block[2] for block in qwen] == ["", call, "", "<think>\n\n</think>\n\nThree.<|im_end|>"]
    assert qwen[2][1] == (
        '<|im_start|>user\n<tool_response>\n{"mm": 3}\n\n</tool_response><|im_end|>\n<|im_start|>assistant\n'
    )
    assert "# Tools" in qwen[0][1]
    llama = blocks(CALLED, templates.LLAMA, tools=TOOLS)
    assert llama[1] == (
        True,
        *(2 * ('<|call|>{"name": "rain", "parameters": {"city": "Bonn", "note": "say \\"hi\\""}}<|im_end|>',)),
    )
    assert llama[2] == (
        False,
        '<|head|>ipython<|body|>\n\n"{\\"mm\\": 3}\\n"<|im_end|><|head|>assistant<|body|>\n\n',
        "",
    )
    mistral = blocks([SYSTEM, *CALLED], templates.MISTRAL, tools=TOOLS)
    assert mistral[1][0]
    assert mistral[1][2].startswith('[CALLS] [{"name": "rain"')
    assert mistral[1][2].endswith("}]</s>")
    assert mistral[0][1].endswith("[/INST]")


def test_a_call_beside_words_and_a_call_at_the_end():
    talk = [CALLED[0], {**CALLED[1], "content": "Let me see."}]
    for source in (
        templates.QWEN,
        templates.MISTRAL.replace("m.tool_calls %}{{- '[CALLS]", "m.tool_calls %}{{- m.content + '[CALLS]"),
    ):
        (words,) = learnt(talk, source, tools=TOOLS)
        assert "Let me see." in words
        assert words.endswith(("</tool_call><|im_end|>", "]</s>"))


def test_a_special_token_before_a_call_does_not_end_the_response():
    source = templates.CHATML.replace(
        "m['content'] +", "(m.content or '') + ('<|call|>' + m.tool_calls[0].function.name if m.tool_calls else '') +"
    )
    talk = [CALLED[0], {**CALLED[1], "content": "Look:"}, *CALLED[2:]]
    assert learnt(talk, source) == ["Look:<|call|>rain<|im_end|>", "Three.<|im_end|>"]


def test_a_rendering_that_can_be_cut_in_two_ways_is_not_cut():
    nothing = Part("", False, 0)
    shape = Shape((nothing, nothing, nothing), (0, 1), ())
    slots = [Slot(0, "content", "x "), Slot(1, "content", " y")]
    assert assemble("x y", slots, shape) is None
    for text, values in (("x  y", ["x ", " y"]), ("xy", ["x", "y"])):
        parts = assemble(text, slots, shape)
        assert parts is not None
        assert [part.text for part in parts[1::2]] == values
    one = assemble("x|y", slots, Shape((nothing, Part("|", False, 1), nothing), (0, 1), ()))
    assert one is not None
    assert "".join(part.text for part in one) == "x|y"
    assert assemble("x| y", slots, Shape((nothing, Part("|", False, 1), nothing), (0, 1), ())) is not None


def test_a_tool_that_spells_a_special_token_is_refused():
    tools = [{"type": "function", "function": {"name": "rain", "description": "ends with <|im_end|>"}}]
    with pytest.raises(TemplateRowError, match="spells a special token in a tool"):
        blocks(CALLED, templates.QWEN, tools=tools)


def test_a_template_that_rewrites_contents_past_telling_is_refused_or_laid_out_by_its_prefixes():
    loud = templates.CHATML.replace("m['content']", "m['content'] | upper")
    assert learnt(TALK, loud) == ["TWO.<|im_end|>", "FOUR. <|im_end|>"]
    last_only = templates.CHATML.replace(
        "m['content']", "(m['content'] | upper if loop.last else m['content'] | reverse)"
    )
    with pytest.raises(TemplateRowError, match="rewrites earlier turns"):
        learnt(TALK, last_only)
    # values beside each other that could be cut in several ways: the prefixes decide
    blurred = "{% for m in messages %}{{ m['content'] | trim if loop.first else m['content'] }}{% endfor %}"
    row = [{**SYSTEM, "content": "a "}, {"role": "user", "content": " "}, {"role": "assistant", "content": " b"}]
    assert learnt(row, blurred) == [" b"]
    # and where the template rewrites those as well, nothing is certain
    with pytest.raises(TemplateRowError, match="rewrites earlier turns"):
        learnt(
            row,
            blurred.replace("loop.first", "not loop.last").replace("else m['content']", "else m['content'] | reverse")
            + "{{ messages | length }}",
        )


ENDLESS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "filtered loops": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "recursive loop": "{% for a in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "macro": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(64) }}",
    "sums": "{% for a in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
    "output": "{% for a in range(99999) %}{{ 'x' * 10000 }}{% endfor %}",
    "doubling": "{% set n = namespace(s='x') %}{% for a in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "doubling list": "{% set n = namespace(s=[1]) %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "block": "{% set n = namespace(s='x') %}{% for a in range(99) %}{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}",
    "product": "{{ 'x' * 10**10 }}",
    "padding": "{{ 'x' | center(10**10) }}",
    "method": "{{ 'x'.ljust(10**10) }}",
    "width": "{{ '%9999999999d' % 1 }}",
    "format": "{{ '{:9999999999}'.format(1) }}",
    "replace": "{% set a = 'x' * 9000000 %}{{ a.replace('x', a) }}",
    "join": "{% set a = 'x' * 9000000 %}{{ a.join(['a'] * 10000) }}",
    "power": "{{ (9 ** 9 ** 9) ** 99999 }}",
    "search": "{% set b = 'x' * 9000000 %}{% for a in range(99999) %}{{ 'a' in b }}{% endfor %}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_end_is_stopped_within_seconds(name):
    chat = ChatTemplate(ENDLESS[name], ours("bpe"), today=TODAY)
    begin = process_time()
    with pytest.raises(TemplateRowError, match="the chat template is stopped: "):
        chat.render(TALK)
    assert process_time() - begin < 20


def test_long_conversations_are_far_from_the_limits():
    talk = [message for _ in range(3000) for message in TALK[:2]]
    for source in (templates.CHATML, templates.QWEN, templates.LLAMA):
        assert ChatTemplate(source, ours("bpe"), today=TODAY).text(talk).count("Two.") == 3000
    long = [{"role": "user", "content": "word " * 1_000_000}, TALK[1]]
    assert len(ChatTemplate(templates.LLAMA, ours("bpe"), today=TODAY).text(long)) > 4_999_000


@pytest.mark.parametrize("name", templates.FAMILIES)
def test_every_rendering_is_the_one_transformers_makes(name):
    """Concatenation, set blocks, loops and filters are counted here: nothing of what they make may change by it."""
    extra = (
        "{% set block %}a{{ 1 }}{% endset %}{% set shout | upper %}b{{ block }}{% endset %}{{ block ~ shout ~ 1 ~ none }}"
        "{{ [1, 2] | join('-') }}{{ ' x\ny' | indent(2) }}{{ '%s=%d' % ('a', 3) }}{{ '{}'.format(3) }}{{ 7 % 4 + 2 * 3 }}"
        "{% for m in messages | selectattr('role', 'equalto', 'user') %}{{ loop.index }}/{{ loop.length }}{% endfor %}"
        "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}{{ 'abc'[1:] }}{{ 'b' in 'abc' }}"
    )
    source = templates.FAMILIES[name] + extra
    ids = reference_ids(theirs(family("bpe")), TALK, source)
    assert ours("bpe").encode([ChatTemplate(source, ours("bpe"), today=TODAY).text(TALK)]).ids.tolist() == ids


def test_records_carry_tools_and_calls_as_lists_or_as_json():
    assert tools_of(TOOLS) == tools_of(json.dumps(TOOLS)) == TOOLS
    assert tools_of([]) is tools_of("") is tools_of(None) is None
    plain = messages_of(CALLED)
    assert plain[1]["content"] is None
    assert messages_of([CALLED[0], {**CALLED[1], "tool_calls": json.dumps([CALL])}])[1] == plain[1]
    for wrong in ("{", [1], {"a": 1}):
        with pytest.raises(Reason, match="tools"):
            tools_of(wrong)
        with pytest.raises(Reason, match="tool_calls"):
            messages_of([CALLED[0], {**CALLED[1], "tool_calls": wrong}])
    with pytest.raises(Reason, match="no content"):
        messages_of([{"role": "user", "content": None}, TALK[1]])
    with pytest.raises(Reason, match="multi-modal"):
        messages_of([{"role": "user", "content": [{"type": "image"}]}, TALK[1]])
    assert Conversation.__dataclass_fields__["tools"].default is None


def test_a_dataset_with_tools_and_masked_thinking(build, tmp_path):
    import pyarrow.parquet as pq

    rows = [{"messages": CALLED, "tools": json.dumps(TOOLS)}, {"messages": THOUGHTS}]
    source = write_lines(tmp_path / "calls.jsonl", rows)
    template = templates.QWEN
    shown = {}
    for thinking in ("train", "mask"):
        out = build(source, strategy="none", chat_template=template, thinking=thinking)
        (file,) = (out / "data").iterdir()
        table = pq.read_table(file).to_pydict()
        shown[thinking] = [[i for i in labels if i != -100] for labels in table["labels"]]
    assert [len(row) for row in shown["mask"]] < [len(row) for row in shown["train"]]
    for masked, whole in zip(shown["mask"], shown["train"], strict=True):
        assert masked[-3:] == whole[-3:]


def test_a_template_that_cannot_be_compiled_is_one_clear_error():
    for source in ("{% for %}", "{{ " + "(" * 5000 + " }}", "{{ x | nothing }}", "{% nothing %}"):
        with pytest.raises(TokenizerError) as caught:
            ChatTemplate(source, ours("bpe"), today=TODAY)
        assert caught.value.param == "/chat_template"
        assert "chat template" in str(caught.value)
