"""Timing contenders in turn: A B C, A B C, …, so that a machine whose speed drifts does it to all of them; and what came out, as a table
or as JSON."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Timed:
    """Work that was timed where it was done, in a process of its own, say: units, the seconds they took, and what a reader must know."""

    count: float
    seconds: float
    note: str = ""


Work = Callable[[], "int | Timed"]
"""Does its work and says how many units of it there were."""


class Closing(Protocol):
    """What is ended with the race that it is part of."""

    def close(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class Contender:
    """One way of doing a thing; `rates` are units a second, one a round.

    `aim` is the least ratio of ours to it that is wanted; `absent` says why it cannot run here; `note` what a reader must know.
    """

    name: str
    work: Work
    aim: float | None = None
    absent: str = ""
    note: str = ""
    rates: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """Contenders over the same work, ours first; `unit` is what they count.

    `clock` is `processor` (all threads of this process and the children it waited for) or `wall`. `floor` are the stages that nobody can do
    without, each alone at its best: its rate is that of the sum of the best times. `floor_aim` is the share of it that ours should reach.
    `processes` are ended with it.
    """

    title: str
    unit: str
    contenders: Sequence[Contender]
    clock: str = "processor"
    floor: Mapping[str, Work] = field(default_factory=dict)
    floor_aim: float | None = None
    processes: Sequence[Closing] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A line of the table. `figure` is a median rate or a plain measure in `unit`, between `least` and `most`; `ratio` is ours to this
    peer's turn by turn (or ours as a share of the floor), between `ratio_least` and `ratio_most`; `aim` is what was wanted of `judged`."""

    what: str
    who: str
    figure: float | None
    unit: str
    clock: str = ""
    least: float | None = None
    most: float | None = None
    ratio: float | None = None
    ratio_least: float | None = None
    ratio_most: float | None = None
    aim: str = ""
    met: bool | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The line without what does not apply to it."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    def row(self) -> str:
        """The line as one of the table."""
        figure = "absent" if self.figure is None else f"{_number(self.figure)} {self.unit}"
        if self.least is not None and self.most is not None and self.most > self.least:
            figure += f" ({_number(self.least)} to {_number(self.most)})"
        ratio = ""
        if self.ratio is not None:
            ratio = f"{_number(self.ratio)} times ({_number(self.ratio_least or 0)} to {_number(self.ratio_most or 0)})"
        aim = f"{self.aim}: {'met' if self.met else 'missed'}" if self.met is not None else self.aim
        return f"| {self.what} | {self.who} | {figure} | {ratio} | {aim} | {self.note} |"


def measure(
    what: str, who: str, values: Sequence[float], unit: str, *, most: float | None = None, **more: Any
) -> Result:
    """A line for a plain measure, the median of `values`; `most` is the aim it should stay below."""
    middle = statistics.median(values)
    judged = {} if most is None else {"aim": f"at most {_number(most)}", "met": middle <= most}
    return Result(what=what, who=who, figure=middle, unit=unit, least=min(values), most=max(values), **(judged | more))


def processor_seconds() -> float:
    """Seconds of processor time of this process and the children it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


CLOCKS: Mapping[str, Callable[[], float]] = {"processor": processor_seconds, "wall": time.perf_counter}


def run(race: Race, rounds: int) -> Iterator[Result]:
    """Run a race and yield its lines: rates, how many times ours is of every peer's, and of the floor's."""
    clock = CLOCKS[race.clock]
    stages: dict[str, list[Timed]] = {name: [] for name in race.floor}
    present = [contender for contender in race.contenders if not contender.absent]
    try:
        for _ in range(rounds):
            for contender in present:
                done = _timed(contender.work, clock)
                contender.rates.append(done.count / done.seconds)
                contender.note = done.note or contender.note
            for name, work in race.floor.items():
                stages[name].append(_timed(work, clock))
    finally:
        for process in race.processes:
            process.close()
    ours = race.contenders[0]
    yield _line(race, ours, race.title, note=ours.note)
    if stages:
        yield _floor(race, ours, stages)
    for peer in race.contenders[1:]:
        if peer.absent:
            yield Result(what="", who=peer.name, figure=None, unit=race.unit, note=peer.absent)
            continue
        ratios = [a / b for a, b in zip(ours.rates, peer.rates, strict=True)]
        middle = statistics.median(ratios)
        yield _line(
            race,
            peer,
            "",
            ratio=middle,
            ratio_least=min(ratios),
            ratio_most=max(ratios),
            aim="" if peer.aim is None else f"at least {_number(peer.aim)} times",
            met=None if peer.aim is None else middle >= peer.aim,
            note=peer.note,
        )


def _timed(work: Work, clock: Callable[[], float]) -> Timed:
    begun = clock()
    done = work()
    return done if isinstance(done, Timed) else Timed(done, clock() - begun)


def _line(race: Race, contender: Contender, what: str, **more: Any) -> Result:
    return Result(
        what=what,
        who=contender.name,
        figure=contender.median,
        unit=f"{race.unit}/s",
        clock=race.clock,
        least=min(contender.rates),
        most=max(contender.rates),
        **more,
    )


def _floor(race: Race, ours: Contender, stages: Mapping[str, Sequence[Timed]]) -> Result:
    """The floor's line: the best of every stage, added up; and ours as a share of it."""
    best = {name: min(timed.seconds / timed.count for timed in rounds) for name, rounds in stages.items()}
    rate = 1 / sum(best.values())
    shares = [one / rate for one in ours.rates]
    middle = statistics.median(shares)
    parts = ", ".join(f"{name} {seconds / sum(best.values()):.0%}" for name, seconds in best.items())
    return Result(
        what="",
        who="the floor",
        figure=rate,
        unit=f"{race.unit}/s",
        clock=race.clock,
        ratio=middle,
        ratio_least=min(shares),
        ratio_most=max(shares),
        aim="" if race.floor_aim is None else f"at least {_number(race.floor_aim)} times",
        met=None if race.floor_aim is None else middle >= race.floor_aim,
        note=f"sum of the best single stages: {parts}",
    )


def _number(value: float) -> str:
    """Three figures, in full."""
    if value == 0 or abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"
