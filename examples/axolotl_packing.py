"""axolotl's own packing with our rows: what its sampler and collator do to them, and how to hand the result to a model.

    make axolotl                                     # a venv of its own: axolotl pins other versions of transformers and more
    .venv-axolotl/bin/python examples/axolotl_packing.py DATASET

axolotl's collator for packed batches keeps `position_ids` that rows bring along and numbers the rows in `attention_mask`
(1, 1, …, 2, 2, …). Its `add_position_ids`, which `sample_packing: true` runs beforehand, is what rewrites them: leave it out. The row
numbers then are the boundaries, and our attention takes them; with `attention_mask` handed to a stock model, rows would see each other.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from packing.dataset.reader import open_parquet, read_manifest, read_rows
from packing.tokenizers import BUILTIN
from training import ATTENTION, check_attention

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from axolotl.utils.collators.batching import V2BatchSamplerDataCollatorForSeq2Seq
    from axolotl.utils.samplers.multipack import MultipackBatchSampler

COLUMNS = ("input_ids", "labels", "position_ids")
ROW_TOKENS = 4096
FEW = 64


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The first rows of a dataset that was built with `packing: none`, a sequence each: packing is axolotl's here."""
    manifest = read_manifest(folder)
    rows = [
        row
        for file in manifest.files
        for batch in read_rows(open_parquet(folder / file.path, name=file.path), name=file.path)
        for row in batch.slice(0, FEW).to_pylist()
    ][:FEW]
    assert all(len(row["seq_lengths"]) == 1 for row in rows), "build the dataset with packing: none and group: 1"
    return rows


def boundaries(attention_mask: torch.Tensor) -> dict[str, Any]:
    """cu_seq_lens_* and max_length_* from axolotl's row numbers [1, N]; padding (0) is a sequence of its own."""
    numbers = attention_mask[0]
    starts = torch.cat([torch.zeros(1, dtype=torch.long), torch.nonzero(numbers.diff()).flatten() + 1])
    bounds = torch.cat([starts, torch.tensor([len(numbers)])]).to(torch.int32)
    longest = int(bounds.diff().max())
    return {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}


def main(folder: Path) -> None:
    """Pack with axolotl, check that nothing was lost, and that a model sees each row whole and no other."""
    rows = rows_of(folder)
    lengths = np.array([row["n_tokens"] for row in rows])
    sampler = MultipackBatchSampler(
        range(len(rows)), batch_size=1, batch_max_len=ROW_TOKENS, lengths=lengths, bin_size=200, num_processes=1
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(BUILTIN / "tokenizer.json"), pad_token="<|endoftext|>")
    collator = V2BatchSamplerDataCollatorForSeq2Seq(tokenizer, padding=False)
    config = LlamaConfig(
        vocab_size=32768, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    model = LlamaForCausalLM._from_config(config, attn_implementation=ATTENTION)
    for number, packs in enumerate(sampler):
        chosen = [
            {**{name: rows[i][name] for name in COLUMNS}, "attention_mask": [1] * int(lengths[i])} for i in packs[0]
        ]
        packed = collator([chosen])
        expected = [position for row in chosen for position in row["position_ids"]]
        assert packed["position_ids"][0].tolist() == expected, "axolotl has rewritten the positions"
        batch = {name: packed[name] for name in COLUMNS} | boundaries(packed["attention_mask"]) | {"use_cache": False}
        if number == 0:
            check_attention(model, batch)
        loss = model(**{k: v for k, v in batch.items() if k != "labels"}, labels=batch["labels"]).loss
        print(
            f"pack {number}: {len(chosen)} rows, {len(expected)} tokens, positions to {max(expected)}, loss {loss:.3f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
