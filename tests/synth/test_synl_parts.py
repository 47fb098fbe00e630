"""Schemas, wordings, pools, keys, formats: what a conversation is put together of."""

from __future__ import annotations

import re
from itertools import combinations, product
from string import Formatter

import numpy as np
import pytest
from faker.config import AVAILABLE_LOCALES
from hypothesis import given
from hypothesis import strategies as st

from packing.draws import Draws
from synth.audit.parse import record_cells, table_named
from synth.tables import generate
from synth.tables.choices import Choices
from synth.tables.conditions import beyond, choose, roundest
from synth.tables.conversation import Body
from synth.tables.frame import OPENING_ONE, OPENING_TWO, RULES, STEPS
from synth.tables.generate import tables_alone
from synth.tables.question import Request
from synth.tables.render.formats import FORMATS
from synth.tables.schema import phrase_of
from synth.tables.schemas.catalogue import SCHEMAS
from synth.tables.steps import mean_of
from synth.tables.table import Column, Table
from synth.tables.tasks.catalogue import TASKS
from synth.tables.wording import fill
from synth.values import pools
from synth.values.columns import Category, Phrases, number_text
from synth.values.keys import digit_sums, exchanged, key_numbers
from synth.values.pools import as_cells, for_split, is_served, names_in_order, pool
from tests.synth.support import LOCALES

POOLS = ("first_name", "last_name", "city", "company", "street_name", "user_name")


def tables_of(schema, locale="en_US", split="train", rows=60, row=0, distractors=0.1):
    second = 8 if SCHEMAS[schema].second else None
    sizes = {"rows": rows, "second": second, "row": row}
    return tables_alone(SCHEMAS[schema], seed=1, locale=locale, split=split, distractors=distractors, **sizes)


def titles(schema):
    parts = [schema.main, *([schema.second] if schema.second else [])]
    return {(f.english, f.chinese) for part in parts for f in part.fields}


def test_schemas_are_many_and_share_little():
    assert len(SCHEMAS) >= 12
    assert sum(schema.second is not None for schema in SCHEMAS.values()) >= 3
    for a, b in combinations(SCHEMAS.values(), 2):
        for language in (0, 1):
            assert len({t[language] for t in titles(a)} & {t[language] for t in titles(b)}) == 0, (a.id, b.id)


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("locale", LOCALES)
def test_a_table_has_unique_keys_and_cells_that_say_what_its_numbers_are(schema, locale):
    for split in ("train", "test"):
        tables = tables_of(schema, locale, split)
        for table in tables.all():
            assert len(set(table.key_column.cells.tolist())) == table.rows > 4
            assert len({column.title for column in table.columns}) == len(table.columns)
            for column in table.columns:
                assert all(isinstance(cell, str) and cell == cell.strip() and cell for cell in column.cells)
                assert not any(sign in cell for cell in column.cells for sign in "\n\r\t`\\")
                if column.numbers is not None:
                    assert [column.text(n) for n in column.numbers.tolist()] == column.cells.tolist()
            assert table.of_sort("number")
            assert table is not tables.main or table.of_sort("category")
        if tables.second is not None:
            (link,) = tables.main.of_sort("reference")
            assert set(tables.main.columns[link].cells) <= set(tables.second.key_column.cells)


def test_mail_and_hosts_are_nobodys():
    found = set()
    for schema, split in product(("employees", "subscriptions", "sensors", "events"), ("train", "test")):
        for column in tables_of(schema, split=split).main.columns:
            found |= {cell for cell in column.cells if re.search(r"@|\.example", cell)}
    assert len(found) > 50
    assert all(re.search(r"[@.]example\.(com|org|net)$", cell) for cell in found)


def test_near_duplicates_are_as_many_as_asked():
    def near(distractors):
        table = tables_of("books", rows=200, distractors=distractors).main
        digits = [tuple(sorted(key[-6:])) for key in table.key_column.cells.tolist()]
        authors = next(column for column in table.columns if column.title == "Author").cells.tolist()
        return len(digits) - len(set(zip(digits, authors, strict=True)))

    assert near(0.0) < 3
    assert 35 < near(0.3) < 75


def full_name_grid(locale, split):
    (_, before), (_, behind) = names_in_order(locale, split)
    return [first + last for first in before.tolist() for last in behind.tolist()]


def test_splits_share_no_word_of_a_pool():
    words = 0
    for locale, name in product(("en_US", "zh_CN", "de_DE", "ja_JP"), POOLS):
        train, test = (set(pool(locale, split, name).tolist()) for split in ("train", "test"))
        assert not train & test
        assert len(test) >= 2
        words += len(train) + len(test)
    assert words > 4000
    for locale in LOCALES:
        names = {split: set(full_name_grid(locale, split)) for split in ("train", "test")}
        assert len(names["train"]) > 20_000 > len(names["test"]) * 0.9 > 1000
        assert not names["train"] & names["test"]
    for schema in SCHEMAS.values():
        for field in [*schema.main.fields, *(schema.second.fields if schema.second else ())]:
            content = field.content
            if isinstance(content, Category):
                assert len(content.english) == len(content.chinese) == len(set(content.english)) >= 7
                for language in ("en", "zh"):
                    assert not set(content.values(language, "train")) & set(content.values(language, "test"))
            if isinstance(content, Phrases):
                for first, *_ in (content.english, content.chinese):
                    assert len(for_split(first, "train")) > len(for_split(first, "test")) >= 2


def test_a_pool_does_not_depend_on_those_drawn_before_it():
    def drawn(locale, names):
        pools._words.cache_clear()
        pools._faker.cache_clear()
        return {name: pools._words(locale, name) for name in names}

    for locale in ("en_US", "zh_CN", "es_CL", "ja_JP"):
        assert drawn(locale, POOLS) == drawn(locale, POOLS[::-1])


def test_keys_of_the_splits_are_told_apart_by_their_digits():
    u = Draws(0, "test/keys").uniform(np.arange(20_000))
    for split in ("train", "test"):
        numbers = key_numbers(split, u)
        assert ((digit_sums(numbers) % 5 == 0) == (split == "test")).all()
        assert numbers.min() >= 100_000 - 5
        assert numbers.max() < 1_000_000
        for place in range(5):
            swapped = exchanged(numbers, np.full(len(numbers), place))
            assert (digit_sums(swapped) == digit_sums(numbers)).all()
            assert (swapped != numbers).mean() > 0.7


def sentences(wordings):
    return [*wordings.train, *wordings.test]


def test_wordings_are_many_and_no_sentence_is_in_both_splits():
    count = 0
    for task in TASKS.values():
        for variant, bilingual in task.wordings.items():
            for language in ("en", "zh"):
                wordings = bilingual[language]
                found = sentences(wordings)
                assert len(wordings.train) >= 6, (task.name, variant)
                assert len(wordings.test) >= 2, (task.name, variant)
                assert len(set(found)) == len(found) >= 8
                places = {tuple(sorted({n for _, n, _, _ in Formatter().parse(s) if n} - COMMON)) for s in found}
                assert len(places) <= 2, (task.name, variant, places)
                count += len(found)
    for frame in (OPENING_ONE, OPENING_TWO, RULES, STEPS):
        for language in ("en", "zh"):
            assert not set(frame[language].train) & set(frame[language].test)
    assert count > 14 * 2 * 8


COMMON = {
    "one",
    "a_one",
    "many",
    "its",
    "key",
    "keys",
    "what",
    "other_its",
    "other",
    "a_other",
    "link",
    "others",
    "where",
}
"""Words that a sentence may do without."""


@pytest.mark.parametrize("task", TASKS)
def test_every_sentence_of_a_task_can_be_filled(task):
    """Every wording, not only the ones drawn: no place without a word, and none left over."""
    seen = {}
    for number, language, lacking in product(range(60), LOCALES, (False, True)):
        tables = tables_of("orders" if number % 2 else "flights", language, row=number)
        choices = Choices(Draws(3, f"test/{task}"), number)
        asked = TASKS[task].ask(tables, choices, Request(steps=False, lacking=lacking and TASKS[task].can_lack))
        if asked is None:
            continue
        for sentence in sentences(TASKS[task].wordings[asked.wording][tables.language]):
            text = fill(sentence, asked.words)
            assert "{" not in text
            assert "  " not in text
            assert text[0] == text[0].upper()
            assert text[-1] in ".?。？"
        seen.setdefault((asked.wording, tables.language), 0)
    assert {wording for wording, _ in seen} == set(TASKS[task].wordings)


def test_choices_are_the_same_alone_together_and_again():
    draws = Draws(7, "test/choices")
    alone = [[c.uniform() for _ in range(150)] for c in (Choices(draws, 3, variant) for variant in (0, 5, 9))]
    together = Choices.several(draws, [3, 3, 3], [0, 5, 9], first=24)
    for _ in range(2):
        assert [[c.uniform() for _ in range(150)] for c in together] == alone
        for choices in together:
            choices.restart()
    assert len({u for numbers in alone for u in numbers}) == 450
    one = Choices(draws, 3, 5)
    first = [one.uniform() for _ in range(70)]
    one.restart()
    assert [one.uniform() for _ in range(70)] == first == alone[1][:70]


def test_a_title_is_a_phrase_and_a_unit():
    assert phrase_of("Annual salary (USD)", "en") == ("annual salary", "USD")
    assert phrase_of("Employee ID", "en") == ("employee ID", "")
    assert phrase_of("pH", "en") == ("pH", "")
    assert phrase_of("毛重（公斤）", "zh") == ("毛重", "公斤")


def test_conditions_hold_for_the_rows_they_name():
    met = none = 0
    for number in range(300):
        table = tables_of(list(SCHEMAS)[number % len(SCHEMAS)], LOCALES[number % 2], row=number).main
        choices = Choices(Draws(1, "test/conditions"), number)
        found = choose(table, choices, least=2, most=9)
        empty = beyond(table, choices)
        assert found is None or 2 <= len(found.rows) <= 9
        for conditions in (found, empty):
            if conditions is None:
                continue
            keep = np.ones(table.rows, bool)
            for part in conditions.where:
                column = next(c for c in table.columns if c.title == part["column"])
                limit = part["value"]
                if part["is"] == "=":
                    keep &= np.array([cell == limit for cell in column.cells])
                else:
                    value = float if part["as"] == "number" else str
                    sides = np.array([value(cell) >= value(limit) for cell in column.cells])
                    equal = np.array([value(cell) == value(limit) for cell in column.cells])
                    keep &= sides if part["is"] == ">=" else ~sides | equal
            assert np.flatnonzero(keep).tolist() == conditions.rows.tolist()
            met += len(conditions.rows) > 0
            none += len(conditions.rows) == 0
    assert met > 250
    assert none > 200


@given(st.integers(-(10**9), 10**9), st.integers(0, 10**9))
def test_a_round_number_lies_in_its_range(low, span):
    found = roundest(low, low + span)
    assert low <= found <= low + span
    zeros = len(str(abs(found))) - len(str(abs(found)).rstrip("0")) if found else 12
    assert span < 2 * 10 ** (zeros + 1)


@pytest.mark.parametrize(
    ("total", "count", "decimals", "mean"), [(5, 2, 0, 250), (-5, 8, 0, -63), (1, 3, 1, 3), (1, 8, 2, 0)]
)
def test_means_round_halves_away_from_zero(total, count, decimals, mean):
    assert mean_of(total, count, decimals) == mean


def test_numbers_are_written_with_their_digits():
    assert [number_text(n, 2) for n in (1234, -5, 0, 100)] == ["12.34", "-0.05", "0.00", "1.00"]


CELL = st.text(
    st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" ,;:|\\\"'<>&`{}[]()…，"), min_size=1, max_size=20
)
CELL = CELL.map(str.strip).filter(bool)
RENDERED = [form for forms in FORMATS.values() for form in forms]


@pytest.mark.parametrize("form", RENDERED, ids=lambda form: form.name + str(form.head.__name__))
@given(cells=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6))
def test_what_a_format_writes_is_read_back(form, cells):
    """The audit's parsers against our writers, on any text a cell may hold."""
    if any("```" in cell for pair in cells for cell in pair):
        return
    columns = [
        Column(title=t, phrase=t, unit="", sort="text", cells=as_cells([pair[i] for pair in cells]))
        for i, t in enumerate(("A, title", "B | title"))
    ]
    table = Table(name="T", language="en", one="", many="", its="its", columns=tuple(columns), key=0, rows=len(cells))
    rows = form.rows(table)
    body = Body(
        title="Table: T\n\n",
        head=form.head(table),
        rows=rows,
        sizes=np.array(list(map(len, rows))),
        between=form.between,
        tail=form.tail,
    )
    grid = table_named(f"Read this.\n\n{body.text()}\n\nWhat?", "T", form.name)
    assert grid.titles == ["A, title", "B | title"]
    assert grid.rows == [list(pair) for pair in cells]
    for start, line, pair in zip(body.starts().tolist(), body.rows, cells, strict=True):
        assert body.text()[start : start + len(line)] == line
        assert record_cells(line, form.name) == list(pair)


@pytest.fixture
def shallow_pools(monkeypatch):
    """Pools of a hundred words, forgotten afterwards: a hundred locales are tried here, not the depth of their pools."""
    monkeypatch.setattr(pools, "POOL", 100)
    for cached in (pools.pool, pools._words, generate._heading):
        cached.cache_clear()
    yield
    for cached in (pools.pool, pools._words, generate._heading):
        cached.cache_clear()


def test_every_locale_of_faker_gives_tables(shallow_pools):
    tried = 0
    assert not is_served("fr_QC")
    assert not is_served("xx_YY")
    for locale in filter(is_served, AVAILABLE_LOCALES):
        for split in ("train", "test"):
            for schema in ("orders", "matches", "meters"):
                table = tables_of(schema, locale, split, rows=12).main
                assert table.rows > 4
                assert table.language == ("zh" if locale == "zh_CN" else "en")
                assert all(cell.strip() == cell != "" for column in table.columns for cell in column.cells)
                tried += 1
    assert tried > 600
