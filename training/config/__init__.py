"""The training config: YAML in, frozen dataclasses out, every offending field named.

Paths are taken relative to the working directory, as the command line's are. A field whose feature this version does
not serve is refused unless it holds the value that asks for nothing. Nothing here imports torch: a bad config is told
at once.
"""

from __future__ import annotations

from training.config.reader import parse_config, read_config, told_elsewhere
from training.config.sections import (
    SECTIONS,
    BatchConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    LoraConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
)

__all__ = [
    "SECTIONS",
    "BatchConfig",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "EvaluateConfig",
    "LoraConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "parse_config",
    "read_config",
    "told_elsewhere",
]
