"""The first rows of a dataset at once, and what it will hold: from a sample of the source, without a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from packing.dataset.errors import InputError
from packing.plan import Inputs
from packing.spec import CommonSpec
from service.engine.inputs import StoreInputs
from service.engine.line import check_tokens
from service.engine.sample import Sample
from service.engine.tokenizers import TokenizerRecord
from service.kinds import KINDS
from service.storage.objects import Objects
from service.storage.source_record import SourceRecord

PREVIEW_BYTES = 2 * 1024 * 1024
PART_TOKENS = 2000
"""Tokens of a block or segment that a reading spells out; the row itself has them all."""
SAMPLE_ROWS = 64
"""Rows an estimate is taken from where there is no source to take a sample of."""


def preview_rows(
    *,
    spec: CommonSpec,
    sources: Mapping[str, SourceRecord],
    tokenizer: TokenizerRecord,
    objects: Objects,
    count: int,
) -> list[dict[str, Any]]:
    """The first rows of shard 0, from the first 2 MB of every source, here and at once; rows of tokens with a `reading`."""
    check_tokens(spec, sources, tokenizer)
    sample = Sample(spec, sources, tokenizer, objects, most=PREVIEW_BYTES)
    rows = sample.rows(count).to_pylist()
    if not rows:
        sample.kind.conclude(spec, sample.tally)
        message = "the first rows of the source give no row of the dataset: every one was rejected, dropped, or has nothing to train on"
        raise InputError(message, param="/source")
    return [_readable(row, sample.inputs) for row in rows]


def plan_ahead(*, spec: CommonSpec, tokenizer: TokenizerRecord, objects: Objects) -> None:
    """Make the plan of a spec without sources, to raise what would be wrong with it before a job is made: a length too small, say."""
    kind = KINDS[spec.kind]
    if not spec.sources() and not spec.part_specs() and not kind.needs_survey(spec):
        sample = spec.for_sample()
        # Fewer of the same rows, where a kind has that: nothing else may differ from what will be planned.
        spec = sample if sample.wanted() != spec.wanted() else spec
        kind.plan(spec, StoreInputs(objects, {}, tokenizer), [])


def estimate(
    *, spec: CommonSpec, sources: Mapping[str, SourceRecord], tokenizer: TokenizerRecord, objects: Objects
) -> dict[str, Any]:
    """The plan's size and, from a sample of the source, what the dataset will hold."""
    check_tokens(spec, sources, tokenizer)
    sample = Sample(spec, sources, tokenizer, objects, most=PREVIEW_BYTES)
    own = [record.rows for pointer, record in sources.items() if pointer in spec.sources()]
    seen, source_rows = sum(piece.rows for piece in sample.inputs.pieces), sum(own)
    table = sample.rows(None if own and spec.expected_tokens() is None else SAMPLE_ROWS)
    rows, tokens = table.num_rows, int(np.sum(table.column("n_tokens").to_numpy()))
    wanted = spec.wanted()
    have = {"rows": rows, "tokens": tokens}
    scale = wanted[1] / max(have[wanted[0]], 1) if wanted else source_rows / max(seen, 1)
    whole = not spec.part_specs() and seen == source_rows and bool(own)
    return {
        "shards": None if sample.kind.needs_survey(spec) else sample.shards(sources),
        "source_rows": source_rows,
        "rows": round(rows * scale),
        "tokens": spec.expected_tokens() or round(tokens * scale),
        "sampled": not whole,
        "sample_rows": seen if own else rows,
        "warnings": sample.kind.conclude(spec, sample.tally) if own else [],
    }


def _readable(row: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """A row of tokens with the text of every block, or of every segment, for eyes: positions and trained tokens of each."""
    if "input_ids" not in row:
        return row
    tokenizer = inputs.tokenizer
    reading: list[dict[str, Any]] = []
    for part in row.get("blocks") or row.get("segments") or ():
        span = slice(part["start"], part["start"] + part["length"])
        positions = row["position_ids"][span] if "position_ids" in row else [span.start, span.stop - 1]
        known = {name: part[name] for name in ("role", "document", "chunk") if name in part}
        text = tokenizer.decode(row["input_ids"][span][:PART_TOKENS])
        trained = sum(label != -100 for label in row["labels"][span])
        reading.append({**known, "positions": [positions[0], positions[-1]], "trained": trained, "text": text})
    return {**row, "reading": reading}
