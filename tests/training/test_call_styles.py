"""Which ways of calling a stock model are right for rows whose positions jump, on the transformers installed here.

One table, as data. The truth of a cell is a Llama in plain torch that knows no packing. Every cell is also put to the
preflight, which must pass the right ones and fail the wrong ones. An upgrade that changes a cell fails its test with a
sentence that names it: then mend the table here and in docs/trainers.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers import PreTrainedModel, modeling_flash_attention_utils

from tests.training.reference import CASES, packed
from tests.training.test_attention import emulated, error_against_reference, llama
from training import ATTENTION, AttentionError, check_attention
from training.batch import Batch

RIGHT, CUT, LEAKS = "right", "cut", "leaks"
EVERY_CASE = {case[0]: case for case in CASES}
FLASH = "flash_attention_2"

TABLE: dict[tuple[str, str], dict[str, str]] = {
    # (attention, how boundaries are told):                      A one jump, B two from 0, C from 37, F counts on
    ("sdpa", "nothing, no cache"): {"A": CUT, "B": CUT, "C": CUT, "F": LEAKS},
    ("eager", "nothing, no cache"): {"A": CUT, "B": CUT, "C": CUT, "F": LEAKS},
    ("flex_attention", "nothing, no cache"): {"A": CUT, "B": CUT, "C": CUT, "F": LEAKS},
    ("sdpa", "nothing, gradient checkpointing"): {"A": CUT, "B": CUT, "C": CUT, "F": LEAKS},
    ("sdpa", "nothing, cache left on"): {"A": RIGHT, "B": LEAKS, "C": LEAKS, "F": LEAKS},
    ("sdpa", "mask of ones"): {"A": RIGHT, "B": LEAKS, "C": LEAKS, "F": LEAKS},
    ("flex_attention", "mask of ones"): {"A": RIGHT, "B": LEAKS, "C": LEAKS, "F": LEAKS},
    ("sdpa", "mask of document ids"): {"A": RIGHT, "B": LEAKS, "C": LEAKS, "F": LEAKS},
    ("sdpa", "4D bool"): {"A": RIGHT, "B": RIGHT, "C": RIGHT, "F": RIGHT},
    ("eager", "4D bool"): {"A": LEAKS, "B": LEAKS, "C": LEAKS, "F": LEAKS},
    ("flex_attention", "4D bool"): {"A": LEAKS, "B": LEAKS, "C": LEAKS, "F": LEAKS},
    ("sdpa", "4D float"): {"A": RIGHT, "B": RIGHT, "C": RIGHT, "F": RIGHT},
    ("eager", "4D float"): {"A": RIGHT, "B": RIGHT, "C": RIGHT, "F": RIGHT},
    ("flex_attention", "4D float"): {"A": RIGHT, "B": RIGHT, "C": RIGHT, "F": RIGHT},
    ("flex_attention", "BlockMask"): {"A": RIGHT, "B": RIGHT, "C": RIGHT, "F": RIGHT},
    ("sdpa", "cu_seq_lens"): {"A": CUT, "B": CUT, "C": CUT, "F": LEAKS},
    ("flex_attention", "cu_seq_lens"): {"A": CUT, "B": CUT, "C": CUT, "F": LEAKS},
    (FLASH, "nothing, no cache"): {"A": RIGHT, "B": RIGHT, "C": LEAKS, "F": LEAKS},
    (FLASH, "mask of ones"): {"A": RIGHT, "B": RIGHT, "C": LEAKS, "F": LEAKS},
    (FLASH, "cu_seq_lens"): {"A": RIGHT, "B": RIGHT, "C": RIGHT, "F": RIGHT},
    (ATTENTION, "cu_seq_lens"): {"A": RIGHT, "B": RIGHT, "C": RIGHT, "F": RIGHT},
}
"""C under FlashAttention merges the documents, and so does F: only tokens at the row's smallest position are starts."""


IN_WORDS = {
    "nothing, `use_cache=False`": ["nothing, no cache"],
    "nothing, gradient checkpointing": ["nothing, gradient checkpointing"],
    "nothing, the cache left on": ["nothing, cache left on"],
    "nothing, or a mask of ones": ["nothing, no cache", "mask of ones"],
    "a mask of ones": ["mask of ones"],
    "a mask of document ids": ["mask of document ids"],
    "a 4D bool mask": ["4D bool"],
    "a 4D float mask": ["4D float"],
    "a `BlockMask`": ["BlockMask"],
    "`cu_seq_lens`": ["cu_seq_lens"],
    "the same": ["cu_seq_lens"],
}
"""How docs/trainers.md begins to say what boundaries are told by."""


def test_the_documentation_has_this_table():
    text = (Path(__file__).parents[2] / "docs" / "trainers.md").read_text(encoding="utf-8")
    found: dict[tuple[str, str], dict[str, str]] = {}
    for line in text.partition("| attention |")[2].partition("\n\n")[0].splitlines()[2:]:
        names, words, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        told = next(keys for start, keys in IN_WORDS.items() if words.startswith(start))
        for name in re.findall("`(.*?)`", names):
            found |= {(name, key): dict(zip(EVERY_CASE, cells, strict=True)) for key in told}
    assert found == TABLE


def allowed(batch: Batch) -> torch.Tensor:
    """Bool [N, N]: causal inside sequences."""
    numbers = torch.repeat_interleave(torch.arange(len(batch.cu_seq_lens) - 1), batch.cu_seq_lens.diff())
    return (numbers[:, None] == numbers).tril()


def block_mask(batch: Batch) -> Any:
    seen = allowed(batch)
    size = batch.tokens
    return create_block_mask(lambda b, h, q, k: seen[q, k], None, None, size, size, device="cpu")


def boundaries(batch: Batch) -> dict[str, Any]:
    ends = {"cu_seq_lens_q": batch.cu_seq_lens, "cu_seq_lens_k": batch.cu_seq_lens}
    return ends | {"max_length_q": batch.max_length, "max_length_k": batch.max_length, "use_cache": False}


TOLD: dict[str, Callable[[Batch], dict[str, Any]]] = {
    "nothing, no cache": lambda batch: {"use_cache": False},
    "nothing, gradient checkpointing": lambda batch: {},
    "nothing, cache left on": lambda batch: {},
    "mask of ones": lambda batch: {"attention_mask": torch.ones_like(batch.input_ids), "use_cache": False},
    "mask of document ids": lambda batch: {
        "attention_mask": 1 + torch.bucketize(torch.arange(batch.tokens), batch.cu_seq_lens[1:], right=True)[None],
        "use_cache": False,
    },
    "4D bool": lambda batch: {"attention_mask": allowed(batch)[None, None], "use_cache": False},
    "4D float": lambda batch: {
        "attention_mask": torch.zeros(1, 1, batch.tokens, batch.tokens).masked_fill_(
            ~allowed(batch), torch.finfo(torch.float32).min
        ),
        "use_cache": False,
    },
    "BlockMask": lambda batch: {"attention_mask": block_mask(batch), "use_cache": False},
    "cu_seq_lens": boundaries,
}


def flash(q: Any, k: Any, v: Any, softmax_scale: float, causal: bool) -> torch.Tensor:
    """What flash-attn documents of its plain call: [B, N, H, D], causal."""
    assert causal
    assert len(q) == 1
    ends = torch.tensor([0, q.shape[1]], dtype=torch.int32)
    return varlen(q[0], k[0], v[0], ends, ends, q.shape[1], k.shape[1], softmax_scale, causal)[None]


def varlen(
    q: Any,
    k: Any,
    v: Any,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float,
    causal: bool,
) -> torch.Tensor:
    """And of its call for several sequences: [T, H, D]."""
    assert causal
    lengths, window = (int(max_seqlen_q), int(max_seqlen_k)), (-1, 0)
    arguments = (q.contiguous(), k, v, cu_seqlens_q, cu_seqlens_k, *lengths)
    return emulated(*arguments, scale=softmax_scale, window_size=window, enable_gqa=True)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' own FlashAttention code over emulated kernels, its flex code over flex attention uncompiled."""
    code = modeling_flash_attention_utils
    monkeypatch.setattr(code, "_loaded_implementation", FLASH)
    monkeypatch.setattr(code, "_flash_fn", flash, raising=False)
    monkeypatch.setattr(code, "_flash_varlen_fn", varlen, raising=False)
    for name in ("_flash_with_kvcache_fn", "_process_with_kvcache_kwargs_fn"):
        monkeypatch.setattr(code, name, None, raising=False)
    monkeypatch.setattr(code, "_pad_fn", code._pad_input, raising=False)
    monkeypatch.setattr(code, "_unpad_fn", code._unpad_input, raising=False)
    process = code._lazy_define_process_function(varlen)
    monkeypatch.setattr(code, "_process_flash_kwargs_fn", process, raising=False)
    monkeypatch.setattr("transformers.integrations.flex_attention.WrappedFlexAttention", lambda training: uncompiled)
    monkeypatch.setattr("transformers.masking_utils.create_block_mask", uncompiled_mask)


def uncompiled() -> Callable[..., Any]:
    return flex_attention


def uncompiled_mask(**options: Any) -> Any:
    return create_block_mask(**options | {"_compile": False})


def model_for(attention: str, told: str) -> PreTrainedModel:
    """The tiny Llama; under FlashAttention the name is set once the model is built, past the look for a GPU."""
    model = llama("sdpa" if attention == FLASH else attention)
    model.config._attn_implementation = attention
    if told == "nothing, gradient checkpointing":
        model.activation_checkpointing_enable()
    return model.train()


def say(cell: str, found: str, declared: str) -> str:
    return f"transformers {transformers.__version__}: {cell} was {declared}, is now {found}: mend the table"


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("case", EVERY_CASE)
@pytest.mark.parametrize(("attention", "told"), TABLE)
def test_the_table_of_call_styles(attention: str, told: str, case: str, kernels: None):
    declared = TABLE[attention, told][case]
    cell = f"{attention} with {told}, case {EVERY_CASE[case]},"
    model, batch = model_for(attention, told), packed(EVERY_CASE[case])
    call = {"input_ids": batch.input_ids.long(), "position_ids": batch.position_ids.long(), **TOLD[told](batch)}
    with torch.no_grad():
        error = error_against_reference(model, batch, model.base_model(**call).last_hidden_state[0])
    assert (error < 1e-3) == (declared == RIGHT), say(cell, "right" if error < 1e-3 else "wrong", declared)
    assert error < 1e-3 or error > 0.1, f"{cell} is off by {error}: neither right nor plainly wrong"
    try:
        check_attention(model, call, seq_lengths=[batch.cu_seq_lens.diff().tolist()])
        found = RIGHT
    except AttentionError as failure:
        found = CUT if failure.message.startswith("attention is cut") else LEAKS
    assert found == declared, "by the preflight, " + say(cell, found, declared)
