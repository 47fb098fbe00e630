"""When checkpoints are written: while the run waits, or behind it, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from transformers import PreTrainedModel

from training.checkpoint import begin
from training.config import CheckpointConfig
from training.parallel import Ranks
from training.stream import DataState


class Saver:
    """The checkpoints of a run; every rank calls its methods at the same steps."""

    def __init__(
        self,
        config: CheckpointConfig,
        *,
        run: Mapping[str, Any],
        tokenizer_from: Path | None,
        ranks: Ranks,
        say: Callable[[str], None],
    ) -> None:
        """With `background` in the config a process group of its own is made where there are several ranks, so that the
        work behind never meets the training's collectives."""
        self._config, self._run, self._tokenizer_from, self._ranks, self._say = config, run, tokenizer_from, ranks, say
        behind = config.background
        self._group = _own_group() if behind and ranks.grouped else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if behind else None
        self._pending: Future[Path] | None = None

    def save(self, step: int, data: DataState, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
        """Save a step: return once it stands, or in the background once it is copied. One that is still being written is
        waited for; raises what it failed with."""
        self.wait()
        end = begin(
            Path(self._config.dir),
            step=step,
            data=data,
            run=self._run,
            model=model,
            optimizer=optimizer,
            tokenizer_from=self._tokenizer_from,
            keep=self._config.keep,
            ranks=self._ranks,
            group=self._group,
            copy=self._thread is not None,
        )
        if self._thread is not None:
            self._pending = self._thread.submit(end)
            return
        place = end()
        self._ranks.wait()
        self._say(f"checkpoint {place}")

    def wait(self) -> None:
        """Return once nothing is being written by any rank; raises what a checkpoint failed with."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        place = pending.result()
        self._ranks.wait()
        self._say(f"checkpoint {place}")

    def close(self) -> None:
        """End the thread; what it is writing is written first, whatever ends the run, and an error of it is told."""
        if self._thread is None:
            return
        self._thread.shutdown(wait=True)
        if self._pending is not None and (error := self._pending.exception()) is not None:
            self._say(f"a checkpoint could not be written ({error})")


def _own_group() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup)  # no rank is left out
    return group
