"""What is counted while rows of chunks are built: fill, documents a row, chunks, and the distances that interleaving makes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from packing.cip_rows import Segments
from packing.cip_stream import Units
from packing.dataset.statistics import Histogram, powers_of_two
from packing.plan import Tally

STRIP_ROWS = 6
"""Rows of the first shard that the strip shows."""


def count_rows(
    tokens: NDArray[np.int64], segments: Segments, units: Units, *, sequence_length: int, tally: Tally
) -> None:
    """Count some rows of `tokens` int64 [R] and their segments.

    `document_span`: from a document's first token in a row to its last, beside `document_tokens`, what the same tokens would span end
    to end.
    `chunk_gap`: tokens of other documents between a document's neighbouring segments in a row.
    """
    edges = powers_of_two(sequence_length)
    tally.count("placed_tokens", int(segments.length.sum()))
    tally.count("segments", len(segments.row))
    tally.histogram("row_tokens", Histogram(edges)).add(tokens)
    tally.histogram("row_fill_percent", Histogram(list(range(102)))).add(tokens * 100 // sequence_length)
    tally.histogram("segment_tokens", Histogram(edges)).add(segments.length)
    document, copy = units.document[segments.unit], units.copy[segments.unit]
    order = np.lexsort((segments.start, copy, document, segments.row))
    row, start, end = segments.row[order], segments.start[order], (segments.start + segments.length)[order]
    opens = np.ones(len(order), bool)
    same = (np.diff(row) == 0) & (np.diff(document[order]) == 0) & (np.diff(copy[order]) == 0)
    opens[1:] = ~same
    first = np.flatnonzero(opens)
    tally.histogram("documents_per_row", Histogram(edges)).add(np.bincount(row[first], minlength=len(tokens)))
    last = np.append(first[1:], len(order)) - 1
    tally.histogram("document_span", Histogram(edges)).add((end[last] - start[first]) if len(first) else end)
    sizes = np.add.reduceat(segments.length[order], first) if len(first) else end
    tally.histogram("document_tokens", Histogram(edges)).add(sizes)
    tally.histogram("chunk_gap", Histogram(edges)).add((start[1:] - end[:-1])[same])


def sample_strip(segments: Segments, names: list[str], first_row: int, tally: Tally) -> None:
    """Keep the segments of the dataset's first rows, to be drawn."""
    shown = np.flatnonzero(segments.row + first_row < STRIP_ROWS)
    for i in shown.tolist():
        tally.sample(
            "strip",
            {
                "row": int(segments.row[i]) + first_row,
                "document": names[i],
                "chunk": int(segments.chunk[i]),
                "start": int(segments.start[i]),
                "end": int(segments.start[i] + segments.length[i]),
            },
        )


def strip_chart(items: list[dict[str, Any]], sequence_length: int) -> dict[str, Any]:
    """The first rows as a Vega-Lite strip: a bar a segment, one colour a document, so that what is woven is seen."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "title": {
            "text": "the first rows",
            "subtitle": "a bar is a run of one document's tokens, its colour the document",
        },
        "width": 720,
        "height": {"step": 28},
        "data": {"values": items},
        "mark": {"type": "bar", "stroke": "white", "strokeWidth": 0.4, "tooltip": {"content": "data"}},
        "encoding": {
            "y": {"field": "row", "type": "ordinal", "title": "row"},
            "x": {
                "field": "start",
                "type": "quantitative",
                "title": "token",
                "scale": {"domain": [0, sequence_length], "nice": False},
            },
            "x2": {"field": "end"},
            "color": {"field": "document", "type": "nominal", "legend": None, "scale": {"scheme": "tableau20"}},
        },
    }


def span_chart(spans: dict[str, Any], tokens: dict[str, Any]) -> dict[str, Any]:
    """How far apart a document's first and last token in a row are, against its tokens there, which is the span that laying it end to end
    would give: two histograms of the same edges in one picture."""
    values = [
        {"from": low, "to": high, "count": count, "rows": name}
        for name, histogram in (("as they are", spans), ("laid end to end", tokens))
        for low, high, count in zip(histogram["edges"][:-1], histogram["edges"][1:], histogram["counts"], strict=True)
    ]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "title": {"text": "span of a document in a row", "subtitle": "tokens from its first to its last"},
        "width": 480,
        "height": 200,
        "data": {"values": values},
        "mark": {"type": "bar", "opacity": 0.6, "binSpacing": 1, "tooltip": True},
        "encoding": {
            "x": {
                "field": "from",
                "type": "quantitative",
                "bin": {"binned": True},
                "title": "tokens",
                "scale": {"type": "symlog"},
                "axis": {"format": "~s", "labelOverlap": True},
            },
            "x2": {"field": "to"},
            "y": {"field": "count", "type": "quantitative", "stack": None, "title": "documents in rows"},
            "color": {"field": "rows", "type": "nominal", "title": None},
        },
    }
