"""What surveys keep comes back as it was, in two bytes a number where all of them fit."""

from __future__ import annotations

import numpy as np
import pytest

from packing.kept import narrowed
from service.engine.inputs import StoreInputs, write_kept
from service.engine.tokenizers import find_tokenizer
from service.storage.objects import Objects


@pytest.mark.parametrize(
    ("values", "width"),
    [([], 2), ([0, 5, 2**16 - 1], 2), ([0, 2**16], 4), ([3, -1], 4), ([2**31 - 1, -(2**31)], 4)],
    ids=["nothing", "the widest narrow", "one too wide", "a complement", "the widest"],
)
def test_kept_numbers_come_back(tmp_path, values, width):
    objects = Objects.local(tmp_path)
    write_kept(objects, "work", 7, narrowed(np.array(values, np.int32)))
    (place,) = (tmp_path / "work/kept").iterdir()
    assert place.stat().st_size == width * len(values)
    inputs = StoreInputs(objects, {}, find_tokenizer("builtin"), work="work")
    spans = [[0, len(values)]] if values else []
    found = inputs.kept(7, np.array(spans, np.int64).reshape(-1, 2))
    assert found.dtype == (np.uint16 if width == 2 and values else np.int32)
    assert found.tolist() == values


def test_spans_are_read_from_where_they_are(tmp_path):
    objects = Objects.local(tmp_path)
    inputs = StoreInputs(objects, {}, find_tokenizer("builtin"), work="work")
    for number, lowest in enumerate((0, -50)):
        values = np.arange(lowest, 100, dtype=np.int32)
        write_kept(objects, "work", number, narrowed(values))
        spans = np.array([[2, 5], [5, 9], [20, 21]])
        assert inputs.kept(number, spans).tolist() == [*values[2:9].tolist(), int(values[20])]
