"""Best-fit-decreasing bin packing on lengths alone, for whole datasets at once.

Items go by falling length into the fullest bin that still holds them (Johnson, 1973: at most 11/9 of the least number of bins, and far
nearer to it on real lengths). Items of one length are alike, and so are bins with the same room: both are moved in groups, and a move is
four numbers, so the work grows with the number of different lengths and not with the number of items. Which item lies in which bin
follows from the moves, all at once.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packing.bin_runs import filled
from packing.chat_tokens import offsets_of, within

Unsigned = np.unsignedinteger[Any]
NEARLY = 2e-5
"""Bins beyond the least number of them that runs of items may cost, as a share."""


def best_fit(lengths: NDArray[np.int64], capacity: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pack items of `lengths` int64 [n] (1..capacity each) into bins of `capacity`.

    Returns `items` int64 [n], item numbers bin by bin, and `offsets` int64 [bins + 1] into them. Inside a bin items keep their order;
    bins are ordered by their first item. Nothing is cut, dropped or drawn: the same lengths give the same bins. Raises ValueError for
    a length that no bin holds.
    """
    lengths = np.asarray(lengths, np.int64)
    if not len(lengths):
        return np.zeros(0, np.int64), np.zeros(1, np.int64)
    if not 1 <= lengths.min() <= lengths.max() <= capacity:
        message = f"lengths are {lengths.min()}..{lengths.max()}: a bin holds 1..{capacity}"
        raise ValueError(message)
    narrow = lengths.astype(np.min_scalar_type(capacity))
    least = -(-int(lengths.sum()) // capacity)
    found = _by_runs(narrow, capacity)
    bins = np.count_nonzero(found[2]) if found else 0
    # A bin more than the least is worth a look whether best-fit does without it.
    if found is None or bins > least * (1 + NEARLY):
        other = _by_best_fit(narrow, capacity)
        found = other if found is None or len(other[2]) <= bins else found
    bin_of, first, counts = found
    order = in_order(first)[: np.count_nonzero(counts)]
    rank = np.empty(len(first), np.min_scalar_type(len(first)))
    rank[order] = np.arange(len(order))
    return in_order(rank.take(bin_of)), offsets_of(counts[order])


Packed = tuple[NDArray[Unsigned], NDArray[np.int64], NDArray[np.int64]]
"""The bin of every item [n], and of every bin its first item and how many it has, int64 [bins] both; bins without any come last by the
former."""


def _by_best_fit(lengths: NDArray[Unsigned], capacity: int) -> Packed:
    """All bins by best-fit."""
    bin_of = _assign(lengths, capacity)
    counts = np.bincount(bin_of)
    return bin_of, _firsts(bin_of, np.arange(len(lengths)), len(counts)), counts


def _by_runs(lengths: NDArray[Unsigned], capacity: int) -> Packed | None:
    """Most bins by runs of items, the rest by best-fit."""
    found = filled(lengths, capacity)
    if found is None or not len(found.left):
        return found and (found.bin_of, found.first, found.counts)
    rest = _assign(lengths[found.left], capacity)
    more = np.bincount(rest)
    found.bin_of[found.left] = rest.astype(found.bin_of.dtype) + found.bin_of.dtype.type(len(found.counts))
    firsts = _firsts(rest, found.left, len(more))
    return found.bin_of, np.append(found.first, firsts), np.append(found.counts, more)


def _firsts(bin_of: NDArray[Unsigned], items: NDArray[np.int64], bins: int) -> NDArray[np.int64]:
    """The first of the `items` int64 [k], which rise, of every bin: int64 [bins]."""
    first = np.empty(bins, np.int64)
    first[bin_of[::-1]] = items[::-1]  # of several that are written to one place the last stays
    return first


def in_order(values: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """What sorts `values` [n], whole numbers and none below 0, equal ones as they come: int64 [n].

    numpy sorts numbers of 32 bits by vectors, in a quarter of the time that it takes to sort their places: so a value and its place are
    one number. Numbers of 16 bits it sorts by their digits.
    """
    places = max(len(values) - 1, 0).bit_length()
    bits = int(values.max(initial=0)).bit_length()
    if bits <= 16 and places + bits > 32:
        return np.argsort(values.astype(np.uint16, copy=False), kind="stable")
    if places + bits > 64:
        return np.argsort(values, kind="stable")
    kind = np.uint32 if places + bits <= 32 else np.uint64
    keys = values.astype(kind)
    keys <<= kind(places)
    keys |= np.arange(len(values), dtype=kind)
    keys.sort()
    keys &= kind((1 << places) - 1)
    return keys.astype(np.int64)


def _assign(lengths: NDArray[Unsigned], capacity: int) -> NDArray[Unsigned]:
    """Best-fit-decreasing: the bin of every item of `lengths` [n], n > 0; [n] of the narrowest type that holds n."""
    order = in_order(lengths.dtype.type(capacity) - lengths)
    falling = lengths[order]
    starts = np.append(0, np.flatnonzero(falling[1:] != falling[:-1]) + 1)
    moves = _moves(falling[starts].astype(np.int64), np.diff(starts, append=len(falling)), capacity)
    bins, items = _followed(moves, capacity)
    by_size = np.repeat(bins.astype(np.min_scalar_type(len(lengths))), items)
    bin_of = np.empty_like(by_size)
    bin_of[order] = by_size
    return bin_of


def _moves(sizes: NDArray[np.int64], counts: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """Put items of falling `sizes` int64 [K], `counts` int64 [K] of each, into bins: moves (room, size, bins, items), int64 [M, 4].

    A move takes `bins` bins with so much `room` left, or new ones where that is `capacity`, and puts as many items of `size` into each as
    it holds, into the last those that are left of `items`.
    """
    # No two of those above half a bin share one.
    alone = int(np.searchsorted(-sizes, -(capacity // 2)))
    room, bins = capacity - sizes[:alone], counts[:alone]
    first = np.stack([np.full(alone, capacity), sizes[:alone], bins, bins], axis=1)
    held = dict(zip(room.tolist(), bins.tolist(), strict=True))
    """Room left -> how many bins have it; `rooms` holds its keys in order. A room of 0 may stand there: nothing asks for it."""
    rooms = list(held)
    moves: list[int] = []
    for size, count in zip(sizes[alone:].tolist(), counts[alone:].tolist(), strict=True):
        left = count
        while left:
            place = bisect_left(rooms, size)
            new = place == len(rooms)
            room = capacity if new else rooms[place]
            # The fullest bin takes items of one size until it holds no more, then the next: as one by one, but all at once.
            each = room // size
            bins = full = -(-left // each)
            if not new and held[room] > bins:
                held[room] -= bins
            elif not new:
                bins = full = held.pop(room)
                del rooms[place]
            items = bins * each
            if items > left:
                items, full = left, bins - 1
                _put(held, rooms, room - (items - full * each) * size, 1)
            moves += (room, size, bins, items)
            left -= items
            if full:
                _put(held, rooms, room - each * size, full)
    return np.concatenate([first, np.array(moves, np.int64).reshape(-1, 4)])


def _put(held: dict[int, int], rooms: list[int], room: int, bins: int) -> None:
    if room in held:
        held[room] += bins
    else:
        held[room] = bins
        insort(rooms, room)


def _followed(moves: NDArray[np.int64], capacity: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which bins the `moves` int64 [M, 4] filled, move by move, and with how many items: two int64 [all the moves' bins].

    Bins with one room left stand in a queue. Every bin of every move is a node, which pushes the bin into the queue of the room that is
    then left; the p-th that later moves take from there is the p-th that was pushed, so a node knows the one before it.
    """
    room, size, bins, items = moves.T
    each = room // size
    move = np.repeat(np.arange(len(moves)), bins)
    put = each[move]
    put[np.cumsum(bins) - 1] = items - (bins - 1) * each
    left = room[move] - put * size[move]
    pushed = in_order(left)
    # How many bins earlier moves have taken from the same queue.
    by_room = in_order(room)
    before = offsets_of(bins[by_room])[:-1]
    opens = np.diff(room[by_room], prepend=-1) > 0
    taken = np.empty(len(moves), np.int64)
    taken[by_room] = before - np.repeat(before[opens], np.diff(np.flatnonzero(opens), append=len(opens)))
    new = (room == capacity)[move]
    place = (np.searchsorted(left[pushed], room) + taken)[move] + within(bins)
    came_from = np.arange(len(move))
    came_from[~new] = pushed[place[~new]]
    while not np.array_equal(earlier := came_from[came_from], came_from):
        came_from = earlier
    return (np.cumsum(new) - 1)[came_from], put
