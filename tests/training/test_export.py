"""What a run leaves is a model of its family: plain transformers load it and compute what the worker has trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.training.conftest import VOCABULARY, token_rows, write_dataset
from tests.training.reference import FAMILIES
from training import loop
from training.batch import lay_out
from training.config import parse_config
from training.loop import train
from training.model import hidden_states, output_head
from training.stream import Row, contiguous_positions

Build = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("family", FAMILIES)
def test_two_steps_and_back_into_plain_transformers(
    config_of: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
):
    settings = copy.deepcopy(FAMILIES[family])
    settings.vocab_size = VOCABULARY
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16).save_pretrained(tmp_path / "model")
    trained: list[PreTrainedModel] = []
    load = loop.load_model

    def kept(*arguments: Any, **options: Any) -> PreTrainedModel:
        trained.append(load(*arguments, **options))
        return trained[0]

    monkeypatch.setattr(loop, "load_model", kept)
    rows = write_dataset(tmp_path / "far", [token_rows(20, gap=500_000)])  # beyond the model's window
    value = config_of(
        model={"preset": None, "path": str(tmp_path / "model")},
        data={"source": str(rows)},
        optimizer={"warmup": 1, "lr": 1e-2},
        steps=2,
    )
    train(parse_config(value), say=lambda _: None, record=lambda _: None)
    export = tmp_path / "run" / "step-00000002"
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", export))
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name].float(), after[name]) for name in before if name.endswith("proj.weight"))
    ids = torch.randint(0, VOCABULARY, (1, 40), generator=torch.Generator().manual_seed(1))
    row = Row(
        name="",
        input_ids=ids[0].int().numpy(),
        labels=torch.full((40,), -100, dtype=torch.int32).numpy(),
        position_ids=contiguous_positions(torch.tensor([40]).numpy()),
        seq_lengths=torch.tensor([40], dtype=torch.int32).numpy(),
    )
    with torch.no_grad():
        wanted = output_head(trained[0])(hidden_states(trained[0].eval(), lay_out([row])))
        plain = AutoModelForCausalLM.from_pretrained(export, local_files_only=True).eval()
        assert torch.allclose(plain(input_ids=ids).logits, wanted, atol=1e-5)
    assert plain.config._attn_implementation == "sdpa"
    assert plain.config.max_position_embeddings > 400_000
