"""Our rows in TRL's SFTTrainer.

    python examples/trl_sft.py DATASET --tokenizer DIRECTORY [--model DIRECTORY] [--steps 20] [--out runs/trl]

Left to itself the SFTTrainer keeps input_ids, labels and seq_lengths, drops position_ids and counts positions anew in
every sequence: the rows' jumps are gone without a word. Three settings hand rows through untouched: our collator,
remove_unused_columns=False and skip_prepare_dataset. Leave packing and padding_free off: the rows are packed already,
and TRL refuses a collator with them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from datasets import load_dataset
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from training import ATTENTION, RowCollator, check_attention, set_rope
from training.presets import tiny


def main() -> None:
    """Train a few steps and save the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--tokenizer", required=True, help="the directory of the tokenizer the dataset was built with")
    parser.add_argument("--model", help="a directory in Hugging Face's layout")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", default="runs/trl")
    args = parser.parse_args()

    rows = load_dataset("parquet", data_files=str(args.dataset / "data" / "train-*.parquet"), split="train")
    manifest = json.loads((args.dataset / "manifest.json").read_text(encoding="utf-8"))
    config = AutoConfig.from_pretrained(args.model) if args.model else tiny(manifest["tokenizer"]["vocab_size"])
    # Before the model is built: RoPE must tell the rows' positions apart. Afterwards the config is not read again.
    set_rope(config, "auto", needed=manifest["spec"].get("max_position", 131_072))
    how = {"config": config, "attn_implementation": ATTENTION, "dtype": torch.float32}
    model = (
        AutoModelForCausalLM.from_pretrained(args.model, **how)
        if args.model
        else AutoModelForCausalLM.from_config(**how)
    )
    collator = RowCollator()
    check_attention(model, next(iter(DataLoader(rows, batch_size=2, collate_fn=collator))))

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=args.out,
            remove_unused_columns=False,  # else position_ids are dropped: the collator would refuse
            dataset_kwargs={"skip_prepare_dataset": True},  # the rows are tokenised, labelled and packed
            packing=False,
            padding_free=False,
            max_length=None,  # the rows' length was chosen when they were built; a cut row would be an error
            max_steps=args.steps,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            dataloader_pin_memory=torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
        ),
        train_dataset=rows,
        data_collator=collator,
        processing_class=AutoTokenizer.from_pretrained(args.tokenizer),  # TRL asks for one; the rows need none
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
