"""Long texts are encoded in stretches and give the tokens that encoding them whole gives."""

from __future__ import annotations

import numpy as np
import pytest

from packing import corpus_tokens
from packing.corpus_tokens import encode_long
from tests.conftest import WORDS
from tests.packing.test_tokenizer_families import FAMILIES, ours

TEXTS = {
    "lines": lambda draws: "\n".join(
        "  " * int(draws.integers(3)) + " ".join(draws.choice(WORDS, size=int(draws.integers(1, 12))))
        for _ in range(900)
    ),
    "one line": lambda draws: " ".join(draws.choice(WORDS, size=6000)),
    "no seam": lambda draws: "x" * 30_000,
    "spaces": lambda draws: (" " * 37 + "\n").join(draws.choice(WORDS, size=2500)),
    "chinese": lambda draws: "\n".join(
        "".join(draws.choice(list("城市的销售额是四十二今天天气很好"), size=60)) for _ in range(500)
    ),
}


@pytest.mark.parametrize("name", sorted(TEXTS))
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_stretches_give_the_tokens_of_the_whole(family, name, monkeypatch):
    monkeypatch.setattr(corpus_tokens, "OVERLAP", 400)
    tokenizer = ours(family)
    text = TEXTS[name](np.random.default_rng(5))
    calls = []
    encode = tokenizer.encode

    def counted(texts):
        calls.append(sum(map(len, texts)))
        return encode(texts)

    monkeypatch.setattr(tokenizer, "encode", counted)
    found = encode_long(text, tokenizer, escaped=False, stretch=3000)
    assert found.tolist() == encode([text]).ids.tolist()
    assert found.dtype == np.int32
    if family in ("bpe", "nfc", "tekken") and name != "no seam":
        assert len(calls) > 5
        assert max(calls) <= 3400, "never more than a stretch and its overlap at once"


def test_a_spelled_special_token_stays_text_across_stretches(builtin, monkeypatch):
    monkeypatch.setattr(corpus_tokens, "OVERLAP", 400)
    text = "\n".join(f"line {i} says <|im_start|> and <|endoftext|>" for i in range(800))
    found = encode_long(text, builtin, escaped=True, stretch=3000)
    assert found.tolist() == builtin.encode_escaped([text], [()]).ids.tolist()
    assert not set(found.tolist()) & set(builtin.special.values())


def test_a_normaliser_may_make_more_tokens_than_a_text_has_bytes(monkeypatch):
    monkeypatch.setattr(corpus_tokens, "OVERLAP", 400)
    tokenizer = ours("unigram")
    text = "\n".join("ﷺ" * 20 for _ in range(600))
    whole = tokenizer.encode([text]).ids.tolist()
    assert len(whole) > len(text.encode()), "this text must stand for many more tokens than bytes"
    assert encode_long(text, tokenizer, escaped=False, stretch=3000).tolist() == whole


def test_tokens_find_room_where_there_is_none():
    found, filled = np.empty(4, np.int32), 0
    for start, end in ((0, 3), (3, 4), (4, 9), (9, 9), (9, 30)):
        found, filled = corpus_tokens._put(found, filled, np.arange(start, end, dtype=np.int32))
    assert found[:filled].tolist() == list(range(30))
    assert found.dtype == np.int32


def test_special_tokens_are_found_wherever_they_are_spelled(builtin):
    for special in builtin.special:
        assert builtin.spells_special(f"before <| and {special}behind")
        assert not builtin.spells_special(f"before <| and {special[:-1]}, {special[1:]} behind")
    assert not builtin.spells_special("a < b, and not more")
    assert not builtin.spells_special("")
