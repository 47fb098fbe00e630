"""Small models of every family, packed rows whose positions jump, and a decoder in plain torch to compare them with."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch.nn.functional import silu
from transformers import (
    AutoModelForCausalLM,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from training.batch import Batch, lay_out
from training.stream import Row

GAP = 150_000
BLOCK = 12
BASE = 260_000.0
SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 400_000,
    "rope_parameters": {"rope_type": "default", "rope_theta": BASE},
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

FAMILIES = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "olmo2": Olmo2Config(**SIZES),
    "phi3": Phi3Config(
        **SIZES | {"rope_parameters": SIZES["rope_parameters"] | {"partial_rotary_factor": 0.5}},
        original_max_position_embeddings=400_000,
    ),
    "smollm3": SmolLM3Config(**SIZES, no_rope_layers=[1, 0, 1]),
    "granite": GraniteConfig(
        **SIZES, embedding_multiplier=3.0, residual_multiplier=0.5, attention_multiplier=0.2, logits_scaling=4.0
    ),
}


def jump(start: int, length: int = 2 * BLOCK) -> np.ndarray:
    return start + np.arange(length) + (np.arange(length) >= length // 2) * GAP


CASES = {
    "A: one sequence with a jump": [jump(0)],
    "B: two, both from 0": [jump(0), jump(0, 20)],
    "C: the second starts at 37": [jump(0), jump(37, 20)],
    "F: the second goes on counting": [np.arange(24), np.arange(24, 40)],
}


def packed(case: str) -> Batch:
    rng = np.random.default_rng(5)
    rows = [
        Row(
            name=case,
            input_ids=rng.integers(0, 61, len(positions)).astype(np.int32),
            labels=np.full(len(positions), -100, np.int32),
            position_ids=positions.astype(np.int32),
            seq_lengths=np.array([len(positions)], np.int32),
        )
        for positions in CASES[case]
    ]
    return lay_out(rows)


def sequences(batch: Batch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    lengths = batch.cu_seq_lens.diff().tolist()
    return list(zip(batch.input_ids[0].split(lengths), batch.position_ids[0].split(lengths), strict=True))


def build(config: Any, attention: str) -> PreTrainedModel:
    """A model whose weights are large enough for attention to matter, and whose biases and norms are not what they are
    drawn as."""
    torch.manual_seed(1)
    # A copy: transformers writes the attention's name into the config it is given, for every model that shares it.
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * (0.3 if parameter.ndim >= 2 else 0.1)
    return model


def plain_states(model: PreTrainedModel, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The last hidden states [n, hidden] of one sequence: nothing of transformers but the weights and the settings."""
    config: Any = model.config
    weights = dict(model.named_parameters())
    x = weights["model.embed_tokens.weight"][ids.long()] * getattr(config, "embedding_multiplier", 1.0)
    share = getattr(config, "residual_multiplier", 1.0)
    for number in range(config.num_hidden_layers):
        layer = {
            name.removeprefix(f"model.layers.{number}."): w
            for name, w in weights.items()
            if f"layers.{number}." in name
        }
        if config.model_type == "olmo2":  # norms behind, not before
            x = x + _norm(_attend(config, layer, number, x, positions), layer["post_attention_layernorm.weight"])
            x = x + _norm(_feed(layer, x), layer["post_feedforward_layernorm.weight"])
        else:
            x = x + _attend(config, layer, number, _norm(x, layer["input_layernorm.weight"]), positions) * share
            x = x + _feed(layer, _norm(x, layer["post_attention_layernorm.weight"])) * share
    return _norm(x, weights["model.norm.weight"])


def _norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * weight


def _feed(layer: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    if "mlp.gate_up_proj.weight" in layer:
        gate, up = (x @ layer["mlp.gate_up_proj.weight"].T).chunk(2, -1)
    else:
        gate, up = x @ layer["mlp.gate_proj.weight"].T, x @ layer["mlp.up_proj.weight"].T
    return (silu(gate) * up) @ layer["mlp.down_proj.weight"].T


def _attend(
    config: Any, layer: dict[str, torch.Tensor], number: int, x: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    n, heads, key_heads, size = len(x), 4, 2, 16
    if "self_attn.qkv_proj.weight" in layer:
        flat = (x @ layer["self_attn.qkv_proj.weight"].T).split([heads * size, key_heads * size, key_heads * size], -1)
    else:
        flat = tuple(
            x @ layer[f"self_attn.{p}_proj.weight"].T + layer.get(f"self_attn.{p}_proj.bias", 0.0) for p in "qkv"
        )
    shaped = list(flat)
    for place, name in enumerate(("q_norm", "k_norm")):
        weight = layer.get(f"self_attn.{name}.weight")
        if weight is not None:  # over a head in Qwen3, over all of them in OLMo2
            shaped[place] = _norm(shaped[place].unflatten(-1, (-1, len(weight))), weight).flatten(1)
    q, k, v = (t.unflatten(-1, (-1, size)).transpose(0, 1) for t in shaped)
    if getattr(config, "no_rope_layers", None) is None or config.no_rope_layers[number]:
        q, k = _rotate(config, q, positions), _rotate(config, k, positions)
    k, v = k.repeat_interleave(2, 0), v.repeat_interleave(2, 0)
    scale = getattr(config, "attention_multiplier", size**-0.5)
    scores = (q @ k.transpose(1, 2) * scale).masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1) @ layer["self_attn.o_proj.weight"].T


def _rotate(config: Any, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    size = int(x.shape[-1] * config.rope_parameters.get("partial_rotary_factor", 1.0))
    inv_freq = 1.0 / BASE ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    phase = positions.float()[:, None] * inv_freq
    cos, sin = phase.cos().repeat(1, 2), phase.sin().repeat(1, 2)
    turned, rest = x[..., :size], x[..., size:]
    half = torch.cat([-turned[..., size // 2 :], turned[..., : size // 2]], -1)
    return torch.cat([turned * cos + half * sin, rest], -1)
