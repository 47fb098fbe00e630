"""The first rows of a dataset at once, and what it will hold: from a sample of the source, without a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packing.dataset.errors import InputError
from packing.plan import Inputs, Tally
from packing.spec import CommonSpec
from service.engine.inputs import FirstRows, StoreInputs
from service.engine.tokenizers import TokenizerRecord
from service.kinds import KINDS
from service.storage.intake import SourceRecord
from service.storage.objects import Objects

PREVIEW_BYTES = 2 * 1024 * 1024


def preview_rows(
    *,
    spec: CommonSpec,
    sources: Mapping[str, SourceRecord],
    tokenizer: TokenizerRecord,
    objects: Objects,
    count: int,
) -> list[dict[str, Any]]:
    """The first rows of shard 0, from the first 2 MB of the source, here and at once; each with a `reading` of its blocks."""
    rows, _ = _sample(spec, sources, tokenizer, objects, count)
    return rows


def estimate(
    *, spec: CommonSpec, sources: Mapping[str, SourceRecord], tokenizer: TokenizerRecord, objects: Objects
) -> dict[str, Any]:
    """The plan's size and, from a sample of the source, what the dataset will hold."""
    inputs = StoreInputs(objects, sources, tokenizer)
    kind = KINDS[spec.kind]
    shards = None if kind.needs_survey(spec) else len(kind.plan(spec, inputs, []).shards)
    sample, tally = _sample(spec, sources, tokenizer, objects, None)
    seen = max(tally.counts.get("source_rows", 0), 1)
    source_rows = sum(record.rows for record in sources.values())
    return {
        "shards": shards,
        "source_rows": source_rows,
        "rows": len(sample) * source_rows // seen,
        "tokens": sum(row["n_tokens"] for row in sample) * source_rows // seen,
        "sampled": seen < source_rows,
        "sample_rows": seen,
        "warnings": kind.conclude(spec, tally),
    }


def _sample(
    spec: CommonSpec,
    sources: Mapping[str, SourceRecord],
    tokenizer: TokenizerRecord,
    objects: Objects,
    count: int | None,
) -> tuple[list[dict[str, Any]], Tally]:
    inputs = FirstRows(StoreInputs(objects, sources, tokenizer), most=PREVIEW_BYTES)
    kind, tally = KINDS[spec.kind], Tally()
    surveys = [kind.survey(spec, piece, inputs) for piece in inputs.pieces] if kind.needs_survey(spec) else []
    rows: list[dict[str, Any]] = []
    for shard in kind.plan(spec, inputs, surveys).shards:
        for batch in kind.build(spec, shard, inputs, tally):
            kind.check(spec, batch)
            if count is None:
                rows += batch.select(["n_tokens"]).to_pylist()
                continue
            rows += [_readable(row, inputs) for row in batch.slice(0, count - len(rows)).to_pylist()]
            if len(rows) >= count:
                return rows, tally
    if not rows:
        message = "the first rows of the source give no row of the dataset: every one was rejected, dropped, or has nothing to train on"
        raise InputError(message, param="/source")
    return rows, tally


def _readable(row: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """A row with the text, positions and trained tokens of every block, for eyes."""
    tokenizer = inputs.tokenizer
    reading: list[dict[str, Any]] = []
    for block in row.get("blocks", []):
        span = slice(block["start"], block["start"] + block["length"])
        reading.append(
            {
                "role": block["role"],
                "positions": [row["position_ids"][span][0], row["position_ids"][span][-1]],
                "trained": sum(label != -100 for label in row["labels"][span]),
                "text": tokenizer.decode(row["input_ids"][span]),
            }
        )
    return {**row, "reading": reading}
