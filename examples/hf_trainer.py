"""Our rows in the stock Hugging Face Trainer.

    python examples/hf_trainer.py DATASET [--model DIRECTORY] [--steps 20] [--out runs/hf]

DATASET is a directory that `longweave build` wrote. Without --model a small Llama with random weights is trained, to see
it run on a CPU. Three lines matter: the model's attention, the collator, and remove_unused_columns=False.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from datasets import load_dataset
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from training import ATTENTION, RowCollator, check_attention, set_rope
from training.presets import tiny


def main() -> None:
    """Train a few steps and save the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", help="a directory in Hugging Face's layout")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", default="runs/hf")
    args = parser.parse_args()

    rows = load_dataset("parquet", data_files=str(args.dataset / "data" / "train-*.parquet"), split="train")
    manifest = json.loads((args.dataset / "manifest.json").read_text(encoding="utf-8"))
    config = AutoConfig.from_pretrained(args.model) if args.model else tiny(manifest["tokenizer"]["vocab_size"])
    # Before the model is built: RoPE must tell the rows' positions apart. Afterwards the config is not read again.
    set_rope(config, "auto", needed=manifest["spec"].get("max_position", 131_072))
    # 1. The attention that is told boundaries. On CUDA "flash_attention_2" takes the same batches.
    how = {"config": config, "attn_implementation": ATTENTION, "dtype": torch.float32}
    model = (
        AutoModelForCausalLM.from_pretrained(args.model, **how)
        if args.model
        else AutoModelForCausalLM.from_config(**how)
    )

    # 2. The collator: the rows of a batch become one packed row, positions and boundaries as they were written.
    collator = RowCollator()
    # Stop here rather than train blind, should an upgrade or a wrapper ever get between the two.
    check_attention(model, next(iter(DataLoader(rows, batch_size=2, collate_fn=collator))))

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=args.out,
            remove_unused_columns=False,  # 3. else the Trainer drops seq_lengths: the collator would refuse
            max_steps=args.steps,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,  # the loss is divided by the targets of the whole step
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            dataloader_pin_memory=torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
        ),
        train_dataset=rows,
        data_collator=collator,
    )
    trainer.train()
    trainer.save_model()  # the attention's name is not saved: the model loads anywhere


if __name__ == "__main__":
    main()
