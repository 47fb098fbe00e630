"""Building and loading the model, the one way to call it, and the checks before its first step."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed import is_initialized
from transformers import AutoModelForCausalLM, PreTrainedModel

from packing.dataset.errors import LongweaveError
from packing.dataset.manifest import Manifest
from training.alone import hidden_states_alone
from training.attention import KINDS, WITHOUT_BOUNDARIES
from training.attention_checks import (
    CHECKED,
    check_attention,
    check_kernel,
    check_routed,
    refuse_kernel,
    refuse_unrouted,
    refuse_windows,
)
from training.batch import Batch, ends_of
from training.config import ModelConfig
from training.errors import ModelError
from training.lora import adapted, add_adapter, read_adapter
from training.memory import prepare
from training.positions import check_positions, set_positions
from training.presets import PRESETS
from training.stream import Extent
from training.vocabulary import check_size
from training.weights import read_config, read_weights

INIT_SEED = 0
"""A preset is drawn from this seed: the same model every time."""


def load_model(
    config: ModelConfig,
    *,
    extent: Extent,
    manifest: Manifest,
    checkpoint: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> PreTrainedModel:
    """The model of a run, in float32, with our attention, its RoPE base set for the data and read back.

    `checkpoint`: where a run goes on from, instead of the config's path or preset. `say` takes a line where positions go
    beyond what the model was made for (and those of training.weights).

    Raises ModelError (AttentionError, RopeError) for a model that cannot be loaded or reproduced, SpecError for a
    lowered base.
    """
    own = Path(config.path) if config.path is not None else None
    folder = own if config.lora else checkpoint or own  # an adapter goes on from the model it is beside
    settings = _settings(config, manifest, folder)
    _refuse(settings)
    check_size(settings.vocab_size, extent)
    if stretched := set_positions(settings, config.rope_base, extent):
        say(stretched)
    attention = _attention(settings, config.attention)
    model = _build(settings, attention) if folder is None else read_weights(folder, settings, attention, say)
    check_positions(model)
    if config.lora is not None:
        add_adapter(model, config.lora)
        if checkpoint is not None:
            read_adapter(model, checkpoint)
    prepare(model, config)
    return model


def _settings(config: ModelConfig, manifest: Manifest, folder: Path | None) -> Any:
    if folder is not None:
        return read_config(folder)
    assert config.preset is not None
    return PRESETS[config.preset](_vocab_size(manifest))


def _refuse(settings: Any) -> None:
    """Raise ModelErrors for what a config alone shows to be unserved."""
    refuse_unrouted(settings)
    refuse_windows(settings)
    for name in ("attention_dropout", "attn_pdrop"):
        if share := getattr(settings, name, None):
            message = (
                f"the model's config asks for {name} {share}, which the worker's attention does not serve: set it to 0"
            )
            raise ModelError(message)
    if settings.model_type in WITHOUT_BOUNDARIES and is_initialized():
        message = f"a model of type {settings.model_type} is run in as many calls as its sequences ask for, and so in one process only"
        raise ModelError(message)


def _vocab_size(manifest: Manifest) -> int:
    size = manifest.tokenizer.get("vocab_size")
    if not isinstance(size, int):
        message = (
            f"the manifest of {manifest.name!r} names no tokenizer.vocab_size, which a preset's size is taken from"
        )
        raise ModelError(message)
    return size


def _attention(settings: Any, asked: str) -> str:
    """Ours, by the kernel asked for, or a model's own where each sequence is a row."""
    if settings.model_type not in WITHOUT_BOUNDARIES:
        return KINDS[asked]
    if asked != "auto":
        message = f"a model of type {settings.model_type} has an attention of its own: leave model.attention out"
        raise ModelError(message, param="/model/attention")
    return "eager"


def _build(settings: Any, attention: str) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INIT_SEED)
        return AutoModelForCausalLM.from_config(settings, attn_implementation=attention, dtype=torch.float32)


def hidden_states(model: PreTrainedModel, batch: Batch, input_ids: torch.Tensor | None = None) -> torch.Tensor:
    """The last hidden states [1, N, hidden] of a packed row: the one call by which this worker runs a model.

    `input_ids` [1, N] stand in for the batch's, for checks. Boundaries travel as cu_seq_lens beside the positions.
    """
    if model.config.model_type in WITHOUT_BOUNDARIES:
        return hidden_states_alone(model, batch.input_ids if input_ids is None else input_ids, batch.cu_seq_lens)
    return model.base_model(**_arguments(batch, input_ids)).last_hidden_state


def _arguments(batch: Batch, input_ids: torch.Tensor | None) -> dict[str, Any]:
    return {
        "input_ids": batch.input_ids if input_ids is None else input_ids,
        "position_ids": batch.position_ids,
        "attention_mask": None,
        "use_cache": False,
        "cu_seq_lens_q": batch.cu_seq_lens,
        "cu_seq_lens_k": batch.cu_seq_lens,
        "max_length_q": batch.max_length,
        "max_length_k": batch.max_length,
    }


class _ScaledHead(nn.Module):
    """An output layer whose logits are divided by a constant, as Granite's are."""

    def __init__(self, head: nn.Module, divisor: float) -> None:
        super().__init__()
        self.head, self.divisor = head, divisor

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(hidden) / self.divisor


def output_head(model: PreTrainedModel) -> nn.Module:
    """What takes hidden states [.., hidden] to logits [.., vocabulary]; raises ModelError where there is nothing."""
    head: nn.Module | None = model.get_output_embeddings()
    if head is None:
        message = f"a {type(model).__name__} has no output layer to compute a loss with"
        raise ModelError(message)
    divisor: float = getattr(model.config, "logits_scaling", None) or 1.0
    return head if divisor == 1.0 else _ScaledHead(head, divisor)


def preflight(model: PreTrainedModel, batch: Batch, anywhere: Callable[[bool], bool] = bool) -> None:
    """Check on the first real packed row, in float32, that the model sees what the boundaries declare and nothing else; on
    the ends of a row of more than training.attention_checks.CHECKED tokens.

    `anywhere`: as for training.influence.check_influence. Raises AttentionError, or ModelError for a model whose logits
    are more than its output layer (scaled, soft-capped), or that fails in its own code.
    """
    refuse_kernel(model)
    training = model.training
    model.eval()
    ends = ends_of(batch, CHECKED)

    def forward(ids: torch.Tensor | None = None) -> torch.Tensor:
        with _failures_named(model):
            return hidden_states(model, ends, ids)

    try:
        check_routed(model, forward)
        check_attention(forward, ends, anywhere=anywhere)
        _check_logits(model, ends)
        check_kernel(model, batch)
    finally:
        model.train(training)


@contextmanager
def _failures_named(model: PreTrainedModel) -> Generator[None]:
    """What a model raises in its own forward pass as a ModelError, with the line it came from."""
    try:
        yield
    except (LongweaveError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if is_initialized() and isinstance(error, RuntimeError):
            raise  # a rank that has gone reads the same: training.parallel tells
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = next(iter(str(error).splitlines()), "")
        message = (
            f"a {type(model).__name__} cannot be run on the data's first packed row: {type(error).__name__}: {said} "
            f"({Path(place.filename).name}, line {place.lineno}); its config.json may not fit its weights, its code, or "
            "this version of transformers"
        )
        raise ModelError(message) from error


@torch.no_grad()
def _check_logits(model: PreTrainedModel, batch: Batch) -> None:
    """The loss takes hidden states to logits by the output layer alone: compare with the model's own logits."""
    last = _last_sequence(batch)
    with _failures_named(model):
        own = model(**_arguments(last, None), logits_to_keep=1).logits[0, -1].float()
    ours = output_head(model)(hidden_states(model, last)[0, -1]).float()
    if not torch.allclose(own, ours, rtol=1e-3, atol=1e-3):
        message = (
            f"a {type(model).__name__} does more to its logits than its output layer (they differ by up to "
            f"{(own - ours).abs().max().item():.3g}): the chunked loss would train on other logits"
        )
        raise ModelError(message)


def _last_sequence(batch: Batch) -> Batch:
    """A packed row of its last sequence alone, which any model can be asked about."""
    start, stop = batch.cu_seq_lens[-2:].tolist()
    return Batch(
        input_ids=batch.input_ids[:, start:],
        position_ids=batch.position_ids[:, start:],
        targets=batch.targets[:, start:],
        cu_seq_lens=batch.cu_seq_lens[-2:] - start,
        max_length=stop - start,
    )


def describe(model: PreTrainedModel) -> str:
    """One line on a model: type, parameters, positions."""
    config: Any = model.config
    parameters = sum(p.numel() for p in model.parameters())
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
    adapter = f" ({learnt / 1e6:.2f} M of them, the adapter's, are learnt)" if adapted(model) else ""
    return f"{config.model_type}, {parameters / 1e6:.1f} M parameters{adapter}, {check_positions(model)}"
