"""Timing contenders in turn: A B C, A B C, …, so that a machine whose speed drifts does it to all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Work = Callable[[], int]
"""Does its work and says how many units of it there were."""


@dataclass(slots=True)
class Contender:
    """One way of doing a thing; `rates` are units a second of processor time (all threads), one a round."""

    name: str
    work: Work
    rates: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """Contenders over the same work, ours first; `unit` is what they count; `aim` the least ratio wanted against each peer."""

    title: str
    unit: str
    contenders: Sequence[Contender]
    aims: dict[str, float]


def run(race: Race, rounds: int) -> list[str]:
    """Run a race and return its rows: units a second, and for peers how many times ours is of it (median, and least to most by round)."""
    for _ in range(rounds):
        for contender in race.contenders:
            begun = time.process_time()
            count = contender.work()
            contender.rates.append(count / (time.process_time() - begun))
    ours, *peers = race.contenders
    rows = [f"| {race.title} | {ours.name} | {ours.median:,.4g} {race.unit}/s | |"]
    for peer in peers:
        ratios = [a / b for a, b in zip(ours.rates, peer.rates, strict=True)]
        aim = race.aims.get(peer.name)
        wanted = f", aim {aim:g}" if aim else ""
        rows.append(
            f"| | {peer.name} | {peer.median:,.4g} {race.unit}/s | {statistics.median(ratios):,.3g} times "
            f"({min(ratios):,.3g} to {max(ratios):,.3g}){wanted} |"
        )
    return rows
