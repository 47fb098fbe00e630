"""Which rows of which part stand in which shard: the shares are held in every shard to one row a part, not only in the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from packing.bins import best_fit
from packing.chat_tokens import offsets_of
from packing.dataset.errors import InputError
from packing.draws import Draws
from packing.mixture_records import record_lengths
from packing.plan import Plan

SHARD_TOKENS = 2 * 1024 * 1024
"""Tokens of a shard where the spec says nothing."""


def plan(
    surveys: Sequence[pa.Table],
    of: Sequence[int],
    *,
    names: Sequence[str],
    weights: Sequence[float],
    unit: str,
    total: int | None,
    max_epochs: int,
    shard_rows: int | None,
    shard_tokens: int | None,
    capacity: int | None,
    seed: int,
) -> Plan:
    """Plan a mixture from the surveys of all pieces, of which part each `of` is.

    A part's rows come in an order that is drawn over the whole part, and over again for as many epochs as it takes, at most `max_epochs`.
    With `capacity` rows of one part and one shard are packed. Raises InputError where a part has not enough rows.
    """
    parts = [_rows_of_part(surveys, of, number) for number in range(len(names))]
    have = [_measure(part, unit).sum() for part in parts]
    targets = _targets(names, weights, have, unit=unit, total=total, max_epochs=max_epochs)
    chosen = [_taken(part, unit, target) for part, target in zip(parts, targets, strict=True)]
    tokens = sum(int(_column(part, "n_tokens")[row].sum()) for part, (row, _, _) in zip(parts, chosen, strict=True))
    if shard_rows:
        shards = -(-sum(len(row) for row, _, _ in chosen) // shard_rows)
    else:
        shards = max(1, round(tokens / (shard_tokens or SHARD_TOKENS)))
    counts: dict[str, int] = {}
    pieces: list[pa.Table] = []
    for number, (part, (row, epoch, before)) in enumerate(zip(parts, chosen, strict=True)):
        # A row stands in the shard in whose stretch of its part's target it begins.
        shard = np.minimum((before * shards / max(targets[number], 1)).astype(np.int64), shards - 1)
        table = part.take(pa.array(row))
        for name, values in (("epoch", epoch), ("part", np.full(len(row), number)), ("shard", shard)):
            table = table.append_column(name, pa.array(values.astype(np.int64)))
        pieces.append(table)
        label = f"part_{names[number]}"
        counts[f"{label}_rows"] = len(row)
        counts[f"{label}_tokens"] = int(_column(table, "n_tokens").sum())
        counts[f"{label}_repeated_rows"] = int((epoch > 0).sum())
    return _shards(pa.concat_tables(pieces).combine_chunks(), shards, capacity=capacity, seed=seed, counts=counts)


def _column(table: pa.Table, name: str) -> NDArray[np.int64]:
    return table.column(name).to_numpy().astype(np.int64)


def _measure(part: pa.Table, unit: str) -> NDArray[np.int64]:
    return _column(part, "n_tokens") if unit == "tokens" else np.ones(part.num_rows, np.int64)


def _rows_of_part(surveys: Sequence[pa.Table], of: Sequence[int], number: int) -> pa.Table:
    """The rows of a part in their drawn order, with their place in what surveys kept."""
    found: list[pa.Table] = []
    for i, survey in enumerate(surveys):
        if of[i] != number:
            continue
        lengths = record_lengths(*(_column(survey, name) for name in ("n_tokens", "sequences", "blocks")))
        numbered = survey.replace_schema_metadata(None).append_column("offset", pa.array(offsets_of(lengths)[:-1]))
        found.append(numbered.append_column("survey", pa.array(np.full(survey.num_rows, i, np.int64))))
    table = pa.concat_tables(found).combine_chunks()
    order = np.lexsort((_column(table, "row"), table.column("key").to_numpy()))
    return table.take(pa.array(order))


def _targets(
    names: Sequence[str],
    weights: Sequence[float],
    have: Sequence[int],
    *,
    unit: str,
    total: int | None,
    max_epochs: int,
) -> list[int]:
    """How much is wanted of every part, whole numbers that add up to the total; without a total as much as every part can give."""
    share = np.array(weights, np.float64) / sum(weights)
    most = [int(h * max_epochs / s) for h, s in zip(have, share.tolist(), strict=True)]
    whole = min(most) if total is None else total
    exact = share * whole
    targets = np.floor(exact).astype(np.int64)
    rest = np.argsort(-(exact - targets), kind="stable")[: whole - int(targets.sum())]
    targets[rest] += 1
    for name, target, there, s in zip(names, targets.tolist(), have, share.tolist(), strict=True):
        if target > there * max_epochs:
            epochs = (
                f"{-(-target // int(there))} epochs, and max_epochs is {max_epochs}"
                if there
                else "no row of it can be used"
            )
            message = (
                f"part {name!r} has {there:,} {unit}, and {s:.1%} of {whole:,} are {target:,}: {epochs}; "
                f"lower total to {min(most):,} or less, or raise max_epochs"
            )
            raise InputError(message, param="/total")
    return targets.tolist()


def _taken(part: pa.Table, unit: str, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The rows taken of a part, their epochs, and what was taken before each: all that begin before the target is reached; int64."""
    size = _measure(part, unit)
    if not target:
        none = np.zeros(0, np.int64)
        return none, none, none
    once = offsets_of(size)
    epochs = -(-target // int(once[-1]))
    row = np.tile(np.arange(part.num_rows), epochs)
    epoch = np.repeat(np.arange(epochs), part.num_rows)
    before = once[:-1][row] + epoch * once[-1]
    taken = before < target
    return row[taken], epoch[taken], before[taken]


def _shards(table: pa.Table, shards: int, *, capacity: int | None, seed: int, counts: dict[str, int]) -> Plan:
    """The tables of all shards, their rows shuffled, or packed and the packed rows shuffled; `unit` numbers the rows of the shard."""
    shard = _column(table, "shard")
    key = Draws(seed, "mixture/shuffle").uniform(_column(table, "row"), _column(table, "part"), _column(table, "epoch"))
    order = np.lexsort((_column(table, "epoch"), _column(table, "row"), _column(table, "part"), key, shard))
    edge = np.searchsorted(shard[order], np.arange(shards + 1))
    work: list[dict[str, Any]] = []
    tables: list[pa.Table] = []
    for number in range(shards):
        rows = order[edge[number] : edge[number + 1]]
        if not len(rows) and shards > 1:
            continue
        local = table.take(pa.array(rows)).drop_columns(["shard", "key"])
        unit = np.arange(len(rows))
        if capacity is not None:
            chosen, unit = _packed(local, capacity)
            local = local.take(pa.array(chosen))
        tables.append(local.append_column("unit", pa.array(unit)).combine_chunks())
        work.append({"rows": int(unit[-1]) + 1 if len(unit) else 0})
    return Plan.of_work(work, tables=tables, counts=counts)


def _packed(table: pa.Table, capacity: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of each part packed whole: their numbers, and the packed row that each is in; packed rows by their first row's place."""
    lengths, part = _column(table, "n_tokens"), _column(table, "part")
    bins: list[NDArray[np.int64]] = []
    for number in np.unique(part).tolist():
        rows = np.flatnonzero(part == number)
        items, offsets = best_fit(lengths[rows], capacity)
        bins += np.split(rows[items], offsets[1:-1])
    bins.sort(key=lambda rows: int(rows[0]))
    unit = np.repeat(np.arange(len(bins)), [len(rows) for rows in bins])
    return np.concatenate([*bins, np.zeros(0, np.int64)]), unit
