"""One optimizer step: the gradient of all its packed rows, clipped, and what it was like."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from training.batch import Batch, StepData, share
from training.config import Config
from training.errors import TrainingError
from training.flops import work_of
from training.loss import chunked_cross_entropy, target_weights
from training.loss_split import LossSplit
from training.memory import at_work
from training.model import hidden_states, output_head
from training.optimizer import learning_rate
from training.parallel import ALONE, Ranks, whole
from training.rows import IGNORED
from training.sequence_parallel import own_targets, own_tokens, padded


def take_step(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    data: StepData,
    config: Config,
    step: int,
    ranks: Ranks,
) -> dict[str, Any]:
    """One optimizer step over all its packed rows; returns its metrics without the step's number.

    A step without any target changes nothing and has the loss None. Raises TrainingError where loss or gradient are not
    finite.
    """
    began = time.perf_counter()
    torch.manual_seed(step)  # dropout, where a model has it, is then the same after a resume
    lr = learning_rate(config.optimizer, step, config.steps)
    for group in optimizer.param_groups:
        group["lr"] = lr
    split = LossSplit()
    loss, targets = accumulate(model, data, normalize=config.loss.normalize, ranks=ranks, split=split)
    norm = 0.0
    if loss is not None:
        norm = whole(nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip)).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            message = f"step {step}: the loss is {loss} and the gradient's norm {norm}; try a lower optimizer.lr"
            raise TrainingError(message)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    tokens = sum(batch.tokens for batch in data.batches)
    return {
        "loss": loss,
        "tokens": tokens,
        "targets": targets,
        "lr": lr,
        "grad_norm": norm,
        "tokens_per_second": tokens / (time.perf_counter() - began),
        "epoch": data.state.epoch,
        "rows": data.state.row,
        "dropped": data.dropped,
        "flops": work_of(model).of_step(data),
        "losses": split.over(ranks).to_json(),
    }


def accumulate(
    model: PreTrainedModel, data: StepData, *, normalize: str, ranks: Ranks = ALONE, split: LossSplit | None = None
) -> tuple[float | None, int]:
    """Add the gradient of a step's loss to the parameters; returns the loss (None without targets) and the count of
    targets, of all ranks. `split` takes in the losses of this rank's targets.

    The loss is normalised by the whole step's weights, whatever packed rows and ranks they fall to.
    """
    total = sum(target_weights(batch, normalize).double().sum().item() for batch in data.batches)
    targets = sum(int((batch.targets != IGNORED).sum()) for batch in data.batches)
    if not targets:
        return None, 0
    loss = 0.0
    for row in share(data, *ranks.reader).batches:
        batch = padded(row, ranks.sequence)
        weights = target_weights(batch, normalize)  # before the row is shared: a sequence may lie with several ranks
        own = own_tokens(batch, ranks.part, ranks.sequence)
        each = torch.zeros(own.tokens, device=model.device)
        own_weights = weights.chunk(ranks.sequence)[ranks.part].to(model.device)
        part = ranks.call(model, weighted_loss, own.to(model.device), own_weights, total, each)
        part.backward()
        if split is not None:
            losses = np.zeros(batch.tokens, np.float32)
            losses[ranks.part * own.tokens :][: own.tokens] = each.cpu().numpy()
            split.add(own_targets(batch, ranks.part, ranks.sequence), losses)
        loss += part.item()
    return ranks.total(loss), targets


def weighted_loss(
    model: PreTrainedModel, batch: Batch, weights: torch.Tensor, total: float, each: torch.Tensor | None = None
) -> torch.Tensor:
    """A packed row's part of a step's loss, or that of the tokens of one that this rank holds: its sum by `weights`
    (float32 [N]) over the step's whole weight, a float32 scalar. `each` (float32 [N]) is given the loss of every target.
    """
    head = output_head(model)
    with at_work(model):
        hidden = hidden_states(model, batch)[0]
        part = chunked_cross_entropy(head, hidden, batch.targets[0], weights, each=each) / total
        if not bool((batch.targets != IGNORED).any()):
            # FSDP sums the gradients there are: a rank without one for the head would wait for the others for ever.
            part = part + head(hidden[:1]).float().sum() * 0.0
    return part
