"""RoPE of every kind that is scaled by a rule of its own: right inside its window, refused where rows would change one
another's rotations."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from packing.dataset.errors import SpecError
from tests.training.reference import SIZES, build, sequences
from training.attention import NAME
from training.batch import Batch, lay_out
from training.errors import RopeError
from training.model import hidden_states
from training.positions import set_positions
from training.presets import tiny
from training.rope import SCALED, check_rope, set_rope
from training.stream import Extent, Row

WINDOW, FIRST = 4096, 512
"""The window of a scaled model, and the one it was first trained with."""
RULES: dict[str, dict[str, Any]] = {
    "linear": {"factor": 8.0},
    "dynamic": {"factor": 8.0},
    "yarn": {"factor": 8.0, "original_max_position_embeddings": FIRST},
    "longrope": {
        "factor": 8.0,
        "original_max_position_embeddings": FIRST,
        "short_factor": [1.0] * 8,
        "long_factor": [4.0] * 8,
    },
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": FIRST,
    },
}


def config_of(kind: str) -> LlamaConfig:
    rule = RULES[kind] | {"rope_type": kind, "rope_theta": 10_000.0}
    return LlamaConfig(**SIZES | {"max_position_embeddings": WINDOW, "rope_parameters": rule})


def row_to(position: int) -> Batch:
    """A sequence of 20 tokens that jumps to a position, and one of 12 that counts from 0."""
    positions = np.concatenate([np.arange(10), np.arange(10) + position - 9, np.arange(12)]).astype(np.int32)
    ids = np.random.default_rng(4).integers(0, 61, 32).astype(np.int32)
    lengths = np.array([20, 12], np.int32)
    return lay_out([Row(name="", input_ids=ids, labels=ids, position_ids=positions, seq_lengths=lengths)])


def furthest_from_alone(kind: str, position: int) -> float:
    """How much a packed row differs from its sequences run alone by eager attention with an explicit mask."""
    ours, eager, row = build(config_of(kind), NAME), build(config_of(kind), "eager"), row_to(position)
    with torch.no_grad():
        states = hidden_states(ours, row)[0]
        alone: list[torch.Tensor] = []
        for ids, positions in sequences(row):
            mask = torch.full((len(ids), len(ids)), torch.finfo(torch.float32).min).triu(1)
            call = {"input_ids": ids[None], "position_ids": positions[None], "attention_mask": mask[None, None]}
            alone.append(eager.base_model(**call, use_cache=False).last_hidden_state[0])
    return (torch.cat(alone) - states).abs().max().item()


def largest(kind: str) -> int:
    return (FIRST if kind == "longrope" else WINDOW) - 1


def test_every_kind_is_tried():
    assert tuple(RULES) == SCALED


@pytest.mark.parametrize("kind", RULES)
def test_inside_its_window_each_is_itself(kind: str):
    config = config_of(kind)
    before = copy.deepcopy(config.rope_parameters)
    assert set_rope(config, "auto", needed=largest(kind) + 1) == 10_000
    assert config.rope_parameters == before
    assert furthest_from_alone(kind, largest(kind)) < 1e-3
    model = build(config, NAME)
    assert check_rope(model) == 10_000
    model.model.rotary_emb.inv_freq.mul_(1.1)
    with pytest.raises(RopeError, match=f"other frequencies than RoPE of type {kind}"):
        check_rope(model)


@pytest.mark.parametrize("kind", RULES)
def test_beyond_it_each_is_refused(kind: str):
    fixed = largest(kind) + 1
    for asked, needed in (("auto", fixed + 1), (20_000.0, 100)):
        with pytest.raises(RopeError, match=f"RoPE is of type {kind}, with a rule of its own for {fixed} positions"):
            set_rope(config_of(kind), asked, needed=needed)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_what_the_refusal_is_for(kind: str):
    """Beyond it, the sequence beside is rotated otherwise than alone."""
    assert furthest_from_alone(kind, 8 * largest(kind)) > 0.01


def test_a_kind_that_is_not_known_is_refused():
    config = config_of("linear")
    config.rope_parameters["rope_type"] = "proportional"
    with pytest.raises(RopeError, match="of type proportional, which the worker does not know"):
        set_rope(config, "auto", needed=100)


EXTENT = Extent(position=199_999, token_id=60, row_tokens=100, jumps=True)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("auto", r"go to 199,999, the model was made for 4,096: its RoPE base 10,000 becomes 850,959$"),
        (500_000.0, r"10,000 becomes 500,000, and 850,959 is what positions so far ask for \(rope_base: auto\)$"),
        (10_000.0, r"10,000 becomes 10,000, and 850,959 is what"),
        (900_000.0, r"10,000 becomes 900,000$"),
    ],
)
def test_positions_beyond_the_window_are_said_with_figures(asked: str | float, says: str):
    line = set_positions(tiny(61), asked, EXTENT)
    assert line is not None
    assert re.search(says, line), line


def test_positions_inside_it_are_not_worth_a_line():
    config = tiny(61)
    assert set_positions(config, "auto", replace(EXTENT, position=4095)) is None
    set_positions(config, "auto", EXTENT)
    assert set_positions(config, "auto", EXTENT) is None  # a next stage of the same data
    with pytest.raises(SpecError, match="lowering it would undo"):
        set_positions(config, 10_000.0, EXTENT)
