"""Best-fit-decreasing bin packing on lengths alone, for whole datasets at once.

Items go by falling length into the fullest bin that still holds them (Johnson, 1973: at most 11/9 of the least number of bins, and far
nearer to it on real lengths). Items of one length are alike, and so are bins with the same room: both are moved in groups, so the work
grows with the number of different lengths and not with the number of items.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray

from packing.chat_tokens import offsets_of


def best_fit(lengths: NDArray[np.int64], capacity: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pack items of `lengths` int64 [n] (1..capacity each) into bins of `capacity`.

    Returns `items` int64 [n], item numbers bin by bin, and `offsets` int64 [bins + 1] into them. Inside a bin items keep their order;
    bins are ordered by their first item. Nothing is cut, dropped or drawn: the same lengths give the same bins. Raises ValueError for
    a length that no bin holds.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= capacity:
        message = f"lengths are {lengths.min()}..{lengths.max()}: a bin holds 1..{capacity}"
        raise ValueError(message)
    bin_of = _assign(lengths, capacity)
    first = np.full(int(bin_of.max(initial=-1)) + 1, len(lengths))
    np.minimum.at(first, bin_of, np.arange(len(lengths)))
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    items = np.argsort(rank[bin_of], kind="stable")
    return items, offsets_of(np.bincount(rank[bin_of], minlength=len(first)))


def _assign(lengths: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """The bin of every item, int64 [n]."""
    order = np.argsort(-lengths, kind="stable")
    sizes, counts = np.unique(-lengths, return_counts=True)
    bin_of = np.empty(len(lengths), np.int64)
    open_bins: dict[int, NDArray[np.int64]] = {}
    """Room left -> bins with that room; `rooms` holds its keys in order."""
    rooms: list[int] = []
    made = start = 0

    def put_back(room: int, bins: NDArray[np.int64]) -> None:
        if room in open_bins:
            open_bins[room] = np.concatenate([open_bins[room], bins])
        elif room and len(bins):
            open_bins[room] = bins
            insort(rooms, room)

    for size, count in zip((-sizes).tolist(), counts.tolist(), strict=True):
        items = order[start : start + count]
        start += count
        while len(items):
            place = bisect_left(rooms, size)
            if place == len(rooms):
                fresh = -(-len(items) // (capacity // size))
                room, bins = capacity, np.arange(made, made + fresh)
                made += fresh
            else:
                room = rooms.pop(place)
                bins = open_bins.pop(room)
            # The fullest bin takes items of one size until it holds no more, then the next: as one by one, but all at once.
            each = room // size
            used = min(len(bins), -(-len(items) // each))
            taken = items[: used * each]
            bin_of[taken] = np.repeat(bins[:used], each)[: len(taken)]
            items = items[len(taken) :]
            last = len(taken) - (used - 1) * each
            put_back(room, bins[used:])
            put_back(room - each * size, bins[: used - 1])
            put_back(room - last * size, bins[used - 1 : used])
    return bin_of
