"""The kind `cip`: documents cut into chunks and woven into long rows (LongSkywork, arXiv 2406.00605), and its rivals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, model_validator

from packing import cip_rows
from packing.cip_plan import plan as plan_units
from packing.cip_statistics import count_rows, sample_strip, span_chart, strip_chart
from packing.cip_stream import around, read_units, stream, tied_counts
from packing.cip_units import SPREAD, edges, units
from packing.dataset import schema as schemas
from packing.dataset.errors import DatasetError, InputError
from packing.interleave import MOST_CHUNKS
from packing.knots import knots_of
from packing.plan import Inputs, Piece, Plan, Shard, Survey, Tally
from packing.spec import CommonSpec, Source, field_error

Weight = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Domain = Annotated[str, StringConstraints(max_length=256)]
_ONLY = {
    "chunks": SPREAD,
    "cut": SPREAD,
    "documents_per_sequence": SPREAD,
    "probability": {"untie_knots"},
    "knot_labels": {"untie_knots"},
    "backtrace": {"untie_knots"},
    "upsample": {"upsample"},
    "long_tokens": {"upsample"},
    "domain_weights": {"upsample"},
}
"""Fields that mean something under some orders only."""


class Spec(CommonSpec):
    """The spec of a cip dataset (contract, `kind: cip`)."""

    kind: Literal["cip"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is safe)
    source: Source
    sequence_length: Annotated[int, Field(ge=16, le=2**20)] = 32768
    order: Literal["interleave", "untie_knots", "concatenate", "best_fit", "upsample"] = "interleave"
    chunks: Annotated[int, Field(ge=2, le=MOST_CHUNKS)] = 2
    cut: Literal["random", "equal"] = "random"
    documents_per_sequence: Literal["auto"] | Annotated[int, Field(ge=2, le=2**20)] = "auto"
    attention: Literal["full", "document"] = "full"
    drop_remainder: bool = False
    max_document_bytes: Annotated[int, Field(ge=1, le=2**28)] = 100_000_000
    deduplicate: bool = False
    bos: Literal["auto", "document", "none"] = "auto"
    special_tokens_in_text: Literal["escape", "refuse", "allow"] = "escape"
    strata: bool = False
    probability: Annotated[float, Field(ge=0, le=1)] = 0.8
    knot_labels: bool = True
    backtrace: bool = True
    upsample: Annotated[float, Field(gt=0, le=1000)] = 5.0
    long_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    domain_weights: Annotated[dict[Domain, Weight], Field(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="after")
    def _fields_of_the_order(self) -> Self:
        for name, orders in _ONLY.items():
            if self.order not in orders and getattr(self, name) != type(self).model_fields[name].default:
                message = f"{name} goes with order {' or '.join(sorted(orders))}, not with {self.order}"
                raise field_error(name, message, getattr(self, name))
        if self.domain_weights is not None and not sum(self.domain_weights.values()) > 0:
            message = "domain_weights are all zero: at least one domain has to be wanted"
            raise field_error("domain_weights", message, None)
        return self

    def sources(self) -> Mapping[str, Source]:
        """The one source."""
        return {"/source": self.source}


def needs_survey(spec: Spec) -> bool:  # noqa: ARG001 (every kind is asked)
    """Always: rows are composed over the whole corpus, and what was tokenised once is kept."""
    return True


def survey(spec: Spec, piece: Piece, inputs: Inputs, tally: Tally) -> Survey:
    """The units of a piece and their tokens: see packing.cip_units."""
    return units(spec, piece, inputs, tally)


def plan(spec: Spec, inputs: Inputs, surveys: Sequence[pa.Table]) -> Plan:
    """Runs of rows, composed over the whole corpus: see packing.cip_plan."""
    bos, eos = edges(spec, inputs)
    sizes: NDArray[np.int64] | None = None
    if spec.order == "untie_knots":
        found = pa.concat_tables([s.replace_schema_metadata(None) for s in surveys])
        length, document, piece = (found.column(n).to_numpy().astype(np.int64) for n in ("length", "document", "piece"))
        counts = tied_counts(spec, length, document, piece)
        marks = knots_of(inputs.tokenizer).overhead(counts, labels=spec.knot_labels, backtrace=spec.backtrace)
        sizes = np.where(counts > 1, marks, 0)
    return plan_units(spec, surveys, sizes, bos=len(bos), eos=len(eos))


def schema(spec: Spec) -> pa.Schema:  # noqa: ARG001 (every kind is asked for the schema of its spec)
    """The columns of every row."""
    return schemas.CIP


def build(spec: Spec, shard: Shard, inputs: Inputs, tally: Tally) -> Iterator[pa.RecordBatch]:
    """The rows of one shard."""
    assert shard.table is not None
    bos, eos = edges(spec, inputs)
    knots = knots_of(inputs.tokenizer) if spec.order == "untie_knots" else None
    found = read_units(shard.table, inputs, around(bos, eos, knots))
    whole = stream(spec, found, bos=len(bos), eos=len(eos), knots=knots)
    first, rows, size = shard.work["first"], shard.work["rows"], spec.sequence_length
    cut = cip_rows.cut_rows(whole, first=first, rows=rows, size=size)
    tokens = np.bincount(cut.row, weights=cut.length, minlength=rows).astype(np.int64)
    dropped = (tokens < size) if spec.drop_remainder else np.zeros(rows, bool)
    _count_dropped(cut, tokens, dropped, tally)
    apart = spec.attention == "document"
    chunks = spec.chunks if spec.order in SPREAD else 0
    names = shard.table.column("id")
    for batch, segments in cip_rows.batches(
        cut, whole, found, names, apart=apart, chunks=chunks, chosen=np.flatnonzero(~dropped)
    ):
        n_tokens = batch.column("n_tokens").to_numpy().astype(np.int64)
        count_rows(n_tokens, segments, found, sequence_length=size, tally=tally)
        if shard.index == 0 and not tally.samples:
            sample_strip(segments, names.take(pa.array(segments.unit)).to_pylist(), 0, tally)
        yield batch


def _count_dropped(cut: cip_rows.Cut, tokens: NDArray[np.int64], dropped: NDArray[np.bool_], tally: Tally) -> None:
    """Count what short rows that are not kept would have held."""
    lost = dropped[cut.row] & (cut.chunk >= 0)
    tally.count("remainder_tokens", int(tokens[dropped].sum()))
    tally.count("remainder_source_tokens", int(cut.length[lost].sum()))


def check(spec: Spec, batch: pa.RecordBatch) -> None:
    """Raise DatasetError where a row breaks an invariant: see packing.cip_rows."""
    cip_rows.check(
        batch,
        sequence_length=spec.sequence_length,
        marked=spec.order == "untie_knots",
        repeats=spec.order == "upsample",
    )


def conclude(spec: Spec, tally: Tally) -> list[str]:
    """Refuse a dataset without rows, or one that lost a token on the way; warn of what undoes the method."""
    counts = tally.counts
    if not counts.get("documents"):
        first = f", the first: {tally.rejected[0]['reason']}" if tally.rejected else ""
        message = f"no document is left: all of {counts.get('source_rows', 0)} rows were rejected or empty{first}"
        raise InputError(message, param="/source")
    if not counts.get("placed_tokens"):
        message = (
            f"the corpus has {counts['source_tokens']} tokens, which do not fill one row of {spec.sequence_length} tokens: "
            "say drop_remainder: false, or a smaller sequence_length"
        )
        raise InputError(message, param="/sequence_length")
    _prove(spec, counts)
    warnings: list[str] = []
    if spec.attention == "document" and spec.order in SPREAD:
        warnings.append(
            "attention: document keeps the chunks of one document apart, which undoes what interleaving is for"
        )
    if counts.get("documents") == 1 and spec.order in SPREAD:
        warnings.append("the corpus is one document: there is nothing to interleave it with")
    return warnings


def _prove(spec: Spec, counts: Mapping[str, int]) -> None:
    """Tokens in are tokens out: what surveys tokenised is what rows hold, and what the manifest says is missing."""
    wanted = counts["source_tokens"] - counts.get("duplicate_tokens", 0)
    if spec.order == "upsample":
        wanted = counts["upsampled_tokens"]
    found = counts["placed_tokens"] + counts.get("remainder_source_tokens", 0)
    if wanted != found:
        message = (
            f"the rows hold {found} tokens of the {wanted} there are: this is a defect of Longweave, not of the corpus"
        )
        raise DatasetError(message)


def charts(spec: Spec, tally: Tally) -> dict[str, Any]:
    """The first rows as a strip, and the spans of documents against those of documents laid end to end."""
    histograms = tally.to_json()["histograms"]
    return {
        "interleave_strip": strip_chart(tally.samples.get("strip", []), spec.sequence_length),
        "document_span_against_concatenation": span_chart(histograms["document_span"], histograms["document_tokens"]),
    }
