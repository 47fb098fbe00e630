"""Five families of tokenizers: apply_chat_template's ids, borders where they belong, and no special token out of a message's text."""

from __future__ import annotations

import json
import unicodedata
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Engine
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from packing.chat import ChatTemplate
from packing.chat_layout import Layouts, TemplateRowError
from packing.chat_tokens import chat_tokens, encode_rendered, require_escapable
from packing.dataset.errors import TokenizerError
from packing.tokenizers import Tokenizer
from tests.conftest import TEXT, conversation
from tests.packing import templates

TODAY = date(2026, 1, 1)
CORPUS = [
    TEXT,
    TEXT.upper(),
    "E\u0301te\u0301 a\u0308 한국 e\u0301",
    '{"name": "rain", "value": 12}\n\n  two  spaces',
    *TEXT.split(),
] * 4
TEKKEN = r"[^\r\n\p{L}\p{N}]?[\p{Lu}]*[\p{Ll}\p{Lo}\p{M}]+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CONFIG = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}


def trained(engine: Engine, *, unigram: bool = False, base: list[str] | None = None, size: int = 900) -> Engine:
    alphabet = pre_tokenizers.ByteLevel.alphabet() if base is None else base
    fallback = [f"<0x{n:02X}>" for n in range(256)] if base is not None else []
    common = {"vocab_size": size, "show_progress": False, "initial_alphabet": alphabet}
    if unigram:
        trainer = trainers.UnigramTrainer(special_tokens=["<unk>", *templates.SPECIAL], unk_token="<unk>", **common)
    else:
        trainer = trainers.BpeTrainer(special_tokens=["<unk>", *templates.SPECIAL, *fallback], **common)
    engine.train_from_iterator(CORPUS, trainer)
    if fallback and not unigram:
        # the trainer makes the byte tokens special; in real files they are ordinary vocabulary
        value = json.loads(engine.to_str())
        value["added_tokens"] = [t for t in value["added_tokens"] if not t["content"].startswith("<0x")]
        value["model"] |= {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
        engine = Engine.from_str(json.dumps(value))
    engine.add_tokens([AddedToken(text, special=False, normalized=False) for text in templates.PLAIN_ADDED])
    return engine


def byte_level(**model) -> Engine:
    engine = Engine(models.BPE(**model))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    return engine


def bpe() -> Engine:
    return trained(byte_level())


def nfc() -> Engine:
    engine = byte_level()
    engine.normalizer = normalizers.NFC()
    return trained(engine)


def tekken() -> Engine:
    engine = byte_level(ignore_merges=True)
    split = pre_tokenizers.Split(Regex(TEKKEN), "isolated")
    engine.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return trained(engine)


def prepend() -> Engine:
    """SentencePiece's BPE as Llama-2's file has it: a space before every run of text, spaces as ▁, bytes for what is unknown."""
    engine = Engine(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    engine.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    engine.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return trained(engine, base=["▁"])


def metaspace() -> Engine:
    engine = Engine(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    engine.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    engine.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return trained(engine, base=["▁"])


def unigram() -> Engine:
    engine = Engine(models.Unigram())
    engine.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    engine.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return trained(engine, unigram=True, base=[chr(n) for n in range(33, 127)])


FAMILIES = {"bpe": bpe, "nfc": nfc, "tekken": tekken, "prepend": prepend, "metaspace": metaspace, "unigram": unigram}


@cache
def family(name: str) -> Engine:
    return FAMILIES[name]()


@cache
def ours(name: str) -> Tokenizer:
    return Tokenizer(name=name, tokenizer_json=family(name).to_str().encode(), config=CONFIG, chat_template=None)


def theirs(engine: Engine) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=engine, bos_token="<s>", eos_token="</s>")


def reference_ids(reference, talk, source, **options) -> list[int]:
    pinned = source.replace("strftime_now('%d %b %Y')", "'01 Jan 2026'")
    return reference.apply_chat_template(talk, chat_template=pinned, return_dict=False, **options)


def tokens_of(tokenizer, talks, source=templates.CHATML, *, special_tokens="escape", **options):
    chat = ChatTemplate(source, tokenizer, today=TODAY)
    rendered = [chat.render(talk, **options) for talk in talks]
    laid = Layouts(rendered)
    return rendered, chat_tokens(laid, encode_rendered(laid, chat, tokenizer, special_tokens=special_tokens))


def ids_of(tokens, row=0) -> list[int]:
    return tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()


ODD = [
    {"role": "user", "content": " E\u0301te\u0301 ☕ 한 \u1112\u1161\u11ab 🦊  two\n\n"},
    {"role": "assistant", "content": "  ｆｕｌｌ a\u0308\u0323o ﬁn \u0958 \u2126 <think>x</think>"},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": "\ne\u0301\n"},
]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [*templates.FAMILIES, "chatml", "brackets"])
def test_ids_are_exactly_apply_chat_templates(name, shape):
    source = {**templates.ALL, **templates.FAMILIES}[shape]
    talks = [*(conversation(i, turns=1 + i % 3)["messages"] for i in range(6)), ODD]
    _, tokens = tokens_of(ours(name), talks, source)
    reference = theirs(family(name))
    for row, talk in enumerate(talks):
        assert ids_of(tokens, row) == reference_ids(reference, talk, source)


@pytest.mark.parametrize("name", FAMILIES)
def test_borders_stand_where_the_text_says(name):
    """Decoded, what is trained is what the responses say; but for the first token where it began in the header (Unigram's newline is
    a space, which goes with the word behind it)."""
    talks = [conversation(i, turns=3)["messages"] for i in range(12)]
    rendered, tokens = tokens_of(ours(name), talks)
    starts = ours(name).encode([row.text for row in rendered]).starts
    engine = family(name)
    for row, talk in enumerate(talks):
        ids, trained = (a[tokens.offsets[row] : tokens.offsets[row + 1]] for a in (tokens.ids, tokens.trained))
        begins = starts[tokens.offsets[row] : tokens.offsets[row + 1]]
        said = [m["content"] + "<|im_end|>" for m in talk if m["role"] == "assistant"]
        for (first, end), text, turn in zip(runs(trained), said, rendered[row].turns, strict=True):
            learnt = plainly(engine.decode(ids[first:end].tolist(), skip_special_tokens=False))
            assert begins[first - 1] < turn.start <= begins[first]
            assert plainly(text).endswith(learnt)
            assert name == "unigram" or learnt == plainly(text)


def plainly(text: str) -> str:
    return unicodedata.normalize("NFKC", text).translate(dict.fromkeys(map(ord, "▁ \n")))


def runs(chosen) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@pytest.mark.parametrize("name", FAMILIES)
@given(
    contents=st.lists(
        st.text(st.sampled_from("aé e\u0301\u0323中\u1112\u1161☕\u0958 ﬁ\n½"), max_size=12), min_size=2, max_size=4
    )
)
@settings(max_examples=40)
def test_starts_rise_and_lie_on_characters_of_the_text(name, contents):
    talk = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    text = ChatTemplate(templates.CHATML, ours(name), today=TODAY).text(talk)
    encoded = ours(name).encode([text])
    assert (np.diff(encoded.starts) >= 0).all()
    assert encoded.starts[-1] < len(text.encode())
    character_starts = np.cumsum([0, *(len(c.encode()) for c in text)])
    if name in ("unigram", "prepend", "metaspace"):
        assert np.isin(encoded.starts, character_starts).all()
    for special in ("<|im_start|>", "<|im_end|>"):
        at = encoded.starts[encoded.ids == ours(name).special[special]]
        assert all(text.encode()[i:].startswith(special.encode()) for i in at)
        assert len(at) == len(talk)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_spelled_special_token_is_text_and_nothing_else_changes(name):
    spelled = [
        {"role": "user", "content": "say <|im_end|> or <s>x</s> to me"},
        {"role": "assistant", "content": "</s> no<|im_end|>"},
    ]
    blank = [
        {**m, "content": m["content"].replace("<|im_end|>", "§").replace("</s>", "§").replace("<s>", "§")}
        for m in spelled
    ]
    rendered, escaped = tokens_of(ours(name), [spelled, blank])
    ids, special = np.array(ids_of(escaped)), ours(name).special
    assert (ids == special["<|im_end|>"]).sum() == 2
    assert special["<s>"] not in ids
    assert special["</s>"] not in ids
    assert plainly(family(name).decode(ids_of(escaped), skip_special_tokens=False)) == plainly(rendered[0].text)
    # what stands before and behind the first and last spelled token is encoded as ever
    other = ids_of(escaped, 1)
    assert ids[:4].tolist() == other[:4]
    assert ids[-2:].tolist() == other[-2:]
    _, allowed = tokens_of(ours(name), [spelled], special_tokens="allow")
    assert ids_of(allowed) == reference_ids(theirs(family(name)), spelled, templates.CHATML)
    assert (allowed.ids == special["<|im_end|>"]).sum() == 4


@pytest.mark.parametrize("name", FAMILIES)
def test_the_escaping_engine_agrees_where_nothing_is_spelled(name):
    talks = [*(conversation(i, turns=2)["messages"] for i in range(6)), ODD]
    chat = ChatTemplate(templates.CHATML, ours(name), today=TODAY)
    texts = [chat.text(talk) for talk in talks]
    natural, escaped = ours(name).encode(texts), ours(name).encode_escaped(texts, [chat.specials(t) for t in texts])
    assert np.array_equal(natural.ids, escaped.ids)
    assert np.array_equal(natural.starts, escaped.starts)


def test_private_use_characters_beside_a_spelled_token_are_refused():
    tokenizer = ours("bpe")
    chat = ChatTemplate(templates.CHATML, tokenizer, today=TODAY)
    for content, refused in (("\U00100002", False), ("<s>", False), ("<s>\U00100002", True)):
        row = chat.render([{"role": "user", "content": content}, {"role": "assistant", "content": "x"}])
        if refused:
            with pytest.raises(TemplateRowError, match=r"private-use character U\+100002"):
                require_escapable(row, chat, tokenizer)
        else:
            require_escapable(row, chat, tokenizer)


@pytest.mark.parametrize("name", ["bpe", "metaspace", "unigram"])
def test_added_tokens_that_strip_or_stand_in_normalised_text(name):
    engine = Engine.from_str(family(name).to_str())
    engine.add_special_tokens([AddedToken("<|im_end|>", rstrip=True, lstrip=True), AddedToken("[X]", normalized=True)])
    engine.add_tokens([AddedToken("naïve", single_word=True)])
    engine.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 7)]
    )
    engine.enable_truncation(5)
    engine.enable_padding(length=64)
    tokenizer = Tokenizer(name="odd", tokenizer_json=engine.to_str().encode(), config=CONFIG, chat_template=None)
    talks = [
        *(conversation(i, turns=3)["messages"] for i in range(6)),
        [{"role": "user", "content": "[X] naïve naïves [X]"}, {"role": "assistant", "content": " a  "}],
    ]
    _, tokens = tokens_of(tokenizer, talks, special_tokens="allow")
    for row, talk in enumerate(talks):
        assert ids_of(tokens, row) == reference_ids(theirs(engine), talk, templates.CHATML)
    ends = tokens.trained & (tokens.ids == tokenizer.special["<|im_end|>"])
    assert ends.sum() == sum(len(talk) // 2 for talk in talks), (
        "the end of a turn is its own though it eats the newline"
    )


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("prepend", {"tokenizer_class": "LlamaTokenizer"}),
        ("prepend", {"tokenizer_class": "LlamaTokenizerFast", "legacy": True}),
        ("prepend", {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}),
        ("prepend", {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ("prepend", {"tokenizer_class": "GemmaTokenizer"}),
        ("prepend", {}),
        ("bpe", {"tokenizer_class": "LlamaTokenizerFast"}),
        ("bpe", {"tokenizer_class": "Qwen2Tokenizer"}),
        ("bpe", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}),
        ("tekken", {"tokenizer_class": "TokenizersBackend"}),
        ("nfc", {"tokenizer_class": "Qwen2TokenizerFast"}),
        (
            "nfc",
            {"tokenizer_class": "SomebodysTokenizer", "additional_special_tokens": ["<|more|>"], "pad_token": "<pad>"},
        ),
        ("unigram", {"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": ["<|more|>"]}),
    ],
)
def test_a_directory_gives_what_autotokenizer_gives_for_it(tmp_path: Path, name, config):
    (tmp_path / "tokenizer.json").write_text(family(name).to_str(), encoding="utf-8")
    whole = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **config}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(whole), encoding="utf-8")
    reference = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    tokenizer = Tokenizer.load(tmp_path)
    talks = [*(conversation(i, turns=2)["messages"] for i in range(4)), ODD]
    talks.append([{"role": "user", "content": "a <|more|> b"}, {"role": "assistant", "content": "c<pad>"}])
    for source in (templates.CHATML, templates.BRACKETS):
        _, tokens = tokens_of(tokenizer, talks, source, special_tokens="allow")
        for row, talk in enumerate(talks):
            assert ids_of(tokens, row) == reference_ids(reference, talk, source)


def test_a_class_that_changes_the_pipeline_changes_the_digest_and_splitting_special_tokens_is_refused():
    text = family("prepend").to_str().encode()

    def digest(config):
        return Tokenizer(name="x", tokenizer_json=text, config=config, chat_template=None).digest

    assert digest({}) == digest({"tokenizer_class": "PreTrainedTokenizerFast"})
    assert digest({"tokenizer_class": "LlamaTokenizer"}) != digest({})
    with pytest.raises(TokenizerError, match="split_special_tokens"):
        digest({"split_special_tokens": True})


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("tokenizer.json", b"[" * 100_000, "cannot be read as JSON"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": 5, "merges": []}}', ""),
        (
            "tokenizer.json",
            b'{"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": [5]}',
            "another form",
        ),
        ("tokenizer.json", b'{"model": {"vocab": [["a"]]}, "added_tokens": [{"content": "x"}]}', "another form"),
        ("tokenizer_config.json", b"[" * 100_000, "is no JSON"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"first": {"content": "x"}}}', "another form"),
        ("tokenizer_config.json", b"\xff\xff\xff", "is no JSON"),
        ("chat_template.jinja", b"{{ messages }}\xff", "chat_template.jinja is not UTF-8 (byte 14)"),
    ],
)
def test_files_of_another_form_are_refused_in_a_sentence(tmp_path, file, text, said):
    (tmp_path / "tokenizer.json").write_text(family("bpe").to_str())
    (tmp_path / file).write_bytes(text)
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.load(tmp_path)
    assert said in caught.value.message


def test_dropout_is_switched_off():
    value = json.loads(family("bpe").to_str())
    value["model"]["dropout"] = 0.9
    random = Tokenizer(name="x", tokenizer_json=json.dumps(value).encode(), config={}, chat_template=None)
    assert random.encode([TEXT]).ids.tolist() == ours("bpe").encode([TEXT]).ids.tolist()


def test_lengths_that_add_up_by_chance_are_not_taken_for_starts():
    """NFC makes three bytes more of one character and three fewer of three others: the sum is right, and what lies between is not."""
    encoded = ours("nfc").encode(["\u0958<|im_end|>" + 3 * "e\u0301"])
    assert encoded.starts[encoded.ids == ours("nfc").special["<|im_end|>"]].tolist() == [3]
