"""What is counted while skipalign rows are built: how many skip and why not, spans, distances, coverage, fill."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from packing.chat_tokens import offsets_of
from packing.dataset.statistics import Histogram, even_edges, powers_of_two
from packing.plan import Tally
from packing.positions import NOT_DRAWN, REASONS, SKIPPED, Placement
from packing.skipalign_rows import Layout


class SizedSpec(Protocol):
    """What a spec says of sizes."""

    @property
    def max_length(self) -> int: ...
    @property
    def max_position(self) -> int: ...


def reason_name(reason: int) -> str:
    """The counter of a reason not to skip."""
    return "unskipped_" + REASONS[reason].replace(" ", "_")


def count_rows(spec: SizedSpec, trained: NDArray[np.bool_], layout: Layout, placement: Placement, tally: Tally) -> None:
    """Count some rows: `trained` bool [T], their layout and placement."""
    tokens = layout.tokens[layout.units]
    sizes, skipped = np.diff(tokens), placement.reason == SKIPPED
    last = placement.positions[tokens[1:] - 1].astype(np.int64)
    rows = np.diff(tokens[layout.rows])
    tally.count("conversations", len(sizes))
    tally.count("sequences", len(layout.sequences) - 1)
    tally.count("tokens", int(sizes.sum()))
    tally.count("trained_tokens", int(np.count_nonzero(trained)))
    tally.count("conversations_skipped", int(skipped.sum()))
    tally.count("conversations_eligible", int((skipped | (placement.reason == NOT_DRAWN)).sum()))
    for reason in range(1, len(REASONS)):
        tally.count(reason_name(reason), int((placement.reason == reason).sum()))
    lengths, spans, far = _edges(spec.max_length, spec.max_position)
    tally.histogram("row_tokens", Histogram(lengths)).add(rows)
    tally.histogram("row_fill_percent", Histogram(list(range(102)))).add(rows * 100 // spec.max_length)
    tally.histogram("conversation_tokens", Histogram(lengths)).add(sizes)
    tally.histogram("span_of_skipped", Histogram(spans)).add((last + 1 - sizes)[skipped])
    starts, lengths, _ = placement.runs
    tally.histogram("positions", Histogram(far)).add_runs(starts, lengths)
    own, first, lengths = distances_to_prompts(placement)
    tally.histogram("distance_to_prompt", Histogram(far)).add_runs(own, lengths)
    tally.histogram("distance_to_first_prompt", Histogram(far)).add_runs(first, lengths)


@lru_cache(maxsize=16)
def _edges(max_length: int, max_position: int) -> tuple[list[int], list[int], list[int]]:
    """The edges of histograms: of lengths, of spans, and of positions and distances."""
    return powers_of_two(max_length), even_edges(max_position), even_edges(max(max_position, max_length), 128)


def distances_to_prompts(placement: Placement) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """How far every response token is, in positions, from the end of the prompt before it and from the end of its conversation's first
    prompt, for all response tokens that have a prompt, as runs of tokens one apart: both distances of a run's first token, and how many
    tokens it has, int64 [runs]."""
    sequences = placement.sequences
    row, ends = sequences.of_block, offsets_of(sequences.lengths)[1:] - 1
    number = np.arange(len(sequences.lengths))
    prompt = np.maximum.accumulate(np.where(sequences.responses, -1, number))
    answers = sequences.responses & (prompt >= sequences.offsets[:-1][row])
    # The first prompt ends where the first response begins; it may be several blocks (pose and cream split them).
    first_answer = np.full(len(sequences.row), len(number))
    np.minimum.at(first_answer, row[answers], number[answers])
    starts, lengths, block = placement.runs
    of_answers = answers[block]
    starts, lengths, block = starts[of_answers], lengths[of_answers], block[of_answers]
    own, first = (placement.positions[ends[last]] for last in (prompt[block], first_answer[row[block]] - 1))
    return starts - own, starts - first, lengths
