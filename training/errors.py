"""The errors of the training room, branches of the house's tree (see packing.dataset.errors).

LongweaveError
└── TrainingError              the run cannot start or go on
    ├── ModelError             the model cannot be loaded, or does something this worker does not reproduce
    │   ├── AttentionError     attention that does not follow the rows' boundaries, or cannot be told to
    │   ├── PositionError      positions of the data that mean nothing to the model
    │   └── RopeError          rotary positions that are not what was asked for
    ├── CheckpointError        a checkpoint folder that belongs to another run, or is in use
    └── PeerError              another rank of the run has failed, and has said why
"""

from __future__ import annotations

from packing.dataset.errors import LongweaveError


class TrainingError(LongweaveError):
    """The run cannot start or go on."""

    code = "training_failed"


class ModelError(TrainingError):
    """A model that cannot be loaded, or that does something this worker does not reproduce."""

    code = "invalid_model"


class AttentionError(ModelError):
    """Attention that does not follow the boundaries of the rows, or cannot be told to."""

    code = "wrong_attention"


class PositionError(ModelError):
    """Positions of the data that mean nothing to the model, or that it cannot look up."""

    code = "wrong_positions"


class RopeError(ModelError):
    """Rotary positions that are not what was asked for."""

    code = "wrong_rope"


class CheckpointError(TrainingError):
    """A checkpoint folder that belongs to another run, or is in use by one."""

    code = "invalid_checkpoint"


class PeerError(TrainingError):
    """Another rank of the run has failed and has said why: nothing is left to say here."""

    code = "rank_failed"

    def __init__(self) -> None:
        super().__init__("another rank of the run has failed and said why")
