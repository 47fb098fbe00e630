"""Exact lengths: what the tokenizer says of the whole conversation, in the window, in several tokenizers, from the minimum up."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from packing.chat import ChatTemplate
from packing.tokenizers import BUILTIN, Tokenizer
from synth.audit.parse import table_named
from synth.tables.fit import fitted
from synth.tables.lengths import TokenCounter, adjusted, shortest, targets
from synth.tables.minimum import minimum_length
from synth.tables.outline import FEWEST_ROWS, Small
from synth.tables.render.formats import FORMATS
from tests.packing import templates
from tests.packing.test_tokenizer_families import ours
from tests.synth.support import counter, mix, row_of


def test_n_tokens_is_what_transformers_says_of_the_conversation():
    reference = AutoTokenizer.from_pretrained(BUILTIN)
    for number in range(24):
        row = row_of(number, target=(2100, 4096, 6000)[number % 3])
        ids = reference.apply_chat_template(row["messages"], tokenize=True, return_dict=False)
        assert len(ids) == row["n_tokens"]


@pytest.mark.parametrize(
    ("target", "share", "rows"), [(2000, 0.93, 60), (4095, 0.93, 20), (4096, 0.99, 60), (16_000, 0.99, 12)]
)
def test_conversations_fill_their_length(target, share, rows):
    found = [row_of(number, target=target, split="test" if number % 4 == 0 else "train") for number in range(rows)]
    assert all(share * target <= row["n_tokens"] <= target for row in found)
    assert {row["format"] for row in found} == set(FORMATS) or rows < 60


@pytest.mark.parametrize("family", ["tekken", "unigram", "metaspace"])
def test_lengths_are_exact_in_other_tokenizers(family):
    """Small vocabularies of a few hundred tokens: rows are long, the window is narrow."""
    tokenizer = ours(family)
    own = TokenCounter(tokenizer, ChatTemplate(templates.CHATML, tokenizer, today=date(2026, 1, 1)))
    for number in range(6):
        target = minimum_length(mix(), own, "train") + 1000 * number
        found = fitted(mix(), own, seed=0, row=number, split="train", target=target)
        assert shortest(target) <= found.tokens <= target
        assert own.conversation(found.conversation.messages) == found.tokens


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"formats": {"html": 1.0}, "tasks": {"join": 1.0}},
        {"turns": (4, 4), "reasoning": 1.0},
        {
            "formats": {"key_value": 1.0},
            "locales": {"zh_CN": 1.0},
            "tasks": {"row": 1.0, "sort": 1.0},
            "reasoning": 1.0,
        },
    ],
)
def test_the_minimum_is_enough(fields):
    least = minimum_length(mix(**fields), counter(), "train")
    for number in range(60):
        row = row_of(number, target=least, **fields)
        assert 0.93 * least <= row["n_tokens"] <= least


@pytest.mark.parametrize("sorts", [("number",), ("text", "date")])
def test_the_minimum_of_small_tables_is_enough_and_leaves_no_room_for_many_rows(sorts):
    small = Small(columns=(2, 3), sorts=sorts, rows=(2, None))
    fields = {"tasks": {"lookup": 1.0, "row": 1.0}, "turns": (2, 2), "reasoning": 1.0, "small": small}
    fields |= {"schemas": {"patients": 1.0, "vehicles": 1.0}}
    least = minimum_length(mix(**fields), counter(), "train")
    assert least < minimum_length(mix(**fields | {"small": None}), counter(), "train") / 2
    rows = [row_of(number, target=least, **fields) for number in range(60)]
    assert all(0.93 * least <= row["n_tokens"] <= least for row in rows)
    tables = [table_named(r["messages"][0]["content"], json.loads(r["queries"][0])["table"], r["format"]) for r in rows]
    assert min(len(table.rows) for table in tables) < FEWEST_ROWS
    # A long narrow table has as many rows as there is room for.
    assert 0.93 * 3000 <= row_of(0, target=3000, **fields)["n_tokens"] <= 3000


def test_what_was_measured_for_one_mix_or_tokenizer_is_not_taken_for_another():
    asked = [
        mix(formats={form: 1.0}, locales={locale: 1.0}, tasks={task: 1.0})
        for form in FORMATS
        for locale, task in (("en_US", "lookup"), ("en_US", "join"), ("zh_CN", "join"))
    ]

    def least(tokenizer, order):
        own = TokenCounter(tokenizer, ChatTemplate(templates.CHATML, tokenizer, today=date(2026, 1, 1)))
        return {number: minimum_length(asked[number], own, "train") for number in order}

    forwards, backwards = range(len(asked)), range(len(asked) - 1, -1, -1)
    first, second, other = Tokenizer.load(BUILTIN), Tokenizer.load(BUILTIN), ours("unigram")
    found = least(first, forwards)
    assert least(other, forwards) != found
    assert least(second, backwards) == found == least(first, backwards)
    assert len(set(found.values())) >= len(FORMATS)


def test_targets_are_drawn_as_asked():
    rows = np.arange(20_000)
    drawn = {draw: targets((2000, 32_000, draw), seed=1, rows=rows) for draw in ("uniform", "log_uniform")}
    for lengths in drawn.values():
        assert lengths.min() >= 2000
        assert lengths.max() <= 32_000
    assert abs(np.mean(drawn["uniform"] < 17_000) - 0.5) < 0.02
    assert abs(np.mean(drawn["log_uniform"] < 8000) - 0.5) < 0.02
    listed = targets([4096, 8192, 8192], seed=1, rows=rows)
    assert abs(np.mean(listed == 8192) - 2 / 3) < 0.02
    assert set(listed.tolist()) == {4096, 8192}
    assert np.array_equal(targets([4096, 8192, 8192], seed=1, rows=rows[77:80]), listed[77:80])


@given(
    st.lists(st.integers(20, 90), min_size=80, max_size=160),
    st.integers(10, 70),
    st.integers(-800, 800),
)
def test_rows_are_changed_to_make_up_a_shortage(counts, size, shortage):
    counts = np.array(counts, np.int64)
    chosen = np.arange(size)
    found = adjusted(chosen, counts, shortage, 10)
    if found is None:
        return
    assert len(set(found.tolist())) == len(found)
    reached = counts[found].sum() - counts[chosen].sum()
    # not worse than half a row: the last addition or removal is made only where it brings the sum nearer
    assert abs(shortage - reached) <= 46 or abs(shortage - reached) <= abs(shortage)
    if counts.std() > 15 and 20 <= len(found) <= 60 and abs(shortage) < 300:
        assert abs(shortage - reached) <= 10


def test_two_hundred_thousand_tokens_in_less_than_a_gibibyte():
    # VmHWM is of this process alone; ru_maxrss would begin at what the tests' own process had when it forked.
    code = (
        "import json; from pathlib import Path; from tests.synth.support import row_of; from synth.audit.rows import audit\n"
        "row = row_of(1, target=200_000); answers = audit(row)\n"
        "peak = next(l for l in Path('/proc/self/status').read_text().splitlines() if l.startswith('VmHWM')).split()[1]\n"
        "print(json.dumps([row['n_tokens'], answers, int(peak)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    tokens, answers, kibibytes = json.loads(done.stdout)
    assert 198_000 <= tokens <= 200_000
    assert answers >= 1
    assert 50_000 < kibibytes < 1024 * 1024
