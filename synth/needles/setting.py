"""What a task may ask for when it makes a probe: its chance, its locale and split, the depth wanted, and units to stand in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from synth.needles.body import Run
from synth.needles.chance import Chance
from synth.needles.units import Measure, Units
from synth.needles.wording import WORDING, Wording

Haystack = Callable[[str, str], Units]
"""The haystack by name (`""` for the spec's own) and locale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question on documents of the user's: which of them (numbers) hold the answer, and what counts as one."""

    text: str
    answers: tuple[str, ...]
    documents: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One probe's circumstances: `depth` is a share 0..1, or None; `length` is the target, `tokens` what pools offer."""

    locale: str
    split: str
    chance: Chance
    depth: float | None
    measure: Measure
    length: int
    tokens: int
    haystack: Haystack
    questions: Mapping[str, Sequence[Question]]

    @property
    def wording(self) -> Wording:
        """What is said in this locale."""
        return WORDING[self.locale]

    def run(
        self,
        units: Units,
        needles: Sequence[str],
        depths: Sequence[float],
        *,
        told: Sequence[int] | None = None,
        spaced: bool = True,
        label: Callable[[int], str] | None = None,
        last: Callable[[str], str] = str,
    ) -> Run:
        """How to lay out a run of units with needles at depths (shares, rising)."""
        return Run(
            units=units,
            measure=self.measure,
            chance=self.chance,
            needles=needles,
            depths=depths,
            told=told,
            spaced=spaced,
            label=label,
            last=last,
        )

    def among(self, needle: str, others: Sequence[str]) -> Placed:
        """A needle at the setting's depth, the others one in each of as many equal parts of the context."""
        assert self.depth is not None
        return placed([(self.depth, needle), *zip(self.chance.depths(len(others)), others, strict=True)], told=1)

    def spread(self, needles: Sequence[str], *, told: int | None = None) -> Placed:
        """Needles one in each of as many equal parts, in an order of chance; the first `told` of them answer."""
        order = self.chance.some(range(len(needles)), len(needles))
        depths = self.chance.depths(len(needles))
        pairs = [(depths[place], needle) for place, needle in zip(order, needles, strict=True)]
        return placed(pairs, told=len(needles) if told is None else told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Needles by depth, and which of them answer, in the order of the answers."""

    needles: list[str]
    depths: list[float]
    told: list[int]


def placed(pairs: Sequence[tuple[float, str]], *, told: int) -> Placed:
    """Pairs of depth and needle, of which the first `told` answer, in the order of their depths."""
    order = sorted(range(len(pairs)), key=lambda i: pairs[i][0])
    return Placed(
        needles=[pairs[i][1] for i in order],
        depths=[pairs[i][0] for i in order],
        told=[order.index(i) for i in range(told)],
    )
