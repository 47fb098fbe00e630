"""The uniform numbers that the cells of tables are made of, drawn for many tables in one call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from packing.draws import Draws
from synth.tables.schema import Part, Schema

VARIANTS = 64
"""Draws of one attempt, of four uniforms each: more than any table takes."""
AT_ONCE = 4
MAIN, SECOND = "synl/cells", "synl/second"
"""The paths of the draws."""
HIDDEN_ROWS = 24
"""Rows of a second table that is not shown, to whose keys the main one refers."""
DRAWN_AT_ONCE = 1 << 15
"""Uniforms that are drawn in one call for several tables: as many as stay in a core's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The tables of one attempt at a conversation: about so many rows of the main one, and of the second one where it is shown."""

    row: int
    attempt: int
    schema: Schema
    main: int
    second: int | None

    def draw(self, path: str, distractors: float) -> Draw | None:
        """What has to be drawn for one of them; None for a second table that there is not."""
        if path == MAIN:
            return Draw(self.row, self.attempt, self.main, _variants(self.schema.main, distractors))
        part = self.schema.second
        if part is None:
            return None
        variants = _variants(part, distractors, keys_only=self.second is None)
        return Draw(self.row, self.attempt, self.second or HIDDEN_ROWS, variants)

    def drawn(self, distractors: float) -> int:
        """About how many uniforms they take."""
        return self.main * len(_variants(self.schema.main, distractors))


class Draw(NamedTuple):
    """Uniforms of some `variants` for each of `rows` rows of one table, of an attempt at a conversation."""

    conversation: int
    attempt: int
    rows: int
    variants: tuple[int, ...]


Uniforms = dict[str, list[NDArray[np.float64]]]
"""The uniforms of the tables of one attempt by their path: float64 [rows] for each variant that the table takes."""


def _variants(part: Part, distractors: float, *, keys_only: bool = False) -> tuple[int, ...]:
    """The uniforms that a table takes, those that decide on near-duplicates last."""
    twins = part.uniforms[-1].stop
    kept = range(twins)[part.uniforms[part.key]] if keys_only else range(twins)
    return (*kept, twins, twins + 1) if distractors > 0 else tuple(kept)


def runs(sizes: Sequence[Sizes], distractors: float) -> Iterator[tuple[int, int]]:
    """Where runs of tables that are made in one call begin and end."""
    begin = size = 0
    for end, each in enumerate(sizes, 1):
        size += each.drawn(distractors)
        if size >= DRAWN_AT_ONCE:
            yield begin, end
            begin, size = end, 0
    if begin < len(sizes):
        yield begin, len(sizes)


def uniforms(seed: int, sizes: Sequence[Sizes], distractors: float) -> list[Uniforms]:
    """The uniforms of some tables, drawn together: each is a function of (seed, row, attempt, column, place)."""
    found: list[Uniforms] = [{} for _ in sizes]
    for path in (MAIN, SECOND):
        asked = [(drawn, draw) for drawn, of in zip(found, sizes, strict=True) if (draw := of.draw(path, distractors))]
        blocks = _together(Draws(seed, path), [draw for _, draw in asked])
        for (drawn, _), block in zip(asked, blocks, strict=True):
            drawn[path] = block
    return found


def _together(draws: Draws, asked: Sequence[Draw]) -> list[list[NDArray[np.float64]]]:
    """The uniforms of some tables: the v-th of a row is the (v mod 4)-th of its draw v div 4."""
    numbers = [
        (each.conversation, each.attempt * VARIANTS + block, each.rows)
        for each in asked
        for block in _blocks(each.variants)[0]
    ]
    if not numbers:
        return []
    table = np.array(numbers, np.uint64)
    counts = table[:, 2].astype(np.int64)
    ends = np.cumsum(counts)
    places = np.arange(int(ends[-1]), dtype=np.uint64) - np.repeat((ends - counts).astype(np.uint64), counts)
    words = draws.quarters(np.repeat(table[:, 0], counts), places, np.repeat(table[:, 1], counts))
    found: list[list[NDArray[np.float64]]] = []
    begin = 0
    for each in asked:
        blocks, lanes = _blocks(each.variants)
        starts = [(lane, begin + block * each.rows) for lane, block in lanes]
        found.append([words[lane, start : start + each.rows] for lane, start in starts])
        begin += each.rows * len(blocks)
    return found


@lru_cache(maxsize=256)
def _blocks(variants: tuple[int, ...]) -> tuple[list[int], list[tuple[int, int]]]:
    """The draws that hold some uniforms; and of each uniform, which of a draw's four it is, and of which of the draws."""
    blocks = sorted({variant // AT_ONCE for variant in variants})
    return blocks, [(variant % AT_ONCE, blocks.index(variant // AT_ONCE)) for variant in variants]
