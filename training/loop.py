"""The run: rows in, weights out, one optimizer step after another, resumable at every checkpoint.

The same code for one process and for many: what differs is `Ranks`. Every rank reads the whole step and trains on its
share of it, so that the order of the data and the loss's divisor need no word between ranks.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from packing.dataset.errors import DatasetError
from training.attention import kernel_of
from training.attention_checks import CHECKED
from training.batch import StepData, check_share, ends_of, steps, too_long
from training.checkpoint import Checkpoint, Metrics, claimed, digest, identity, newest, restore_optimizer
from training.config import Config
from training.errors import PeerError, TrainingError
from training.evaluation.measure import Evaluations
from training.memory import work_dtype
from training.messages import chat_encoder, tokenizer_folder
from training.model import describe, load_model, preflight
from training.optimizer import build_optimizer
from training.parallel import Ranks, joined
from training.prefetch import ahead
from training.report.write import RunReport
from training.rows import IGNORED
from training.saving import Saver
from training.sequence_parallel import attend_across, padded, preflight_across
from training.source import Source, open_source
from training.step import take_step
from training.stream import DataState, Extent, RowStream
from training.vocabulary import check_tokenizer

Say = Callable[[str], None]
Record = Callable[[dict[str, Any]], None]


def run(config: Config, *, as_json: bool = False) -> int:
    """Train with progress lines on stdout (`as_json`: JSON objects); returns the exit code: 0, or 1 where another rank
    of the run has failed and said why.

    Raises LongweaveErrors where the work fails.
    """

    def say(line: str) -> None:
        print(json.dumps({"message": line}) if as_json else line, flush=True)

    def record(metrics: dict[str, Any]) -> None:
        print(json.dumps(metrics) if as_json else progress(metrics, config.steps), flush=True)

    try:
        train(config, say=say, record=record)
    except PeerError:
        return 1
    return 0


def progress(metrics: dict[str, Any], of: int) -> str:
    """One step's metrics as a line to read."""
    loss = "no targets" if metrics["loss"] is None else f"loss {metrics['loss']:.4f}"
    return (
        f"step {metrics['step']}/{of}  {loss}  lr {metrics['lr']:.3g}  gradient {metrics['grad_norm']:.3g}  "
        f"{metrics['tokens']} tokens, {metrics['targets']} targets, {metrics['tokens_per_second']:,.0f} tokens/s"
    )


def train(config: Config, *, say: Say, record: Record) -> None:
    """Train to config.steps, going on from the newest whole checkpoint of the same run.

    `say` takes lines, `record` each step's metrics, as they stand in metrics.jsonl: step, loss, tokens and targets of
    the step, lr, grad_norm (before clipping), tokens_per_second, after the step the epoch and the rows of it
    consumed, how many rows were dropped for their length, the step's FLOPs (training.flops) and its losses by skips and
    distance (training.loss_split). Raises the LongweaveErrors of its parts.
    """
    transformers_logging.disable_progress_bar()
    with joined() as ranks, _in_sentences(config):
        if not ranks.speaks:
            say, record = _silent, _silent
        ranks = ranks.sharing_rows(config.parallel.sequence)
        check_share(config.batch.tokens_per_step // config.batch.row_tokens, ranks.reader[1])
        source = open_source(config.data.source, key=config.data.key)
        whose = identity(config, source.digest)
        with claimed(Path(config.checkpoint.dir), whose) if ranks.speaks else nullcontext():
            ranks.wait()
            _run(config, source, whose, ranks, say, record)


def _silent(_: Any) -> None:
    """What the ranks beside rank 0 say."""


@contextmanager
def _in_sentences(config: Config) -> Generator[None]:
    """What the machine does to a run, told as TrainingErrors."""
    try:
        yield
    except BrokenPipeError:  # whoever read our lines has gone: the command line knows what to do
        raise
    except torch.OutOfMemoryError as error:
        message = f"a packed row of {config.batch.row_tokens} tokens is too much for the device: lower batch.row_tokens"
        raise TrainingError(message) from error
    except (OSError, SafetensorError) as error:  # a full disk is the latter where weights are written
        message = f"the run could not go on: {error}"
        raise TrainingError(message) from error


def _run(config: Config, source: Source, whose: dict[str, Any], ranks: Ranks, say: Say, record: Record) -> None:
    folder = Path(config.checkpoint.dir)
    stream = RowStream(
        source,
        seed=config.data.shuffle_seed,
        split=config.data.split,
        encoder=lambda: chat_encoder(config.model, source.manifest),
    )
    extent = checked_extent(stream, config)
    unknown = check_tokenizer(config, source.manifest, extent)
    start = newest(folder, whose, say) or Checkpoint(folder=folder, step=0, data=DataState())
    if not ranks.agree(start.step):
        message = f"the ranks see different checkpoints in {folder}: it must lie where every node can read and write"
        raise TrainingError(message, param="/checkpoint/dir")
    evaluations = Evaluations(config, folder, source.manifest, say, after=start.step, drop=ranks.speaks)
    if start.step >= config.steps and not evaluations.due(start.step, ranks):
        say(f"{start.folder} holds all {config.steps} steps: nothing is left to do")
        return
    resumed = start.folder if start.step else None
    report = RunReport(
        config,
        folder,
        manifest=source.manifest,
        digest=source.digest,
        run=digest(whose),
        rows=stream.rows,
        start=start.step,
    )
    model = load_model(config.model, extent=extent, manifest=source.manifest, checkpoint=resumed, say=say)
    if unknown is not None:
        say(unknown)
    ranks = ranks.spread(model.train(), shard=config.parallel.shard)
    optimizer = build_optimizer(model, config.optimizer)
    if resumed is not None:
        restore_optimizer(start, model, optimizer, ranks)
        say(f"going on from {resumed}")
    on = f"{ranks.world} × {ranks.device.type}" if ranks.grouped else f"{ranks.device}"
    say(f"model: {describe(model)}, on {on}")
    say(f"data: {source.manifest.name or source.manifest.kind}, {stream.rows} rows, positions to {extent.position:,}")
    underway = _Underway(
        config=config,
        model=model,
        optimizer=optimizer,
        ranks=ranks,
        evaluations=evaluations,
        report=report,
        saver=Saver(
            config.checkpoint,
            run=whose,
            tokenizer_from=resumed or tokenizer_folder(config.model, source.manifest),
            ranks=ranks,
            say=say,
        ),
        say=say,
        record=record,
    )
    reading = _step_data(config, stream, start.data)
    try:
        underway.go(_checked(model, reading, ranks, say), start.step)
    finally:
        reading.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Underway:
    """A run whose model stands ready: what its steps need."""

    config: Config
    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    ranks: Ranks
    evaluations: Evaluations
    report: RunReport
    saver: Saver
    say: Say
    record: Record

    def go(self, data: Iterator[StepData], start: int) -> None:
        """All steps after `start`, with what is due between them."""
        evaluated = self.evaluations.at(start, self.model, self.ranks)
        metrics = Metrics(Path(self.config.checkpoint.dir), after=start) if self.ranks.speaks else None
        try:
            if evaluated:
                self.report.write(start, self.model, self.ranks, self.say)
            for step in range(start + 1, self.config.steps + 1):
                batches = next(data)
                measured = {
                    "step": step,
                    **take_step(self.model, self.optimizer, batches, self.config, step, self.ranks),
                }
                if metrics is not None:
                    metrics.write(measured)
                self.record(measured)
                self._after(step, batches.state)
            self.saver.wait()
        finally:
            self.saver.close()
            if metrics is not None:
                metrics.close()

    def _after(self, step: int, state: DataState) -> None:
        """The checkpoint, the evaluation and the report of a step, where they are due."""
        last = step == self.config.steps
        if last or step % self.config.checkpoint.every == 0:
            self.saver.save(step, state, self.model, self.optimizer)
        if self.evaluations.at(step, self.model, self.ranks) or last:
            self.report.write(step, self.model, self.ranks, self.say)


def _step_data(config: Config, stream: RowStream, start: DataState) -> Generator[StepData]:
    """The steps from a state on, read ahead; closing it ends the reader."""
    batch = config.batch
    made = steps(
        stream.rows_from(start),
        row_tokens=batch.row_tokens,
        tokens_per_step=batch.tokens_per_step,
        drop=config.data.too_long == "drop",
    )
    with ahead(made) as ready:
        yield from ready


def checked_extent(stream: RowStream, config: Config) -> Extent:
    """What the data ask of a model; raises DatasetError where a row is too long, or nothing is there to be learnt."""
    size = config.batch.row_tokens
    if config.data.too_long == "refuse" and (found := stream.first_longer_than(size)):
        raise too_long(*found, size)
    extent = stream.extent(size)
    if not extent.targets:
        message = (
            f"the split {config.data.split!r} has nothing to learn: every label is {IGNORED}, or no message is an "
            "assistant's"
        )
        raise DatasetError(message, param="/data/source")
    return extent


def _checked(model: PreTrainedModel, data: Iterator[StepData], ranks: Ranks, say: Say) -> Iterator[StepData]:
    """The same steps, after the model's attention has been checked on the first packed row, by every rank."""
    first = next(data)
    batch = first.batches[0].to(ranks.device)
    ranks.call(model, preflight, batch, ranks.anywhere)
    if ranks.row_group is not None:
        attend_across(model, ranks.row_group)
        shared = padded(ends_of(first.batches[0], CHECKED), ranks.sequence).to(ranks.device)
        ranks.call(model, preflight_across, shared, ranks)
        say(f"a row's attention across {ranks.sequence} processes follows them too")
    checked = ends_of(batch, CHECKED)
    kernel = kernel_of(model, work_dtype(model))
    say(
        f"attention follows the boundaries: checked on {len(checked.cu_seq_lens) - 1} sequences, {checked.tokens} tokens; "
        f"by {kernel}"
    )
    return itertools.chain([first], data)
