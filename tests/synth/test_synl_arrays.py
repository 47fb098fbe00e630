"""What is made of whole columns and rows at once is what is made one by one, and the bytes of a row are what they were."""

from __future__ import annotations

import copy
import hashlib
import json
from datetime import date
from importlib.metadata import version
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packing.chat import ChatTemplate
from packing.dataset import schema as schemas
from packing.dataset.errors import DatasetError
from synth import synl_rows
from synth.tables import fit
from synth.tables.fit import fitted, fitted_rows
from synth.tables.generate import Wanted, tables_alone, tables_of
from synth.tables.lengths import TokenCounter
from synth.tables.render.format import threads_of, woven
from synth.tables.render.formats import FORMATS
from synth.tables.render.json import JSON_ARRAY, JSON_LINES
from synth.tables.render.markdown import MARKDOWN
from synth.tables.schemas.catalogue import SCHEMAS
from synth.tables.table import Column
from synth.tables.uniforms import HIDDEN_ROWS, MAIN, SECOND, Sizes, runs, uniforms
from synth.values.columns import (
    Category,
    Day,
    Key,
    Number,
    Phrases,
    Reference,
    Words,
    day_text,
    number_cells,
    number_text,
    number_values,
    spelled,
    uniforms_of,
)
from synth.values.keys import key_cells
from synth.values.picks import cells_picked, picked, picks_of
from synth.values.pools import Pieces, as_cells
from tests.packing import templates
from tests.packing.test_tokenizer_families import ours
from tests.synth.support import LOCALES, counter, mix, row_of

FAKER = "40.54.0"
"""The version that the digests below were taken with."""
DIGEST = "bb7035d94006b06b83b7c9de3007bc78fa0e491d73e8fb016f5d0a498feac689"


@given(st.lists(st.integers(-(10**12), 10**12) | st.integers(-3, 12_000), max_size=8), st.integers(0, 3))
def test_numbers_are_written_alike_one_by_one_and_all_at_once(numbers, decimals):
    for values in (numbers, [abs(number) for number in numbers]):
        cells = spelled(np.array(values, np.int64), decimals)
        assert cells.tolist() == [number_text(value, decimals) for value in values]


def test_every_number_that_a_column_may_hold_has_its_cell():
    u = np.stack([np.linspace(0, 1, 4000, endpoint=False), np.tile(np.linspace(0, 1, 40, endpoint=False), 100)])
    columns = 0
    for schema in SCHEMAS.values():
        for field in (*schema.main.fields, *(schema.second.fields if schema.second else ())):
            content = field.content
            if isinstance(content, Number):
                (values,) = number_values([(content, u)], [np.arange(4000)])
                bounds = np.rint(np.array([content.low, content.high]) * 10**content.decimals).astype(np.int64)
                values = np.concatenate([values, bounds // content.step * content.step])
                cells = number_cells(content, values).tolist()
                assert cells == [number_text(value, content.decimals) for value in values.tolist()]
                columns += 1
    assert columns > 40


def test_days_and_keys_are_written_alike_one_by_one_and_all_at_once():
    content = Day(date(1999, 12, 25), date(2004, 3, 3))
    days = list(range(content.first.toordinal(), content.last.toordinal() + 1))
    picks, n = picks_of(content, "en_US", "en", "train"), len(days)
    places = picked(picks, [(np.arange(n) + 0.5) / n], [np.arange(n)])
    assert cells_picked(picks, places).tolist() == [day_text(day) for day in days]
    keys = np.array([100_000, 15_432, 7, 999_999, 482_913])
    assert key_cells("EMP", keys).tolist() == ["EMP-100000", "EMP-015432", "EMP-000007", "EMP-999999", "EMP-482913"]


def test_words_are_the_floor_of_their_uniform_modulo_their_number():
    u = np.concatenate([np.random.default_rng(0).random(3000), [0.0, 1 - 2.0**-32]])
    for pool in ("person", "city", "email", "host", "team"):
        picks = picks_of(Words(pool), "en_US", "en", "train")
        places = picked(picks, [u, u[::-1]][: len(picks)], [np.arange(len(u))] * len(picks))
        for pick, of_u, found in zip(picks, [u, u[::-1]], places, strict=False):
            assert found.tolist() == [int(number * 2**31) % len(pick.words) for number in of_u.tolist()]
        assert len(picks) == uniforms_of(Words(pool))


def test_contents_ask_for_as_many_uniforms_as_they_take():
    kinds, rows, rng = set(), [np.array([3, 1, 41])], np.random.default_rng(0)
    for schema in SCHEMAS.values():
        for field in (*schema.main.fields, *(schema.second.fields if schema.second else ())):
            content, u = field.content, rng.random((2, 50))
            kinds.add((type(content), uniforms_of(content)))
            if isinstance(content, Number):
                (some,) = number_values([(content, u[: uniforms_of(content)])], rows)
                (whole,) = number_values([(content, u)], [np.arange(50)])
                assert some.tolist() == whole[rows[0]].tolist()
            elif not isinstance(content, Category | Key | Reference):
                taken = {pick.uniform for pick in picks_of(content, "zh_CN", "zh", "test")}
                assert taken == set(range(uniforms_of(content)))
    assert {(Category, 1), (Day, 1), (Number, 1), (Number, 2), (Words, 1), (Words, 2), (Phrases, 2)} < kinds


def test_a_column_gathers_the_rows_it_was_asked_for():
    column = Column(
        title="T", phrase="t", unit="", sort="number", cells=as_cells(list("abcdef")), numbers=np.arange(6), decimals=1
    )
    some = column.take(np.array([4, 0, 2]))
    fewer = some.take(np.array([1, 2]))
    assert fewer.cells.tolist() == ["a", "c"]
    assert fewer.values().tolist() == [0, 2]
    assert some.values().tolist() == [4, 0, 2]
    assert column.cells.tolist() == list("abcdef")
    assert (some.sort, some.decimals, some.additive) == ("number", 1, True)


def test_pieces_are_cells_that_are_put_together_when_asked_for():
    pieces = Pieces(("K-", as_cells(["a", "b", "c"]), "·", as_cells(["1", "", "3"])))
    assert pieces.tolist() == ["K-a·1", "K-b·", "K-c·3"]
    assert [pieces.cell(row) for row in range(3)] == pieces.tolist()
    assert pieces[np.array([2, 0])].tolist() == ["K-c·3", "K-a·1"]
    column = Column(title="T", phrase="t", unit="", sort="key", cells=pieces).take(np.array([2, 1, 0]))
    assert (column.cell(0), column.cells_at(np.array([1, 2]))) == ("K-c·3", ["K-b·", "K-a·1"])
    assert woven([threads_of(column), [["x", "y", "z"]]], ["<", ",", ">"]) == ["<K-c·3,x>", "<K-b·,y>", "<K-a·1,z>"]
    assert column.cells.tolist() == ["K-c·3", "K-b·", "K-a·1"]
    assert column.cell(1) == "K-b·"


@pytest.mark.parametrize("locale", ["en_US", "zh_CN", "de_DE"])
def test_conversations_are_nearly_as_long_as_expected_before_anything_is_asked(locale):
    """The mean over tasks is met to a few per cent, and half of the conversations need no second look at their rows."""
    own, drafts, rows = counter(), [], 120
    draft = fit._Attempt._draft
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit._Attempt, "_draft", lambda *args: drafts.append(1) or draft(*args))
        mixed = mix(locales={locale: 1.0})
        list(fitted_rows(mixed, own, seed=5, rows=range(rows), split="train", targets=[8192] * rows))
    assert rows <= len(drafts) < 1.9 * rows


def of_all_sizes():
    names = list(SCHEMAS)
    return [
        Sizes(row=row, attempt=row % 3, schema=SCHEMAS[names[row % len(names)]], main=40 + 90 * row, second=second)
        for row in range(2 * len(names))
        for second in ((None, 7) if SCHEMAS[names[row % len(names)]].second else (None,))
    ]


def test_uniforms_of_tables_are_the_same_alone_and_together():
    sizes = of_all_sizes()
    for of, drawn in zip(sizes, uniforms(9, sizes, 0.1), strict=True):
        (alone,) = uniforms(9, [of], 0.1)
        assert alone.keys() == drawn.keys()
        assert all(np.array_equal(alone[path], drawn[path]) for path in alone)
        # of a table that is not shown, the key and whether a row is a near-duplicate, two uniforms each
        assert of.schema.second is None or of.second is not None or len(drawn[SECOND]) == 4
        (bare,) = uniforms(9, [of], 0.0)
        assert np.array_equal(bare[MAIN], alone[MAIN][:-2])


@pytest.mark.parametrize("distractors", [0.0, 0.4])
def test_tables_are_the_same_alone_and_together(distractors):
    locales = ("en_US", "zh_CN", "ja_JP")
    wanted = [Wanted(of, locales[number % 3]) for number, of in enumerate(of_all_sizes())]
    assert 1 < len(list(runs([each.sizes for each in wanted], distractors))) < len(wanted)
    options = {"split": "test", "distractors": distractors}
    together = list(tables_of(4, wanted, **options))
    assert len(together) == len(wanted)
    for each, found in zip(wanted, together, strict=True):
        (alone,) = tables_of(4, [each], **options)
        assert (found.second is None) == (each.sizes.second is None)
        for one, other in zip(found.all(), alone.all(), strict=True):
            assert one.rows == other.rows
            for column, same in zip(one.columns, other.columns, strict=True):
                assert column.cells.tolist() == same.cells.tolist()
                assert (column.numbers is None) == (same.numbers is None)
                assert column.numbers is None or column.numbers.tolist() == same.numbers.tolist()


def test_a_second_table_that_is_not_shown_has_the_keys_it_would_show():
    for name, schema in SCHEMAS.items():
        if schema.second is None:
            continue
        common = {"rows": 80, "locale": "en_US", "split": "train", "row": 3, "distractors": 0.3}
        shown = tables_alone(schema, second=HIDDEN_ROWS, **common)
        hidden = tables_alone(schema, second=None, **common)
        assert hidden.second is None
        for one, other in zip(shown.main.columns, hidden.main.columns, strict=True):
            assert one.cells.tolist() == other.cells.tolist(), name


def test_a_template_that_is_caught_is_rendered(monkeypatch):
    tokenizer = counter()._tokenizer
    own = TokenCounter(tokenizer, ChatTemplate(templates.CHATML, tokenizer, today=date(2026, 1, 1)))
    messages = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Three"}]
    right = own.conversation(messages)
    joined = own._joined(messages)
    monkeypatch.setattr(own, "_joined", lambda _: joined._replace(text=joined.text + " and more"))
    monkeypatch.setattr("synth.tables.lengths.is_tried", lambda _: True)
    assert own.draft(messages) > right
    assert own.conversation(messages) == right
    assert own.template_disagreed == 1


def test_a_batch_of_rows_is_what_arrow_makes_of_them_one_by_one():
    made = [
        fitted(mix(tasks={"group": 1.0, "lookup": 1.0}), counter(), seed=2, row=row, split="train", target=2200)
        for row in range(6)
    ]
    records = [synl_rows.record(row, "train", found) for row, found in enumerate(made)]
    batch = synl_rows.batch_of(records, made)
    assert batch.equals(pa.RecordBatch.from_pylist(records, schema=schemas.SYNL), check_metadata=True)
    assert sum(map(len, batch.column("evidence").to_pylist())) > 60
    options = {"lengths": [2200] * 6, "most_turns": 4}
    synl_rows.check(batch, **options)
    for row, (name, value) in product((0, 5), (("question", 9), ("message", 1), ("start", -1), ("end", 10**6))):
        wrong = copy.deepcopy(records)
        wrong[row]["evidence"][-1][name] = value
        broken = pa.RecordBatch.from_pylist(wrong, schema=schemas.SYNL)
        with pytest.raises(DatasetError, match=f"row train-0000000{row}: evidence"):
            synl_rows.check(broken, **options)
        rest = broken.slice(1)
        if row == 0:
            synl_rows.check(rest, **options | {"lengths": [2200] * 5})
        else:
            with pytest.raises(DatasetError, match=f"row train-0000000{row}: evidence"):
                synl_rows.check(rest, **options | {"lengths": [2200] * 5})


def families():
    yield "builtin", counter()
    for family in ("bpe", "nfc", "tekken", "unigram"):
        tokenizer = ours(family)
        yield family, TokenCounter(tokenizer, ChatTemplate(templates.CHATML, tokenizer, today=date(2026, 1, 1)))


def test_rows_have_the_tokens_that_each_has_by_itself():
    """Whether they were counted as one text or one by one, in every format, in tokenizers that do cut at line ends and others."""
    together = {}
    for family, own in families():
        forms = [form for forms in FORMATS.values() for form in forms]
        for (number, form), locale in product(enumerate(forms), (*LOCALES, "ja_JP")):
            schema = list(SCHEMAS.values())[number % len(SCHEMAS)]
            tables = tables_alone(
                schema, rows=60, second=None, locale=locale, split="train", row=number, distractors=0.1
            )
            rows = form.rows(tables.main)
            assert own.rows(rows, form).tolist() == own.lines([row + form.between for row in rows]).tolist()
            assert own.rows(rows[:1], form).tolist() == own.lines([rows[0] + form.between]).tolist()
            together.setdefault((family, form), set()).add(own._apart(rows, form))
    for form in forms:
        assert together["builtin", form] == {True}
        assert together["unigram", form] == {False}
    # the pattern of GPT-2 takes a line's end and the spaces behind it together, and rows of a JSON array begin with two
    assert together["bpe", JSON_ARRAY] == {False}
    assert together["bpe", JSON_LINES] == together["bpe", MARKDOWN] == {True}


@pytest.mark.skipif(version("faker") != FAKER, reason=f"the digest was taken with the words of Faker {FAKER}")
def test_rows_are_byte_for_byte_what_they_were():
    digest = hashlib.sha256()
    for number, (form, target) in enumerate(product(FORMATS, (2200, 5000))):
        split = "test" if number % 3 == 0 else "train"
        row = row_of(number, target=target, split=split, formats={form: 1.0}, locales={"en_US": 2.0, "zh_CN": 1.0})
        digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode())
    assert digest.hexdigest() == DIGEST
