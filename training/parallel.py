"""Many processes as one run: the process group torchrun starts, the model's weights over its ranks (FSDP2), and one
rank that speaks.

A loss is divided by the whole step's weights before its gradient is taken, so gradients are summed over ranks, never
averaged. Nothing here is pickled; what ranks tell each other is tensors and the store's bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import Store
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from packing.dataset.errors import LongweaveError
from training.errors import PeerError, TrainingError

PATIENCE = timedelta(hours=1)
"""How long a rank waits for another: rank 0 writes a large model's weights while the rest wait. A rank that is gone is
known at once, by its closed connection or by torchrun."""


class Root(nn.Module):
    """A model under a root whose forward is whatever work is to be done with the model's weights at hand.

    FSDP gathers weights around a module's forward; the worker calls a model's body and its output layer apart.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """work(model, *arguments)."""
        return work(self.model, *arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those of the run; without a process group it is the only one."""

    rank: int = 0
    world: int = 1
    device: torch.device
    grouped: bool = False
    root: Root | None = None
    sequence: int = 1
    """How many ranks, side by side, share each packed row."""
    row_group: dist.ProcessGroup | None = None
    """Those that share this rank's."""

    @property
    def speaks(self) -> bool:
        """Whether this rank writes lines, metrics and folders."""
        return self.rank == 0

    @property
    def reader(self) -> tuple[int, int]:
        """Which of how many shares of a step's packed rows this rank has a part in."""
        return self.rank // self.sequence, self.world // self.sequence

    @property
    def part(self) -> int:
        """Which part of its packed rows this rank holds."""
        return self.rank % self.sequence

    def sharing_rows(self, sequence: int) -> Ranks:
        """The same ranks, every `sequence` of them sharing packed rows; every rank must ask. Raises TrainingError where
        they do not divide the ranks."""
        if self.world % sequence:
            message = f"parallel.sequence is {sequence}, which does not divide the run's {self.world} processes"
            raise TrainingError(message, param="/parallel/sequence")
        if sequence == 1:
            return self
        starts = range(0, self.world, sequence)
        groups = [dist.new_group(list(range(start, start + sequence))) for start in starts]
        group = groups[self.rank // sequence]
        assert isinstance(group, dist.ProcessGroup)
        return replace(self, sequence=sequence, row_group=group)

    def spread(self, model: PreTrainedModel, *, shard: bool) -> Ranks:
        """Put a model on the device, its weights over all ranks (a whole copy on each with `shard` false)."""
        if not self.grouped:
            model.to(self.device)  # pyright: ignore[reportArgumentType]  (transformers wraps `to` without its overloads)
            return self
        return replace(self, root=_spread(model, self, shard=shard))

    def call(self, model: PreTrainedModel, work: Callable[..., Any], *arguments: Any) -> Any:
        """work(model, *arguments), with the weights gathered for as long as it and its backward pass need them."""
        if self.root is None:
            return work(model, *arguments)
        result = self.root(work, *arguments)
        if not (isinstance(result, torch.Tensor) and result.requires_grad):
            assert isinstance(self.root, FSDPModule)
            self.root.reshard()  # no backward pass will: FSDP's root keeps what it has gathered until one
        return result

    def total(self, value: float) -> float:
        """The sum of every rank's value, in float64."""
        if not self.grouped:
            return value
        held = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(held)
        return held.item()

    def totals(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of every rank's array, element by element; all ranks have the same shape."""
        if not self.grouped:
            return values
        held = torch.from_numpy(values).to(self.device, copy=True)
        dist.all_reduce(held)
        return held.cpu().numpy()

    def largest(self, value: float) -> float:
        """The largest of every rank's value, in float64."""
        if not self.grouped:
            return value
        held = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return held.item()

    def anywhere(self, flag: bool) -> bool:  # noqa: FBT001 (the one thing there is to say)
        """Whether any rank says yes."""
        return self.total(float(flag)) > 0

    def agree(self, value: int) -> bool:
        """Whether every rank has the same whole number."""
        if not self.grouped:
            return True
        held = torch.tensor([value, -value], device=self.device)
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return held[0].item() == value == -held[1].item()

    def wait(self) -> None:
        """Go on when every rank is here."""
        if self.grouped:
            self.total(0.0)


ALONE = Ranks(device=torch.device("cpu"))
"""One process, with the model wherever it is."""


def _spread(model: PreTrainedModel, ranks: Ranks, *, shard: bool) -> Root:
    # A second dimension of one rank shards nothing: every rank then holds whole copies, by the same code.
    shape, names = ((ranks.world,), ("shard",)) if shard else ((ranks.world, 1), ("copy", "shard"))
    mesh = init_device_mesh(ranks.device.type, shape, mesh_dim_names=names)
    # Weights travel as they are kept, in float32, and autocast works on them as in one process.
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    root = Root(model)
    for module in [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]:
        fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(root, mesh=mesh, mp_policy=policy)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
    return root


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with the parts of all ranks; every rank must ask at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def joined() -> Generator[Ranks]:
    """The ranks of this run: those of torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT),
    or this process alone.

    Of errors that end the block on several ranks the first is raised as it is, the rest as PeerError, so that one
    sentence is told. Raises TrainingError where another rank ended without a word, and where a node has fewer GPUs
    than processes.
    """
    cuda = torch.cuda.is_available()
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks(device=torch.device("cuda" if cuda else "cpu"))
        return
    device = _own_device() if cuda else torch.device("cpu")
    try:
        store, rank, world = next(rendezvous("env://", timeout=PATIENCE))
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
        dist.barrier()  # an error at once must not take the store from a rank that is still joining
    except (RuntimeError, ValueError) as error:
        message = f"the processes of the run do not find each other: {error}"
        raise TrainingError(message) from error
    try:
        yield Ranks(rank=rank, world=world, device=device, grouped=True)
        dist.barrier()  # a rank that took the group down while another still used it would abort that one
    except LongweaveError as error:
        if not _first(store, rank):
            raise PeerError from error
        raise
    except RuntimeError as error:  # what a collective raises when a peer is gone
        if not _first(store, rank):
            raise PeerError from error
        message = f"rank {rank} of {world} cannot go on, most likely since another rank ended: {error}"
        raise TrainingError(message) from error
    dist.destroy_process_group()


def _own_device() -> torch.device:
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        message = f"this node has {torch.cuda.device_count()} GPUs and process {local} (counted from 0) needs its own"
        raise TrainingError(message)
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _first(store: Store, rank: int) -> bool:
    """Whether this rank is the first to report an error."""
    mine = f"rank {rank}"
    try:
        return store.compare_set("longweave/first error", "", mine).decode() == mine
    except RuntimeError:  # the store went with the process that held it
        return False
