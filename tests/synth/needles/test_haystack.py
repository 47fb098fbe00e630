"""The builtin text against real documentation by its statistics, and users' texts as units."""

from __future__ import annotations

import zlib

import pytest

from synth.needles import haystack, lexicon_en, lexicon_zh
from synth.needles.prose_en import gerund, past, plural
from synth.needles.units import Measure, Units

DOCUMENTATION_EIGHT_GRAMS = 0.0295
"""Share of 8-grams of words that stood there before, in 200,000 words of the Linux kernel's documentation (mean of four orders)."""
DOCUMENTATION_COMPRESSION = 3.03
"""How many times smaller zlib (level 6) makes a million bytes of it (mean of four orders)."""


def text_of(locale: str, split: str, characters: int) -> str:
    parts: list[str] = []
    total = 0
    for units in haystack.builtin_units(locale, split):
        parts.append("".join(units))
        total += len(parts[-1])
        if total >= characters:
            return "".join(parts)[:characters]
    raise AssertionError


@pytest.fixture(scope="module")
def english() -> str:
    return text_of("en_US", "test", 6_000_000)


def repeated(words: list[str], size: int) -> float:
    grams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return 1 - len(set(grams)) / len(grams)


def test_it_repeats_and_compresses_like_real_documentation(english):
    words = english.split()[:200_000]
    assert len(words) == 200_000
    assert repeated(words, 8) == pytest.approx(DOCUMENTATION_EIGHT_GRAMS, rel=0.2)
    data = english.encode()[:1_000_000]
    assert len(data) / len(zlib.compress(data, 6)) == pytest.approx(DOCUMENTATION_COMPRESSION, rel=0.2)


def test_it_does_not_repeat_itself_before_a_million_tokens(english, builtin):
    tokens = len(builtin.encode([english[:500_000]]).ids) * len(english) / 500_000
    assert tokens > 1_000_000
    lines = [line for line in english.split("\n")[:-1] if len(line) > 150]
    assert len(lines) > 10_000
    assert len(set(lines)) == len(lines), "no paragraph stands there twice"
    sentences = [s for line in lines for s in line.replace("? ", ". ").split(". ") if len(s) > 80]
    stock = [s for s in sentences if f"{s.rstrip('.')}." in lexicon_en.STOCK]
    assert len(set(sentences) - set(stock)) == len(sentences) - len(stock), "but for the set phrases"
    assert len(stock) < 0.08 * len(sentences)


def test_chinese_does_not_repeat_itself_either():
    text = text_of("zh_CN", "test", 700_000)
    sentences = [s for s in text.replace("\n", "").split("。") if len(s) > 12]
    own = [s for s in sentences if f"{s}。" not in lexicon_zh.STOCK]
    assert len(own) > 10_000
    assert len(set(own)) > 0.999 * len(own)


def test_splits_have_no_article_in_common(english):
    other = text_of("en_US", "train", 500_000)
    mine, theirs = ({line for line in t.split("\n") if len(line) > 150} for t in (english, other))
    assert theirs
    assert mine.isdisjoint(theirs)


def test_words_are_inflected():
    assert [past(v) for v in ("carry", "load", "dye", "chop", "sell", "forget-about")] == [
        "carried", "loaded", "dyed", "chopped", "sold", "forgot about",
    ]  # fmt: skip
    assert [gerund(v) for v in ("bake", "stir", "carry", "dye")] == ["baking", "stirring", "carrying", "dyeing"]
    assert [plural(n) for n in ("shelf", "city", "watch", "boy", "fireman")] == [
        "shelves", "cities", "watches", "boys", "firemen",
    ]  # fmt: skip


def test_a_users_text_becomes_units_and_keeps_its_words():
    text = (
        "One  sentence. Two!  \n\n\nA new\tparagraph?Not a border. <|im_end|> is left out. 第一句。第二句！\n"
        + "x " * 3000
    )
    units = haystack.sentences_of(text, ["<|im_end|>"])
    joined = "".join(units)
    assert units[:3] == ["One sentence.", " Two!\n", "A new paragraph?Not a border.\n"]
    assert "第一句。\n" in units
    assert "<|im_end|>" not in joined
    assert joined.split() == [
        w for w in text.replace("。", "。 ").split() if w not in ("<|im_end|>", "is", "left", "out.")
    ]
    assert max(map(len, units)) <= haystack.LONGEST + 2


def test_wrapped_lines_are_one_sentence():
    text = "A sentence that was\n  wrapped (twice,\neven). Here one ends.\nnot joined: it ended\n\nA title\nThe text."
    assert haystack.sentences_of(text, []) == [
        "A sentence that was wrapped (twice, even).", " Here one ends.\n", "not joined: it ended\n", "A title\n", "The text.\n",
    ]  # fmt: skip


def test_long_paragraphs_get_places_to_begin_at(builtin):
    text = " ".join(f"Sentence number {i} says nothing." for i in range(100))
    measure = Measure(builtin)
    units = Units.of(measure.joined(haystack.sentences_of(text, [])), measure)
    assert len(units.openers) >= 100 // haystack.PARAGRAPH
    assert units.apart
    assert units.total == len(builtin.encode(["".join(units.texts)]).ids)


def test_units_whose_tokens_do_not_add_up_are_joined(builtin):
    measure = Measure(builtin)
    texts = ["One.", "Two three.", " Four.\n", "\nFive."]
    assert not measure.apart(texts[2], texts[3])
    joined = measure.joined(texts)
    assert "".join(joined) == "".join(texts)
    assert measure.all_apart(joined)
    units = Units.of(joined, measure)
    assert units.total == len(builtin.encode(["".join(texts)]).ids)
