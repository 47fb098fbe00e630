"""Rows that a survey kept come back as they were, and damaged ones do not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packing import skipalign, skipalign_kept
from packing.chat_tokens import ChatTokens, offsets_of
from packing.dataset.errors import SourceError
from packing.dataset.reader import read_manifest
from packing.skipalign_tokens import Batch, select
from tests.conftest import conversation, write_lines

ROWS = st.lists(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=1)), min_size=1
    ),
    max_size=4,
)


def batch_of(rows, first):
    """Rows as [(is response, [(id, trained)])], numbered by twos from `first`."""
    blocks = [block for row in rows for block in row]
    tokens = [token for _, inside in blocks for token in inside]
    return Batch(
        ids=[f"r{first + 2 * i}" for i in range(len(rows))],
        index=first + 2 * np.arange(len(rows)),
        tokens=ChatTokens(
            ids=np.array([i for i, _ in tokens], np.int32),
            trained=np.array([flag for _, flag in tokens], bool),
            offsets=offsets_of(np.array([sum(len(inside) for _, inside in row) for row in rows], np.int64)),
            responses=np.array([flag for flag, _ in blocks], bool),
            lengths=np.array([len(inside) for _, inside in blocks], np.int64),
            block_offsets=offsets_of(np.array([len(row) for row in rows], np.int64)),
        ),
    )


class Kept:
    """Inputs that hold what two surveys kept."""

    def __init__(self, surveys):
        self.surveys = surveys

    def kept(self, number, spans):
        return np.concatenate([self.surveys[number].kept[a:b] for a, b in spans.tolist()])


@given(ROWS, ROWS)
def test_rows_come_back_as_they_were(one, two):
    batches = [batch_of(one, 0), batch_of(two, 10)]
    pieces = [SimpleNamespace(rows=10, first_index=first) for first in (0, 10)]
    surveys = [skipalign_kept.keep([batch], piece) for batch, piece in zip(batches, pieces, strict=True)]
    table = skipalign_kept.rows_of([survey.table for survey in surveys])
    assert table.num_rows == 20
    wanted = np.flatnonzero(table.column("n_tokens").to_numpy())
    assert wanted.tolist() == [i for batch in batches for i in batch.index.tolist()]
    if not len(wanted):
        return
    back = skipalign_kept.read(table.take(pa.array(wanted)), Kept(surveys), wanted)
    assert back.ids == [name for batch in batches for name in batch.ids]
    assert back.index.tolist() == wanted.tolist()
    for name in ("ids", "trained", "responses", "lengths"):
        assert np.array_equal(getattr(back.tokens, name), np.concatenate([getattr(b.tokens, name) for b in batches]))
    again = np.concatenate([wanted[::-1], wanted[:1]])
    mixed = skipalign_kept.read(table.take(pa.array(wanted)), Kept(surveys), again)
    chosen = select(back, np.searchsorted(wanted, again))
    assert (mixed.ids, mixed.index.tolist()) == (chosen.ids, chosen.index.tolist())
    for name in ChatTokens.__slots__:
        assert np.array_equal(getattr(mixed.tokens, name), getattr(chosen.tokens, name)), name
    turns = [sum(flag for flag, _ in row) for row in [*one, *two]]
    assert table.column("turns").to_numpy()[wanted].tolist() == turns
    assert np.diff(back.tokens.block_offsets).tolist() == [len(row) for row in [*one, *two]]


def test_a_bit_that_flipped_is_found():
    survey = skipalign_kept.keep([batch_of([[(True, [(7, True)])]], 0)], SimpleNamespace(rows=1, first_index=0))
    table = skipalign_kept.rows_of([survey.table])
    assert skipalign_kept.read(table, Kept([survey]), np.zeros(1, np.int64)).tokens.ids.tolist() == [7]
    for place in range(len(survey.kept)):
        survey.kept[place] ^= 1
        with pytest.raises(SourceError, match="damaged in the store"):
            skipalign_kept.read(table, Kept([survey]), np.zeros(1, np.int64))
        survey.kept[place] ^= 1


@pytest.mark.parametrize("fields", [{"packing": "best_fit"}, {"group": 2, "variants": 2}])
def test_composed_rows_are_tokenised_and_counted_once(tmp_path, build, monkeypatch, fields):
    source = write_lines(
        tmp_path / "s.jsonl", [*(conversation(i, turns=1 + i % 2) for i in range(90)), {"messages": []}]
    )
    made, batches = [], skipalign._batches

    def counted(spec, inputs, index, tally):
        made.append(len(index))
        return batches(spec, inputs, index, tally)

    monkeypatch.setattr(skipalign, "_batches", counted)
    folder = build(source, strategy="all", shard_rows=4, max_length=300, on_bad_row="skip", **fields)
    manifest = read_manifest(folder)
    assert len(manifest.files) > 5
    assert made == [91]
    assert manifest.counts["source_rows"] == 91
    assert manifest.counts["rows_rejected"] == 1
    assert manifest.skipped_inputs["count"] == 1
