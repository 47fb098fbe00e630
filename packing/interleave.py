"""Where documents are cut into chunks, and in what order chunks of a group of documents follow each other.

CIP (LongSkywork, arXiv 2406.00605): every document is cut into n chunks; chunk j of every document comes before chunk j + 1 of any, in
a fixed order of the documents, and one that has fewer drops out of later rounds: A1 B1 C1 A2 C2. Untie the Knots (arXiv 2409.04774):
the chunks of a group take the slots of one random permutation, those of a document in their order, so that gaps are random.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from packing.chat_tokens import offsets_of, within
from packing.draws import Draws

MOST_CHUNKS = 64


def chunk_counts(lengths: NDArray[np.int64], chunks: int) -> NDArray[np.int64]:
    """How many chunks units of `lengths` int64 [U] give: `chunks`, or one a token where there are fewer tokens; int64 [U]."""
    return np.minimum(lengths, chunks)


def equal_cuts(lengths: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where chunks begin, int64 [sum of counts], unit by unit: chunks of a unit differ by at most one token."""
    of = np.repeat(np.arange(len(counts)), counts)
    return lengths[of] * within(counts) // counts[of]


def random_cuts(
    lengths: NDArray[np.int64],
    counts: NDArray[np.int64],
    *,
    document: NDArray[np.int64],
    piece: NDArray[np.int64],
    copy: NDArray[np.int64],
    draws: Draws,
) -> NDArray[np.int64]:
    """Where chunks begin, int64 [sum of counts], unit by unit: 0 and counts - 1 different places, every set of them equally likely.

    Floyd's sampling (Bentley and Floyd, "A sample of brilliance", CACM 1987), a step for all units at once. `document`, `piece` and `copy`
    int64 [U] key the draws.
    """
    starts = np.zeros(int(counts.sum()), np.int64)
    firsts = offsets_of(counts)[:-1]
    for count in np.unique(counts[counts > 1]).tolist():
        units = np.flatnonzero(counts == count)
        places = np.zeros((len(units), count - 1), np.int64)
        for step in range(count - 1):
            top = lengths[units] - count + 1 + step
            drawn = 1 + draws.integer(top - 1, document[units], piece[units] * MOST_CHUNKS + step, copy[units])
            taken = (places[:, :step] == drawn[:, None]).any(axis=1)
            places[:, step] = np.where(taken, top, drawn)
        starts[firsts[units][:, None] + np.arange(1, count)] = np.sort(places, axis=1)
    return starts


def chunk_lengths(
    lengths: NDArray[np.int64], counts: NDArray[np.int64], starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Tokens of every chunk, int64 [sum of counts], from where they begin."""
    ends = np.append(starts[1:], 0)
    ends[offsets_of(counts)[1:] - 1] = lengths
    return ends - starts


def round_of(
    counts: NDArray[np.int64], group: NDArray[np.int64], document: NDArray[np.int64], piece: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The number that a unit's first chunk has among those of its document in the group, int64 [U].

    0, but for the pieces of a long document that meet in one group: the later piece goes on where the earlier one ends, so that the
    document's order is kept.
    """
    order = np.lexsort((piece, document, group))
    same = np.zeros(len(order), bool)
    same[1:] = (np.diff(group[order]) == 0) & (np.diff(document[order]) == 0)
    before = offsets_of(counts[order])[:-1]
    base = np.maximum.accumulate(np.where(same, 0, before)) if len(order) else before
    found = np.empty(len(order), np.int64)
    found[order] = before - base
    return found


def woven(counts: NDArray[np.int64], group: NDArray[np.int64], first_round: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order of all chunks, int64 [sum of counts], numbers into the chunks unit by unit: group by group, round by round, and in a round
    in the order of the units. `group` int64 [U] rises."""
    unit = np.repeat(np.arange(len(counts)), counts)
    return np.lexsort((unit, within(counts) + first_round[unit], group[unit]))


def scattered(
    counts: NDArray[np.int64],
    group: NDArray[np.int64],
    *,
    document: NDArray[np.int64],
    piece: NDArray[np.int64],
    first_round: NDArray[np.int64],
    draws: Draws,
) -> NDArray[np.int64]:
    """The order of all chunks, int64 [sum of counts]: in every group one random permutation of slots, of which a document's chunks take
    theirs in their own order. A unit of one chunk that is part of a document takes any slot."""
    unit = np.repeat(np.arange(len(counts)), counts)
    number = within(counts)
    slot = draws.uniform(document[unit], piece[unit] * MOST_CHUNKS + number)
    by_slot = np.lexsort((slot, group[unit]))
    by_document = np.lexsort((number + first_round[unit], document[unit], group[unit]))
    # The i-th slot that a document holds in a group goes to the i-th of its chunks there.
    held = by_slot[np.lexsort((np.arange(len(unit)), document[unit][by_slot], group[unit][by_slot]))]
    place = np.empty(len(unit), np.int64)
    place[by_slot] = np.arange(len(unit))
    order = np.empty(len(unit), np.int64)
    order[place[held]] = by_document
    return order
