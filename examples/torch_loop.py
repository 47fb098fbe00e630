"""Our rows in a plain torch loop, with a model that keeps its stock attention.

    python examples/torch_loop.py DATASET [--model DIRECTORY] [--steps 20] [--out runs/loop]

The other way round from hf_trainer.py: the model stays on `sdpa` and the collator gives it a float mask, N² numbers a
row. Take it where the attention cannot be chosen; `--boundaries` takes ours instead, without any mask.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import torch
from datasets import load_dataset
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM

from training import ATTENTION, RowCollator, check_attention, set_rope
from training.presets import tiny

ACCUMULATE = 2


def main() -> None:
    """Train a few steps and save the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", help="a directory in Hugging Face's layout")
    parser.add_argument("--boundaries", action="store_true", help="our attention instead of a mask")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", default="runs/loop")
    args = parser.parse_args()

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    attention = ATTENTION if args.boundaries else "sdpa"
    manifest = json.loads((args.dataset / "manifest.json").read_text(encoding="utf-8"))
    config = AutoConfig.from_pretrained(args.model) if args.model else tiny(manifest["tokenizer"]["vocab_size"])
    # Before the model is built: RoPE must tell the rows' positions apart. Afterwards the config is not read again.
    set_rope(config, "auto", needed=manifest["spec"].get("max_position", 131_072))
    how = {"config": config, "attn_implementation": attention, "dtype": torch.float32}
    model = (
        AutoModelForCausalLM.from_pretrained(args.model, **how)
        if args.model
        else AutoModelForCausalLM.from_config(**how)
    )
    model = model.to(device)  # to a device only: .to(torch.bfloat16) would make noise of positions beyond 2,047

    rows = load_dataset("parquet", data_files=str(args.dataset / "data" / "train-*.parquet"), split="train")
    # with_format("numpy") spares making Python lists of every token
    collator = RowCollator(attention="boundaries" if args.boundaries else "mask")
    loader = DataLoader(rows.with_format("numpy"), batch_size=2, shuffle=True, collate_fn=collator)
    check_attention(model, next(iter(loader)))

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))  # epoch after epoch
    model.train()
    for step in range(1, args.steps + 1):
        micro = [next(batches) for _ in range(ACCUMULATE)]
        # Targets of the whole step: a mean of the micro-batches' means would be another gradient.
        targets = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in micro)
        total = 0.0
        for batch in micro:
            on_device = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            loss = model(**on_device, num_items_in_batch=targets).loss
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}  loss {total:.4f}  targets {targets}")
    model.save_pretrained(args.out)


if __name__ == "__main__":
    main()
