"""A model directory with a tokenizer of bytes, and a few needle probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from packing.dataset.manifest import NAME, Manifest
from packing.dataset.schema import NEEDLE
from tests.training.conftest import token_rows, write_dataset

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_tokenizer(*, chat: bool = True) -> PreTrainedTokenizerFast:
    """A token a byte, three special ones behind them."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=SPECIAL[0], additional_special_tokens=SPECIAL[1:], model_max_length=10**9
    )
    made.chat_template = TEMPLATE if chat else None
    return made


def llama(vocabulary: int = 260, **settings: Any) -> Any:
    """A tiny Llama of random weights, drawn wide enough that no two tokens are nearly as likely."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
        **settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def probe(
    number: int, *, length: int = 512, depth: float | None = 50.0, filler: int = 60, **more: Any
) -> dict[str, Any]:
    """A pass key of five digits in a run of noise; `another needle` is its number backwards."""
    key = f"{10407 + 1111 * number}"
    return {
        "id": f"passkey-{length}-{number}",
        "split": "test",
        "task": "passkey",
        "length": length,
        "depth": depth,
        "locale": "en_US",
        "input": "noise " * filler + f"The pass key is {key}. " + "noise " * filler + "What is the pass key?",
        "answer_prefix": " The pass key is",
        "answer_budget": 6,
        "outputs": [key],
        "distractors": [key[::-1]],
        "question_start": 1,
        "messages": [],
        "needles": [],
        "n_tokens": 12 * filler + 60,
        "seed": number,
        **more,
    }


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A directory of Hugging Face's layout: a tiny Llama and the tokenizer of bytes."""
    folder = tmp_path / "model"
    llama().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def needles_of(tmp_path: Path) -> Callable[[Sequence[dict[str, Any]]], Path]:
    """Writes probes as a dataset of the splits test."""

    def build(rows: Sequence[dict[str, Any]]) -> Path:
        return write_dataset(tmp_path / "needles", [rows], schema=NEEDLE, splits=["test"], group_rows=5)

    return build


@pytest.fixture
def tiny_manifest(tmp_path: Path) -> Manifest:
    folder = write_dataset(tmp_path / "tiny", [token_rows(1)])
    return Manifest.from_bytes((folder / NAME).read_bytes())


@pytest.fixture
def config_of(config_of: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The configs of the whole room, for rows of random ids, which no tokenizer made."""

    def build(**sections: Any) -> dict[str, Any]:
        return config_of(**sections | {"data": {"tokenizer": "any"} | sections.get("data", {})})

    return build
