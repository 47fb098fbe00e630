"""Models drawn from nothing, to see a run on a CPU in seconds: a Llama, and one of each other way to know positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import BloomConfig, GPT2Config, LlamaConfig, PretrainedConfig, SmolLM3Config

WINDOW = 4096
"""Positions a preset is made for; RoPE is stretched beyond them."""


_SHAPE: Mapping[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": WINDOW,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
}
"""Of those of Llama's kind."""


def tiny(vocab_size: int) -> LlamaConfig:
    """The preset `tiny`: a Llama of 2 layers and 0.1 M parameters beside its tied embedding, to see a run on a CPU in
    seconds; with 32,000 ids nearly all of its time goes into the logits."""
    return LlamaConfig(
        vocab_size=vocab_size,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        **_SHAPE,
    )


def _learned(vocab_size: int) -> GPT2Config:
    """`tiny-learned`: a GPT-2, which looks every position up in a table."""
    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=WINDOW,
        n_embd=64,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )


def _alibi(vocab_size: int) -> BloomConfig:
    """`tiny-alibi`: a Bloom, whose scores fall with the number of tokens between (arXiv 2108.12409)."""
    return BloomConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        n_layer=2,
        n_head=4,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def _nope(vocab_size: int) -> SmolLM3Config:
    """`tiny-nope`: a SmolLM3 none of whose layers rotates, so that order is known by causality alone (arXiv 2305.19466)."""
    return SmolLM3Config(
        vocab_size=vocab_size,
        no_rope_layers=[0, 0],
        pad_token_id=None,
        **_SHAPE,
    )


PRESETS: Mapping[str, Callable[[int], PretrainedConfig]] = {
    "tiny": tiny,
    "tiny-learned": _learned,
    "tiny-alibi": _alibi,
    "tiny-nope": _nope,
}
"""By the name in a config: from a vocabulary's size to the settings of a model."""
