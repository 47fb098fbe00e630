"""The collator: nothing of a row is lost, and what a trainer took away is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import LlamaForCausalLM, Trainer, TrainingArguments

from packing.dataset.errors import DatasetError
from tests.training.conftest import token_rows
from training import ColumnsError, RowCollator
from training.batch import lay_out
from training.presets import tiny
from training.stream import Row

COLUMNS = ("input_ids", "labels", "position_ids", "seq_lengths")
ROWS = [
    {
        "input_ids": [5, 6, 7, 8, 9],
        "labels": [-100, 6, 7, -100, 9],
        "position_ids": [0, 1, 90_000, 0, 1],
        "seq_lengths": [3, 2],
    },
    {"input_ids": [1, 2], "labels": [-100, 2], "position_ids": [37, 90_037], "seq_lengths": [2]},
]


def test_boundaries_lay_rows_end_to_end():
    batch = RowCollator()(ROWS)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 1, 2]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, 9, -100, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 90_000, 0, 1, 37, 90_037]]
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 3, 5, 7]
    assert batch["max_length_q"] == batch["max_length_k"] == 3
    assert batch["use_cache"] is False
    assert "attention_mask" not in batch
    assert {batch[name].dtype for name in COLUMNS[:3]} == {torch.int64}
    assert batch["cu_seq_lens_q"].dtype == torch.int32


def test_a_mask_comes_with_a_row_each_padded_to_the_longest():
    batch = RowCollator(attention="mask", pad_token_id=3)(ROWS)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9], [1, 2, 3, 3, 3]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, 9], [-100, 2, -100, -100, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 90_000, 0, 1], [37, 90_037, 0, 1, 2]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5, 7, 10]
    lowest = torch.finfo(torch.float32).min
    assert batch["attention_mask"].shape == (2, 1, 5, 5)
    assert set(batch["attention_mask"].unique().tolist()) == {lowest, 0.0}
    seen = batch["attention_mask"][:, 0] == 0
    assert seen[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]
    assert seen[1].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]
    half = RowCollator(attention="mask", mask_dtype=torch.bfloat16)(ROWS)["attention_mask"]
    assert half.dtype == torch.bfloat16
    assert torch.equal(half == 0, batch["attention_mask"] == 0)


def test_rows_of_a_fixed_length():
    packed = RowCollator(pad_to=9, pad_token_id=3)(ROWS)
    assert packed["input_ids"].tolist() == [[5, 6, 7, 8, 9, 1, 2, 3, 3]]
    assert packed["labels"].tolist()[0][-2:] == [-100, -100]
    assert packed["cu_seq_lens_q"].tolist() == [0, 3, 5, 7, 9]
    assert RowCollator(attention="mask", pad_to=6)(ROWS)["input_ids"].shape == (2, 6)
    with pytest.raises(DatasetError, match="a row of the batch has 7 tokens, more than pad_to \\(6\\)"):
        RowCollator(pad_to=6)(ROWS)


def test_it_says_what_the_workers_own_batches_say():
    rows = token_rows(9, seed=4)
    theirs = RowCollator()(rows)
    ours = lay_out([Row(name="", **{name: row[name] for name in COLUMNS}) for row in rows])
    assert torch.equal(theirs["input_ids"], ours.input_ids)
    assert torch.equal(theirs["position_ids"], ours.position_ids)
    assert torch.equal(theirs["labels"][:, 1:], ours.targets[:, :-1])
    assert torch.equal(theirs["cu_seq_lens_q"], ours.cu_seq_lens)
    assert theirs["max_length_q"] == ours.max_length


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
def test_rows_of_datasets_in_any_format(form: str | None):
    rows = datasets.Dataset.from_list(ROWS)
    batches = list(DataLoader(rows.with_format(form), batch_size=2, collate_fn=RowCollator()))
    assert len(batches) == 1
    for name, value in RowCollator()(ROWS).items():
        found = batches[0][name]
        assert torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value


def changed(**columns: Any) -> dict[str, Any]:
    return {**ROWS[0], **columns}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (changed(position_ids=[0, 1, 2, 3]), "5 input_ids, 5 labels and 4 position_ids"),
        (changed(labels=[-100]), "5 input_ids, 1 labels"),
        (changed(input_ids=[], labels=[], position_ids=[], seq_lengths=[]), "0 input_ids"),
        (changed(seq_lengths=[3, 1]), "do not add up to its 5 tokens"),
        (changed(seq_lengths=[5, 0]), "do not add up to its 5 tokens"),
        (changed(seq_lengths=[2, 3]), "first label is not -100"),
    ],
)
def test_rows_that_are_not_whole_are_named(row: dict[str, Any], what: str):
    with pytest.raises(DatasetError, match=f"row 1 of the batch has .*{what}"):
        RowCollator()([ROWS[0], row])


def test_rows_without_positions_count_only_where_that_is_asked_for():
    bare = [{name: row[name] for name in COLUMNS if name != "position_ids"} for row in ROWS]
    with pytest.raises(ColumnsError, match=r"without position_ids .*remove_unused_columns=False.*missing_positions"):
        RowCollator()(bare)
    counted = RowCollator(missing_positions="count")(bare)
    assert counted["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1]]
    with pytest.raises(ColumnsError, match="without seq_lengths"):
        RowCollator(missing_positions="count")([{"input_ids": [1], "labels": [-100]}])


def test_a_choice_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="'boundaries' or 'mask', not 'flash'"):
        RowCollator(attention="flash")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'refuse' or 'count', not 'guess'"):
        RowCollator(missing_positions="guess")  # type: ignore[arg-type]


def test_the_stock_trainer_that_strips_columns_is_stopped(tmp_path: Path):
    """Trainer's default removes seq_lengths before the collator: it must not go on by guessing."""
    rows = datasets.Dataset.from_list(ROWS * 2)
    arguments = {"output_dir": str(tmp_path), "max_steps": 1, "report_to": "none", "dataloader_pin_memory": False}
    model = LlamaForCausalLM(tiny(16))
    stripped = Trainer(model, TrainingArguments(**arguments), train_dataset=rows, data_collator=RowCollator())
    with pytest.raises(ColumnsError, match=r"without seq_lengths .*set remove_unused_columns=False"):
        stripped.train()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 on forks
def test_workers_of_a_data_loader_can_carry_it():
    rows = datasets.Dataset.from_list(ROWS)
    loader = DataLoader(rows, batch_size=2, collate_fn=RowCollator(), num_workers=1, multiprocessing_context="fork")
    assert np.array_equal(next(iter(loader))["cu_seq_lens_q"], [0, 3, 5, 7])
