"""The worker trains on datasets of every kind that holds tokens."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import WORDS, conversation, write_lines
from training.config import parse_config
from training.loop import train


def spec_of_kind(name, tmp_path):
    draws = np.random.default_rng(0)
    texts = [{"text": " ".join(draws.choice(WORDS, size=int(draws.integers(5, 200))))} for _ in range(60)]
    corpus = {"path": str(write_lines(tmp_path / "corpus.jsonl", texts))}
    talk = {"path": str(write_lines(tmp_path / "talk.jsonl", [conversation(i, turns=2) for i in range(60)]))}
    cip = {"kind": "cip", "source": corpus, "sequence_length": 256}
    jumping = {
        "kind": "skipalign",
        "source": talk,
        "strategy": "all",
        "packing": "best_fit",
        "max_length": 256,
        "group": 2,
    }
    parts = [
        {"name": "jumping", "spec": jumping, "weight": 1},
        {"name": "chunks", "spec": cip, "weight": 1},
        {"name": "plain", "source": talk, "weight": 1},
    ]
    return {
        "cip": cip,
        "untied": cip | {"order": "untie_knots"},
        "apart": cip | {"order": "best_fit", "attention": "document"},
        "mixture": {
            "kind": "mixture",
            "parts": parts,
            "total": None,
            "max_length": 256,
            "truncate": "right",
            "packing": "best_fit",
        },
    }[name]


@pytest.mark.parametrize("name", ["cip", "untied", "apart", "mixture"])
def test_a_few_steps_on_it(tmp_path, build, name):
    dataset = build(None, **spec_of_kind(name, tmp_path))
    metrics = []
    config = {
        "model": {"preset": "tiny"},
        "data": {"source": str(dataset)},
        "batch": {"tokens_per_step": 512, "row_tokens": 256},
        "optimizer": {"lr": 3.0e-3, "warmup": 1},
        "steps": 6,
        "checkpoint": {"dir": str(tmp_path / "run"), "every": 6, "keep": 1},
    }
    train(parse_config(config), say=lambda line: None, record=metrics.append)
    losses = [step["loss"] for step in metrics]
    assert len(losses) == 6
    assert np.isfinite(losses).all()
    assert min(losses[3:]) < losses[0], "it learns something"
