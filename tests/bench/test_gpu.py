"""The GPU benchmark's arithmetic against torch's own count, and the whole script on tiny shapes."""

from __future__ import annotations

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM

from tests.bench import gpu


def test_flops_are_those_torch_counts():
    shape, length = gpu.Shape(name="s", hidden=64, inner=96, layers=3, heads=4, key_heads=2, vocabulary=128), 48
    config = shape.config(length)
    config._attn_implementation = "eager"  # the products of attention are then matrix products torch counts
    model = LlamaForCausalLM(config)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.long), use_cache=False).logits.sum().backward()
    # Eager attention computes the half above the diagonal too, and RoPE takes a small product of its own.
    causal = 6 * shape.layers * shape.hidden * length * length
    assert counter.get_total_flops() == pytest.approx(shape.flops_per_token(length) * length + causal, rel=0.01)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_rehearsal_runs_every_line(capsys: pytest.CaptureFixture[str]):
    gpu.main(["--rehearse"])
    rows = re.findall(
        r"^\| tiny \| (\d+) \| (ours|Trainer) \| ([\d,]+) \| none \| none \|", capsys.readouterr().out, re.M
    )
    assert [(length, who) for length, who, _ in rows] == [
        ("32", "ours"), ("32", "Trainer"), ("64", "ours"), ("64", "Trainer"),
    ]  # fmt: skip
    assert all(int(rate.replace(",", "")) > 0 for *_, rate in rows)


def test_a_run_that_does_not_fit_says_so_and_other_errors_are_errors():
    def full() -> list[float]:
        raise gpu.TrainingError("too much") from torch.OutOfMemoryError("full")

    def broken() -> list[float]:
        raise gpu.TrainingError("broken")

    assert gpu.measured(full, 1) == "does not fit"
    with pytest.raises(gpu.TrainingError, match="broken"):
        gpu.measured(broken, 1)


def test_no_run_begins_after_its_time(capsys: pytest.CaptureFixture[str]):
    gpu.main(["--rehearse", "--minutes", "0"])
    assert capsys.readouterr().out.count("time was up") == 4
