"""A directory of Hugging Face's layout: its config and its weights, from local files and safetensors alone (nothing is
unpickled), without running code of it, and whole: transformers would draw at random what it does not find."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from training.errors import ModelError

_IN_A_LAYER = re.compile(r"\.\d+\..*\.(weight|bias)$")
"""The names of tensors that layers have learnt; old checkpoints hold masks of theirs too."""


def read_config(folder: Path) -> Any:
    """The model's config; raises ModelError."""
    if not (folder / "config.json").is_file():
        message = f"{folder} holds no config.json: model.path is a directory of Hugging Face's layout"
        if not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder)):
            message += f", and nothing is fetched: hf download {folder} --local-dir DIRECTORY does that"
        raise ModelError(message)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"the model in {folder} cannot be read: {error}"
        raise ModelError(message) from error


def read_weights(folder: Path, settings: Any, attention: str, say: Callable[[str], None]) -> PreTrainedModel:
    """The model of a directory in float32, with a config and an attention of ours; `say` takes a line on tensors that are
    no part of it. Raises ModelError where its weights are not those of its config."""
    try:
        with _in_silence():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=settings,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                attn_implementation=attention,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they are refused below, in a sentence
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        message = f"the model in {folder} cannot be loaded: {error}"
        raise ModelError(message) from error
    model, found = cast("tuple[PreTrainedModel, dict[str, Any]]", loaded)
    _check_whole(folder, found, say)
    return model


@contextmanager
def _in_silence() -> Generator[None]:
    """Without the table that transformers prints of weights that do not fit: what is wrong is said in a sentence."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _check_whole(folder: Path, found: dict[str, Any], say: Callable[[str], None]) -> None:
    """Raise ModelError unless the tensors of a directory are those of its config."""
    other: list[tuple[str, Any, Any]] = sorted(found["mismatched_keys"])
    if other:
        name, theirs, ours = other[0]
        message = (
            f"{len(other)} tensors in {folder} have another shape than its config.json says, among them {name}: "
            f"{list(theirs)}, not {list(ours)}"
        )
        raise ModelError(message)
    missing = sorted(map(str, found["missing_keys"]))
    if missing:
        message = f"the weights in {folder} lack {len(missing)} tensors of the model, among them {missing[0]}"
        raise ModelError(message)
    spare = sorted(map(str, found["unexpected_keys"]))
    in_layers = [name for name in spare if _IN_A_LAYER.search(name)]
    if in_layers:
        message = (
            f"{folder} holds {len(in_layers)} tensors of layers that its config.json knows nothing of, among them "
            f"{in_layers[0]}: the config is another model's"
        )
        raise ModelError(message)
    if spare:
        say(f"{folder} holds {len(spare)} tensors that are no part of the model, among them {spare[0]}: left out")
