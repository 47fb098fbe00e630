"""LoRA by peft (arXiv 2106.09685): the model stays as it is and small matrices beside its layers are learnt.

peft is an extra (`lora`) and imported when a config asks for it. Adapters are put into the model in place, so that it
is called, checked and spread as any other. A checkpoint holds the adapter in peft's own layout, and the model with the
adapter added in, which is a model to run like any other checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from training.config import LoraConfig
from training.errors import CheckpointError, ModelError, TrainingError

ADAPTER = "adapter"
"""The folder of a checkpoint that holds the adapter."""
WEIGHTS = "adapter_model.safetensors"
NAME, PREFIX = "default", "base_model.model."
"""The one adapter's name, and what peft puts before the names of a model's parts in a file."""
SEED = 0
"""What new adapters are drawn from: the same ones every time."""


def add_adapter(model: PreTrainedModel, config: LoraConfig) -> None:
    """Put a new adapter beside the layers of a model and freeze all else; it changes no output yet.

    Raises TrainingError where peft is not installed, ModelError where the layers named are not there.
    """
    try:
        import peft
    except ImportError as error:
        message = "model.lora needs peft, which is not installed: pip install 'longweave[lora]'"
        raise TrainingError(message, param="/model/lora") from error
    targets = config.targets if isinstance(config.targets, str) else list(config.targets)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's matrices
        task_type=peft.TaskType.CAUSAL_LM,
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            peft.inject_adapter_in_model(settings, model, adapter_name=NAME)
    except (ValueError, TypeError) as error:
        message = f"an adapter cannot be put on the model's layers {config.targets!r}: {error}"
        raise ModelError(message, param="/model/lora/targets") from error


def adapted(model: nn.Module) -> bool:
    """Whether a model has an adapter."""
    return hasattr(model, "peft_config")


def read_adapter(model: PreTrainedModel, checkpoint: Path) -> None:
    """Give a model, its adapter new, the adapter of a checkpoint.

    The checkpoint's whole weights must be the model's with that adapter: raises CheckpointError where the model under it
    has changed since, and where the adapter cannot be read.
    """
    path = checkpoint / ADAPTER / WEIGHTS
    parameters = dict(model.named_parameters())
    try:
        saved = {_in_model(name): tensor for name, tensor in load_file(path).items()}
        if saved.keys() != {name for name in parameters if ".lora_" in name}:
            message = f"{path} is not an adapter of this model's layers"
            raise CheckpointError(message, param=str(path))
        with torch.no_grad():
            for name, tensor in saved.items():
                parameters[name].copy_(tensor)
        _check_same_base(model, checkpoint)
    except (OSError, SafetensorError, RuntimeError) as error:
        message = f"{path} cannot be restored ({error})"
        raise CheckpointError(message, param=str(path)) from error


def _check_same_base(model: PreTrainedModel, checkpoint: Path) -> None:
    expected = merged(model, model.state_dict())
    for file in checkpoint.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:  # pyright: ignore[reportArgumentType]  (a path)
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                if name in expected and not torch.allclose(tensors.get_tensor(name), expected[name], atol=1e-5):
                    message = (
                        f"{name} of the model is not what {checkpoint} was trained on: set model.path back to the model "
                        "it was, or set another checkpoint.dir"
                    )
                    raise CheckpointError(message, param=str(checkpoint))


def write_adapter(model: Any, state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write the adapter among a model's whole state as peft does, for PeftModel.from_pretrained on the same base."""
    folder.mkdir()
    model.peft_config[NAME].save_pretrained(str(folder))
    adapter = {_in_file(name): t.detach().cpu().contiguous() for name, t in state.items() if ".lora_" in name}
    save_file(adapter, folder / WEIGHTS, metadata={"format": "pt"})


def merged(model: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A whole state with the adapter added in: W + scaling · B·A in float32, and names as they were without it."""
    layers: dict[str, Any] = {name: m for name, m in model.named_modules() if hasattr(m, "lora_A")}
    found = {
        name.replace(".base_layer.", "."): tensor.detach() for name, tensor in state.items() if ".lora_" not in name
    }
    for name, layer in layers.items():
        a, b = (state[f"{name}.lora_{which}.{NAME}.weight"].detach() for which in "AB")
        delta = (b @ a) * layer.scaling[NAME]
        weight = f"{name}.weight"
        found[weight] = found[weight] + (delta.T if layer.fan_in_fan_out else delta)
    return found


def _in_file(name: str) -> str:
    return PREFIX + name.replace(f".{NAME}.", ".")


def _in_model(name: str) -> str:
    head, _, tail = name.removeprefix(PREFIX).rpartition(".")
    return f"{head}.{NAME}.{tail}"
