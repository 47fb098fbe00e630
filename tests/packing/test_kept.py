"""Runs that surveys kept: found wherever they are, in the width that they were kept in, and checked."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from packing.chat_tokens import offsets_of
from packing.dataset.errors import SourceError
from packing.kept import checksums, kept_runs, narrowed, read_kept

LENGTHS = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.int64)
SURVEY = np.array([1, 0, 1, 1, 0, 0, 1, 0])


def surveys(*widest):
    """Eight runs of numbers up to `widest`, kept by two surveys in the order of their numbers; the table that names them, shuffled."""
    draws = np.random.default_rng(5)
    runs = [draws.integers(0, widest[s], n).astype(np.int32) for s, n in zip(SURVEY, LENGTHS, strict=True)]
    kept, offset, checksum = [], np.zeros(8, np.int64), np.zeros(8, np.uint32)
    for number, most in enumerate(widest):
        of = np.flatnonzero(number == SURVEY)
        runs[of[0]][0] = most  # so that the width is what it is
        values = narrowed(np.concatenate([runs[i] for i in of]))
        kept.append(values)
        offset[of], checksum[of] = offsets_of(LENGTHS[of])[:-1], checksums(values, LENGTHS[of])
    order = draws.permutation(8)
    table = pa.table({"survey": SURVEY[order], "offset": offset[order], "checksum": checksum[order]})
    return kept, [runs[i] for i in order], table, LENGTHS[order]


def inputs_of(kept):
    return SimpleNamespace(kept=lambda number, spans: np.concatenate([kept[number][a:b] for a, b in spans.tolist()]))


@pytest.mark.parametrize(
    ("widest", "behind", "kind"),
    [((9, 2**16 - 1), 2**16 - 1, np.uint16), ((9, 2**16), 7, np.int32), ((9, 9), 2**16, np.int32)],
    ids=["all narrow", "one survey wide", "what is behind wide"],
)
def test_runs_are_found_in_the_width_that_all_of_them_fit(widest, behind, kind):
    kept, runs, table, lengths = surveys(*widest)
    assert [values.dtype == np.uint16 for values in kept] == [most < 2**16 for most in widest]
    pool, starts = kept_runs(inputs_of(kept), table, lengths, behind=np.array([behind, 1], np.int32))
    assert pool.dtype == kind
    assert len(pool) == LENGTHS.sum() + 2
    assert [pool[a : a + n].tolist() for a, n in zip(starts, lengths, strict=True)] == [run.tolist() for run in runs]
    assert pool[-2:].tolist() == [behind, 1]
    found = read_kept(inputs_of(kept), table, lengths)
    assert found.dtype == np.int32
    assert found.tolist() == np.concatenate(runs).tolist()


@pytest.mark.parametrize("number", [0, 1])
def test_a_number_that_changed_is_noticed(number):
    kept, _, table, lengths = surveys(50, 2**20)
    kept[number][2] ^= 1
    with pytest.raises(SourceError, match="damaged in the store"):
        kept_runs(inputs_of(kept), table, lengths)
