"""The sections of a config, a dataclass each: their fields, what each may hold, and what it holds when left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from training.config.rules import (
    checked,
    directory,
    flag,
    layer_names,
    list_of,
    number,
    one_of,
    optional,
    rope_base,
    source,
    text,
    whole,
)

LARGEST_SEED = 2**64 - 1
PRESETS = ("tiny", "tiny-learned", "tiny-alibi", "tiny-nope")
"""Names of training.presets, which needs transformers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """An adapter in the place of the model's own weights: matrices of `rank` beside the layers whose names end in one of
    `targets` (`all-linear`: every linear layer but the output's), added times `alpha` / `rank`."""

    rank: int = checked(whole(1), 16)
    alpha: int = checked(whole(1), 32)
    targets: str | tuple[str, ...] = checked(layer_names, "all-linear")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model: exactly one of `path` (a directory of Hugging Face's layout) and `preset`; `tokenizer`, a directory,
    is what messages are tokenised with instead of the model's own. `dtype` is what the work is done in (weights are
    float32), `checkpointing`, `offload` (of what that keeps, to the CPU's memory) and `mlp_chunk` (in tokens)
    trade time for memory."""

    path: str | None = checked(optional(text), None)
    preset: str | None = checked(optional(one_of(*PRESETS)), None)
    tokenizer: str | None = checked(optional(text), None)
    rope_base: str | float = checked(rope_base, "auto")
    dtype: str = checked(one_of("auto", "float32", "bfloat16"), "auto")
    checkpointing: bool = checked(flag, default=False)
    offload: bool = checked(flag, default=False)
    mlp_chunk: int | None = checked(optional(whole(1)), None)
    attention: str = checked(one_of("auto", "varlen", "flex", "exact"), "auto")
    lora: LoraConfig | None = field(default=None, metadata={"section": LoraConfig})


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Where the rows come from: a dataset's directory, its URL at a service (…/v1/datasets/ID) and an API key,
    or s3://bucket/prefix.

    `too_long`: what becomes of a row that no packed row can hold. `tokenizer`: whether rows of tokens must have been
    made with the model's very tokenizer.json."""

    source: str = checked(source)
    key: str | None = field(default=None, repr=False, metadata={"rule": optional(text)})
    shuffle_seed: int = checked(whole(0, LARGEST_SEED), 0)
    split: str = checked(text, "train")
    too_long: str = checked(one_of("refuse", "drop"), "refuse")
    tokenizer: str = checked(one_of("same", "any"), "same")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """Tokens of an optimizer step and of one packed row; a step is tokens_per_step / row_tokens packed rows."""

    tokens_per_step: int = checked(whole(1), 32768)
    row_tokens: int = checked(whole(2), 4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW; `warmup` in steps, `clip` the largest norm of the gradient."""

    lr: float = checked(number(above=0.0), 2.0e-5)
    warmup: int = checked(whole(0), 20)
    schedule: str = checked(one_of("constant", "cosine", "wsd"), "cosine")
    weight_decay: float = checked(number(least=0.0), 0.0)
    clip: float = checked(number(above=0.0), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """Where checkpoints and metrics.jsonl go, every how many steps, and how many checkpoints stay. `background`: they
    are copied to the CPU's memory and written while training goes on."""

    dir: str = checked(text)
    every: int = checked(whole(1), 50)
    keep: int = checked(whole(1), 3)
    background: bool = checked(flag, default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """`tokens`: every target weighs the same. `sequences`: every sequence does (LongAlign)."""

    normalize: str = checked(one_of("tokens", "sequences"), "tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """What is measured before the first step, every `every` steps and after the last: answers to `needles` and
    `longbench`, and the loss on `texts`. Nothing of it changes the training."""

    needles: str | None = checked(optional(directory), None)
    texts: str | None = checked(optional(directory), None)
    longbench: str | None = checked(optional(directory), None)
    longbench_window: int | None = checked(optional(whole(1024)), None)
    every: int | None = checked(optional(whole(1)), None)
    before: bool = checked(flag, default=True)
    chat: str = checked(one_of("auto", "none"), "auto")
    batch_tokens: int = checked(whole(1), 65536)
    prefill: int = checked(whole(1), 2048)
    window: int = checked(whole(2), 1024)
    stride: int = checked(whole(1), 512)
    longer_windows: tuple[int, ...] = checked(list_of(whole(2)), ())
    most_tokens: int = checked(whole(1), 262144)

    @property
    def asked(self) -> bool:
        """Whether there is anything to measure."""
        return any(place is not None for place in (self.needles, self.texts, self.longbench))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelConfig:
    """How torchrun's processes share the work. `shard`: weights, gradients and optimizer states are spread over all of
    them; else each holds all. `sequence`: so many processes, side by side, share the tokens of each packed row."""

    shard: bool = checked(flag, default=True)
    sequence: int = checked(whole(1), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole training run."""

    model: ModelConfig
    data: DataConfig
    checkpoint: CheckpointConfig
    batch: BatchConfig = field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    steps: int = checked(whole(1), 200)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


SECTIONS: Mapping[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "batch": BatchConfig,
    "optimizer": OptimizerConfig,
    "checkpoint": CheckpointConfig,
    "loss": LossConfig,
    "evaluate": EvaluateConfig,
    "parallel": ParallelConfig,
}
