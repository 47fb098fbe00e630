"""The proof: the stock Hugging Face Trainer with our collator reaches the true loss, and with stock columns the blind
one.

The truth is a Llama in plain torch, one sequence at a time; blind is the same with every sequence cut where its
positions jump.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.nn.functional import cross_entropy
from transformers import (
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from tests.training import test_copy_across_the_jump as copying
from tests.training.reference import SIZES, plain_states
from tests.training.reference import build as weighty
from training import ATTENTION, RowCollator, check_attention

VOCABULARY = 512
ROWS = 6
SETTINGS: dict[str, Any] = {
    "report_to": "none",
    "dataloader_pin_memory": False,
    "save_strategy": "no",
    "disable_tqdm": True,
}


@pytest.fixture(params=["none", "best_fit"])
def rows(request: pytest.FixtureRequest, build: Callable[..., Path], talks: Path, tmp_path: Path) -> Dataset:
    """Rows of a SkipAlign dataset, unpacked and packed, every one with a jump."""
    folder = build(talks, strategy="outer", probability=1.0, max_length=512, packing=request.param)
    files = str(folder / "data" / "train-*.parquet")
    whole = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    packed = request.param == "best_fit"
    jumping = whole.filter(lambda row: row["skipped"] and (len(row["seq_lengths"]) > 1) == packed)
    return jumping.select(range(ROWS)).map(small_ids)


def small_ids(row: dict[str, Any]) -> dict[str, Any]:
    """The row with ids of a small vocabulary, to spare logits; where it jumps and what is trained stays."""
    return {name: [i if i < 0 else i % VOCABULARY for i in row[name]] for name in ("input_ids", "labels")}


def model_with(attention: str) -> PreTrainedModel:
    return weighty(LlamaConfig(**SIZES | {"vocab_size": VOCABULARY}), attention)


def reference_loss(model: PreTrainedModel, rows: Dataset, *, cut: bool) -> float:
    """Mean of −log p over all targets of all rows."""
    total, targets = 0.0, 0
    head = model.state_dict()["lm_head.weight"]
    for row in rows:
        ids, labels, positions = (torch.tensor(row[name]) for name in ("input_ids", "labels", "position_ids"))
        lengths = torch.tensor(row["seq_lengths"])
        for sequence in torch.arange(len(ids)).split(lengths.tolist()):
            steps = positions[sequence].diff()
            places = [0, *((steps != 1).nonzero()[:, 0] + 1).tolist(), len(sequence)] if cut else [0, len(sequence)]
            parts = sequence.split(np.diff(places).tolist())
            states = torch.cat([plain_states(model, ids[part], positions[part]) for part in parts])
            wanted = labels[sequence][1:]
            total += cross_entropy(states[:-1] @ head.T, wanted, reduction="sum").item()
            targets += int((wanted != -100).sum())
    return total / targets


class Gradients(TrainerCallback):
    """Keeps the gradients as the optimizer gets them."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.found = torch.cat([p.grad.flatten().clone() for p in given["model"].parameters()])


def trained(model: PreTrainedModel, rows: Dataset, folder: Path, **options: Any) -> tuple[float, torch.Tensor]:
    """Loss and gradients of one optimizer step over all the rows."""
    batch = options.pop("batch")
    assert ROWS % batch == 0
    collator = options.pop("collator")
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        learning_rate=0.0,
        max_grad_norm=0.0,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=ROWS // batch,
        **SETTINGS,
        **options,
    )
    gradients = Gradients()
    how = {"data_collator": collator} if collator else {}
    trainer = Trainer(model, arguments, train_dataset=rows, callbacks=[gradients], **how)
    return trainer.train().training_loss, gradients.found


@pytest.mark.parametrize(
    ("attention", "collator"), [(ATTENTION, RowCollator()), ("sdpa", RowCollator(attention="mask"))]
)
def test_with_our_collator_the_trainer_reaches_the_true_loss(
    attention: str, collator: RowCollator, rows: Dataset, tmp_path: Path
):
    model = model_with(attention)
    true, blind = (reference_loss(model, rows, cut=cut) for cut in (False, True))
    assert abs(true - blind) > 0.01
    check_attention(model, collator(list(rows)))
    whole, gradients = trained(model, rows, tmp_path, batch=ROWS, collator=collator, remove_unused_columns=False)
    assert whole == pytest.approx(true, abs=1e-4)
    # Micro-batches of one row have unlike counts of targets: a mean of their means would be another loss.
    accumulated, theirs = trained(model, rows, tmp_path, batch=1, collator=collator, remove_unused_columns=False)
    assert accumulated == pytest.approx(true, abs=1e-4)
    assert (theirs - gradients).norm() < 1e-4 * gradients.norm()


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")  # TRL's own default
def test_trl_reaches_it_too(rows: Dataset, tmp_path: Path):
    model = model_with(ATTENTION)
    arguments = SFTConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        learning_rate=0.0,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=ROWS,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        bf16=False,
        **SETTINGS,
    )
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"end": 0}, "end")), eos_token="end")
    how = {"data_collator": RowCollator(), "processing_class": words, "train_dataset": rows}
    found = SFTTrainer(model, arguments, **how).train().training_loss
    assert found == pytest.approx(reference_loss(model, rows, cut=False), abs=1e-4)


def test_gradient_checkpointing_changes_nothing(rows: Dataset, tmp_path: Path):
    model = model_with(ATTENTION)
    options = {"remove_unused_columns": False, "batch": 2, "collator": RowCollator()}
    plain, gradients = trained(model, rows, tmp_path, **options)
    again, theirs = trained(model, rows, tmp_path, activation_checkpointing=True, **options)
    assert again == pytest.approx(plain, abs=1e-6)
    assert (theirs - gradients).norm() < 1e-5 * gradients.norm()


def test_with_the_stock_columns_it_is_blind(rows: Dataset, tmp_path: Path):
    """input_ids, labels and position_ids through the default collator, nothing said of boundaries. Should this fail one
    day, transformers has mended its trap."""
    model = model_with("sdpa")
    true, blind = (reference_loss(model, rows, cut=cut) for cut in (False, True))
    found, _ = trained(model, rows, tmp_path, batch=1, collator=None)
    assert found == pytest.approx(blind, abs=1e-4)
    assert abs(found - true) > 0.01


def test_a_response_learns_to_copy_its_instruction_through_the_stock_trainer(tmp_path: Path):
    """Copy across the jump, 4.9% by chance, with nothing of ours but attention and collator."""
    rng = np.random.default_rng(0)
    batches = [copying.instructions(rng, copying.SEQUENCES) for _ in range(copying.STEPS)]
    columns = {
        "input_ids": np.concatenate([batch.input_ids[0].reshape(-1, copying.LENGTH) for batch in batches]),
        "position_ids": np.concatenate([batch.position_ids[0].reshape(-1, copying.LENGTH) for batch in batches]),
    }
    columns["labels"] = np.where(np.arange(copying.LENGTH) < copying.COPIED + 2, -100, columns["input_ids"])
    columns["seq_lengths"] = np.full((len(columns["labels"]), 1), copying.LENGTH)
    model = copying.model_with(ATTENTION)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=copying.STEPS,
        per_device_train_batch_size=copying.SEQUENCES,
        learning_rate=copying.LR,
        adam_beta2=0.98,
        warmup_steps=20,
        remove_unused_columns=False,
        logging_strategy="no",
        **SETTINGS,
    )
    rows = Dataset.from_dict(columns).with_format("numpy")
    Trainer(model, arguments, train_dataset=rows, data_collator=RowCollator()).train()
    fresh = copying.instructions(np.random.default_rng(99), 200)
    asked = fresh.targets[0] != -100
    with torch.no_grad():
        guessed = model.lm_head(copying.our_call(model.eval(), fresh))[asked].argmax(-1)
    assert (guessed == fresh.targets[0][asked]).float().mean() > 0.8 > 10 * copying.CHANCE
