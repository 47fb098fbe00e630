"""Copy across the jump by calls that the table in test_call_styles holds to be right, packed and unpacked.

FlexAttention is not among them: torch has no backward pass for it on a CPU. FlashAttention is transformers' own code over emulated
kernels.
"""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from tests.training import test_copy_across_the_jump as copying
from tests.training.test_call_styles import FLASH, TOLD, kernels
from training.batch import Batch

__all__ = ["kernels"]

PACKED = [("sdpa", "4D float"), (FLASH, "cu_seq_lens")]


def built(attention: str) -> PreTrainedModel:
    """Under FlashAttention the name is set once the model is built, past the look for a GPU."""
    model = copying.model_with("sdpa" if attention == FLASH else attention)
    model.config._attn_implementation = attention
    return model


@pytest.mark.parametrize(("attention", "told"), PACKED)
def test_packed(attention: str, told: str, kernels: None):
    def call(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        options = TOLD[told](batch)
        return model.base_model(
            input_ids=batch.input_ids, position_ids=batch.position_ids, **options
        ).last_hidden_state[0]

    assert copying.accuracy_after_training(built(attention), call) > 0.9


def test_one_sequence_a_row_with_a_mask_of_ones():
    def call(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        ids = batch.input_ids.view(-1, copying.LENGTH)
        states = model.base_model(
            input_ids=ids,
            position_ids=batch.position_ids.view(-1, copying.LENGTH),
            attention_mask=torch.ones_like(ids),
            use_cache=False,
        )
        return states.last_hidden_state.flatten(0, 1)

    assert copying.accuracy_after_training(built("sdpa"), call) > 0.9
