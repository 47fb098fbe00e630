"""Weights and optimizer states of a model that is spread over ranks: gathered for from_pretrained, or written by every
rank as its own part and read back over any number of ranks.

torch.distributed.checkpoint (DCP) writes and reads the parts, with its safetensors storage: its default one pickles an
index, this one has JSON headers alone. In memory DCP's ranks hand each other their plans as Python objects, within the
process group; nothing of that reaches a file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from training.errors import CheckpointError
from training.parallel import Ranks, whole


def weights(model: nn.Module, ranks: Ranks) -> dict[str, torch.Tensor]:
    """A model's whole state on the CPU, as its state_dict names it; empty on ranks that write nothing.

    Every rank must ask at the same time; tied weights stay one tensor.
    """
    parameters = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    held: dict[int, torch.Tensor] = {}
    found: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        one = parameters.get(name, id(tensor))
        if one not in held:
            full = whole(tensor)
            held[one] = full.cpu().clone() if ranks.speaks else torch.empty(0)
        found[name] = held[one]
    return found if ranks.speaks else {}


def write_parts(
    tensors: Mapping[str, torch.Tensor], folder: Path, group: dist.ProcessGroup | None = None
) -> Callable[[], None]:
    """Write tensors of all ranks into a folder, every rank its own part; what is returned waits until all are there.

    Without `group` they are, and it has nothing to wait for. With one, of CPU backend and used for nothing else, they are copied
    and written by a thread. Either raises CheckpointError.
    """
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    if group is None:
        with _in_sentences(folder):
            save(dict(tensors), storage_writer=writer)
        return lambda: None
    # DCP copies what lies on a GPU; what lies on the CPU it takes for a copy.
    held = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    with _in_sentences(folder):
        written = async_save(held, storage_writer=writer, process_group=group)
    assert isinstance(written, Future)

    def wait() -> None:
        with _in_sentences(folder):
            written.result()

    return wait


@contextmanager
def _in_sentences(folder: Path) -> Generator[None]:
    try:
        yield
    except CheckpointException as error:  # a BaseException, which nothing else would catch
        message = f"{folder} cannot be written ({_reason(error)})"
        raise CheckpointError(message, param=str(folder)) from error


def read_optimizer(folder: Path, model: nn.Module, ranks: Ranks) -> dict[str, torch.Tensor]:
    """The entries `parameter|entry` among the safetensors of a folder, laid out as the model's parameters are.

    Raises CheckpointError where they cannot be read or belong to another model.
    """
    parameters = dict(model.named_parameters())
    reader = HuggingFaceStorageReader(str(folder))
    try:
        known = reader.read_metadata().state_dict_metadata
        found: dict[str, torch.Tensor] = {}
        for key, about in known.items():
            name, bar, entry = key.rpartition("|")
            if not bar:
                continue
            size: torch.Size = about.size  # pyright: ignore[reportAttributeAccessIssue]  (all entries are tensors)
            # The fused AdamW counts its steps where the parameter lies.
            like = parameters[name]
            found[key] = torch.zeros((), device=like.device) if entry == "step" else torch.zeros_like(like)
            if found[key].shape != size:
                message = f"{folder} holds {key} of shape {list(size)}, the model's is {list(found[key].shape)}"
                raise CheckpointError(message, param=str(folder))
        if found:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "torch.distributed is disabled")  # in one process it is meant to be
                load(found, storage_reader=reader, no_dist=not ranks.grouped)
    except (OSError, KeyError, ValueError, CheckpointException) as error:
        message = f"{folder} cannot be restored ({_reason(error)})"
        raise CheckpointError(message, param=str(folder)) from error
    return found


def _reason(error: BaseException) -> str:
    """A sentence's worth of an error: DCP puts whole tracebacks of all ranks into its own."""
    failures = getattr(error, "failures", {})
    first = next(iter(failures.values()), None)
    return " ".join(str(first[0] if isinstance(first, tuple) else error).split())
