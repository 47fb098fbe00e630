"""The faster engine is believed only where it agrees with the reference."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packing import fast_engine
from packing.dataset.reader import read_manifest
from packing.fast_engine import PROBES, FastEngine, tried_of
from packing.tokenizers import BUILTIN, Tokenizer
from tests.conftest import WORDS, conversation, write_lines
from tests.packing.cip_audit import rows_of
from tests.packing.test_tokenizer_families import FAMILIES, family

TEXTS = [" ".join(np.random.default_rng(i).choice(WORDS, size=60)) for i in range(3000)]


def engine_of(name):
    reference = family(name)
    return FastEngine(json.loads(reference.to_str()), reference)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_where_it_is_usable_it_gives_the_references_tokens(name):
    engine, reference = engine_of(name), family(name)
    texts = [*PROBES, *TEXTS[:200]]
    found = engine.encode(texts)
    if name in ("bpe", "nfc", "tekken"):
        assert engine.usable, "the families that serve most models are fast"
    if found is not None:
        ids, offsets = found
        expected = reference.encode_batch(texts, add_special_tokens=False)
        assert [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [e.ids for e in expected]
        assert (ids.dtype, offsets.dtype) == (np.int32, np.int64)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_any_text_of_the_builtin_tokenizer(builtin, texts):
    encoded = builtin.encode(texts)
    assert encoded.ids.tolist() == [i for t in texts for i in builtin._natural.encode(t, add_special_tokens=False).ids]
    hidden = [t for t in texts if not builtin.guard_characters.search(t)]
    escaped = builtin.encode_escaped(hidden, [()] * len(hidden))
    assert not set(escaped.ids.tolist()) & set(builtin.special.values())


def test_about_one_text_in_a_thousand_is_tried_whoever_asks(builtin):
    texts = [*TEXTS, "", *(f"{i} {i * 7}" for i in range(40_000))]
    encoded = builtin.encode(texts)
    tried = tried_of(encoded.ids, encoded.offsets)
    assert 20 < len(tried) < 70
    assert texts.index("") not in tried
    for other in (texts[::-1], texts[1000:]):
        encoded = builtin.encode(other)
        again = {other[i] for i in tried_of(encoded.ids, encoded.offsets)}
        assert again == {texts[i] for i in tried} & set(other)
    assert tried_of(np.zeros(0, np.int32), np.zeros(1, np.int64)) == []
    assert tried_of(np.zeros(0, np.int32), np.zeros(3, np.int64)) == []


class Wrong(FastEngine):
    """An engine that is wrong where a text holds a word the probes do not."""

    def encode(self, texts):
        found = super().encode(texts)
        if found is None:
            return None
        ids, offsets = found[0].copy(), found[1]
        for i, text in enumerate(texts):
            if "sensors" in text:
                ids[offsets[i]] += 1
        return ids, offsets


def test_an_engine_that_is_wrong_is_caught_counted_and_not_used(tmp_path, build, builtin, monkeypatch):
    records = [{"id": f"d{i}", "text": text} for i, text in enumerate(TEXTS[:400])]
    source = write_lines(tmp_path / "s.jsonl", records)
    talk = write_lines(tmp_path / "t.jsonl", [conversation(i, turns=3) for i in range(60)])
    fields = {"kind": "cip", "sequence_length": 1024}
    true, talks = rows_of(build(source, **fields)), rows_of(build(talk))
    assert read_manifest(build(source, **fields)).counts["tokenizer_disagreements"] == 0
    monkeypatch.setattr(fast_engine, "ONE_IN", 20)
    wrong = Tokenizer.load(BUILTIN, name="builtin")
    monkeypatch.setitem(wrong.__dict__, "_natural_fast", Wrong(wrong._value, wrong._natural))
    monkeypatch.setattr("service.engine.tokenizers.load_tokenizer", lambda name, folder: wrong)
    folder = build(source, **fields)
    assert read_manifest(folder).counts["tokenizer_disagreements"] > 5
    assert rows_of(folder) == true, "a batch with one disagreement is the reference's"
    folder = build(talk)
    assert read_manifest(folder).counts["tokenizer_disagreements"] > 0
    assert rows_of(folder) == talks


def test_an_engine_that_fails_a_probe_is_not_used(builtin, monkeypatch):
    monkeypatch.setattr(fast_engine, "PROBES", (*PROBES, "many sensors"))
    assert not Wrong(builtin._value, builtin._natural).usable
    assert FastEngine(builtin._value, builtin._natural).usable


def test_what_it_refuses_goes_to_the_reference():
    """A vocabulary without every byte: it cannot encode what lacks one, the reference passes over it."""
    value = json.loads((BUILTIN / "tokenizer.json").read_text())
    lacking = "Ġ"
    value["model"]["vocab"] = {t: i for t, i in value["model"]["vocab"].items() if lacking not in t}
    value["model"]["merges"] = [m for m in value["model"]["merges"] if lacking not in json.dumps(m, ensure_ascii=False)]
    tokenizer = Tokenizer(name="lacking", tokenizer_json=json.dumps(value).encode(), config={}, chat_template=None)
    text = "words with spaces"
    assert tokenizer.encode([text, "one"]).ids.tolist() == [
        i for t in (text, "one") for i in tokenizer._natural.encode(t, add_special_tokens=False).ids
    ]
