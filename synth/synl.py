"""The kind `synl`: conversations about long synthetic tables, of exact length, whose every answer can be recomputed (LongSkywork, arXiv
2406.00605, names the idea and three families; columns, formats, questions and this pipeline are ours)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.chat import ChatTemplate
from packing.dataset import schema as schemas
from packing.dataset.errors import DatasetError, FieldProblem, SpecError
from packing.plan import Inputs, Piece, Plan, Shard, Survey, Tally
from packing.skipalign_plan import cut_by_tokens, runs
from synth import synl_rows, synl_statistics
from synth.audit.rows import audit
from synth.synl_spec import Span, Spec
from synth.tables.fit import fitted_rows
from synth.tables.lengths import TokenCounter, targets
from synth.tables.minimum import minimum_length
from synth.values.pools import Split

__all__ = ["Spec", "build", "charts", "check", "conclude", "needs_survey", "plan", "schema", "survey"]

SHARD_TOKENS = 2 * 1024 * 1024
"""Tokens of a shard where the spec says nothing: some seconds' work."""
FIRST_ROWS, BATCH_ROWS, BATCH_TOKENS = 4, 64, 256 * 1024
"""Rows of a shard's first batch, which a preview waits for, and of every other; where batches end leaves no trace in a file."""
AUDITED = 16
"""One row in so many has its answers recomputed while it is built, and the first row of every shard."""


def needs_survey(spec: Spec) -> bool:  # noqa: ARG001 (every kind is asked)
    """There is no source to look at."""
    return False


def survey(spec: Spec, piece: Piece, inputs: Inputs, tally: Tally) -> Survey:  # noqa: ARG001 (every kind has one)
    """Never called: there is no source."""
    raise AssertionError("a synl dataset has no source to survey")


def plan(spec: Spec, inputs: Inputs, surveys: Sequence[pa.Table]) -> Plan:  # noqa: ARG001 (there are no surveys)
    """Split by split, runs of rows that together have about as many tokens as a shard shall. Raises SpecError where a length is too
    small for the smallest table of the mix."""
    counts = split_rows(spec)
    _require_room(spec, inputs, next(iter(counts)))
    shards: list[Shard] = []
    first = 0
    for split, count in counts.items():
        spans = _runs(spec, np.arange(first, first + count))
        for number, (a, b) in enumerate(spans):
            work = {"first": first + a, "rows": b - a}
            shards.append(Shard(index=len(shards), split=split, number=number, of=len(spans), work=work))
        first += count
    return Plan(shards=tuple(shards))


def split_rows(spec: Spec) -> dict[Split, int]:
    """Rows of each split, train before test: `samples` by weight, at least one for a split that has a weight where there are two rows."""
    total = sum(spec.split.values())
    share = spec.split.get("test", 0) / total
    test = round(spec.samples * share)
    if 0 < share < 1 and spec.samples > 1:
        test = min(max(test, 1), spec.samples - 1)
    counts: dict[Split, int] = {"train": spec.samples - test, "test": test}
    return {split: count for split, count in counts.items() if count}


def _lengths(spec: Spec, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many tokens each row is to have, int64 [n]."""
    length = (spec.length.min, spec.length.max, spec.length.draw) if isinstance(spec.length, Span) else spec.length
    return targets(length, seed=spec.seed, rows=rows)


def _runs(spec: Spec, rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    if spec.shard_rows:
        return runs(np.arange(0, len(rows), spec.shard_rows), len(rows))
    return runs(cut_by_tokens(_lengths(spec, rows), spec.shard_tokens or SHARD_TOKENS), len(rows))


def _counter(spec: Spec, inputs: Inputs) -> TokenCounter:
    source = spec.chat_template or inputs.tokenizer.chat_template
    return TokenCounter(inputs.tokenizer, ChatTemplate.of(source, inputs.tokenizer, today=spec.template_date))


def _require_room(spec: Spec, inputs: Inputs, split: Split) -> None:
    least = minimum_length(spec.mix(), _counter(spec, inputs), split)
    if isinstance(spec.length, Span):
        too_small = {"/length/min": spec.length.min} if spec.length.min < least else {}
    else:
        too_small = {f"/length/{i}": length for i, length in enumerate(spec.length) if length < least}
    if too_small:
        raise SpecError(
            [
                FieldProblem(
                    pointer=pointer,
                    message=f"{length} tokens are too few: the smallest tables of these formats, locales, schemas and turns, with "
                    f"questions and answers, need {least} by this tokenizer",
                )
                for pointer, length in too_small.items()
            ]
        )


def schema(spec: Spec) -> pa.Schema:  # noqa: ARG001 (every kind is asked for the schema of its spec)
    """The columns of every row."""
    return schemas.SYNL


def build(spec: Spec, shard: Shard, inputs: Inputs, tally: Tally) -> Iterator[pa.RecordBatch]:
    """The rows of one shard, each a function of (spec, row number, tokenizer). Some have their answers recomputed by the independent
    audit; raises AnswerError where one is wrong."""
    counter, mix = _counter(spec, inputs), spec.mix()
    first, count = int(shard.work["first"]), int(shard.work["rows"])
    split: Split = "test" if shard.split == "test" else "train"
    lengths = _lengths(spec, np.arange(first, first + count))
    for a, b in _batches(lengths):
        rows, targets = range(first + a, first + b), lengths[a:b].tolist()
        made = list(fitted_rows(mix, counter, seed=spec.seed, rows=rows, split=split, targets=targets))
        records = [synl_rows.record(row, split, found) for row, found in zip(rows, made, strict=True)]
        synl_statistics.count_rows(spec, records, made, tally)
        for row, record in zip(rows, records, strict=True):
            if row == first or row % AUDITED == 0:
                tally.count("rows_audited")
                tally.count("answers_audited", audit(record))
        yield synl_rows.batch_of(records, made)
    tally.count("tokenizer_disagreements", counter.disagreed)
    if counter.template_disagreed:
        tally.count("template_disagreements", counter.template_disagreed)


def _batches(lengths: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where the batches of a shard begin and end."""
    begin, tokens, most = 0, 0, FIRST_ROWS
    for end, length in enumerate(lengths.tolist(), 1):
        tokens += length
        if end - begin == most or tokens >= BATCH_TOKENS:
            yield begin, end
            begin, tokens, most = end, 0, BATCH_ROWS
    if begin < len(lengths):
        yield begin, len(lengths)


def check(spec: Spec, batch: pa.RecordBatch) -> None:
    """Raise DatasetError where a row breaks an invariant: see synth.synl_rows."""
    numbers = synl_rows.numbers(batch)
    if ((numbers < 0) | (numbers >= spec.samples)).any():
        message = f"a row's number is not one of the {spec.samples} that the spec asks for"
        raise DatasetError(message, param="id")
    shorter = spec.small_tables is not None and spec.small_tables.most_rows is not None
    synl_rows.check(batch, lengths=_lengths(spec, numbers).tolist(), most_turns=spec.turns.max, shorter=shorter)


def conclude(spec: Spec, tally: Tally) -> list[str]:
    """Warn where no question could be asked in vain though some were wanted."""
    if spec.unanswerable > 0 and not tally.counts.get("questions_unanswerable") and tally.counts.get("questions"):
        return [
            "no question is unanswerable: the dataset is small, or its tasks (count, group, membership) always have an answer"
        ]
    return []


def charts(spec: Spec, tally: Tally) -> dict[str, Any]:  # noqa: ARG001 (every kind is asked)
    """Questions by task."""
    return synl_statistics.charts(tally)
