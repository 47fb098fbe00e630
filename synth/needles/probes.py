"""Cells of the grid, and the probes that are made for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from packing.dataset.errors import FieldProblem, InputError, SpecError
from packing.plan import Inputs
from packing.records import Rejected
from packing.spec import CommonSpec
from synth.needles import haystack
from synth.needles.body import Draft, TooShortError, TooSmallError
from synth.needles.chance import Chance
from synth.needles.fit import Fitted, NoFitError, fit
from synth.needles.registry import Task
from synth.needles.setting import Setting
from synth.needles.stock import Stock, pool_tokens
from synth.needles.tasks.niah import Needles
from synth.needles.units import Measure

VERIFIED = 64
"""One probe in so many is tokenised whole although its pieces' tokens add up, and so is the first of every task and length."""
TRIES = 40
LOOKED_INTO, REPEATS = 8192, 4
"""Up to this length a few probes of every task are made to see whether they fit; longer ones are laid out only."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the grid; `depth` 0..100, None for tasks that have none."""

    length: int
    task: str
    depth: float | None


def cells_of(lengths: Sequence[int], tasks: Sequence[tuple[str, bool]], grid: Sequence[float]) -> list[Cell]:
    """The cells in order: by length, then task (with whether it has depths), then depth."""
    return [
        Cell(length, name, depth)
        for length in lengths
        for name, has_depth in tasks
        for depth in (grid if has_depth else [None])
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One probe: where it stands in the grid, its draft, and its text."""

    cell: Cell
    repeat: int
    locale: str
    draft: Draft
    fitted: Fitted
    budget: int
    seed: int

    @property
    def task(self) -> str:
        """The task's name."""
        return self.cell.task


@dataclass(slots=True)
class Prober:
    """Makes probes of one spec; what it has tokenised it keeps."""

    spec: Any
    stock: Stock
    measure: Measure
    _adds_up: dict[tuple[str, int, str], bool] = field(default_factory=dict[tuple[str, int, str], bool])
    _made: int = 0

    @classmethod
    def of(cls, spec: CommonSpec, inputs: Inputs) -> Self:
        """A prober for a spec (of kind needle) and its inputs."""
        given: Any = spec
        measure = haystack.measure_of(inputs.tokenizer)
        named = isinstance(given.haystack, str)
        source = f"needles/{given.keys}/{given.values}" if given.haystack == "needles" else given.haystack
        pointers = {pointer.strip("/").split("/")[0]: pointer for pointer in spec.sources()}
        stock = Stock(
            spec=spec,
            inputs=inputs,
            split=given.split,
            source=source if named else "corpus",
            repeat=given.repeat,
            pointers=pointers,
            measure=measure,
        )
        return cls(spec, stock, measure)

    def rejected(self) -> list[Rejected]:
        """Rows of the haystack's source that were left out."""
        return self.stock.rejected

    def check(self) -> None:
        """Raise SpecError naming every length that is too small for a task, with the least; InputError for too short a haystack."""
        problems: list[FieldProblem] = []
        for number, length in enumerate(self.spec.lengths):
            for name in self.spec.task_names():
                depth = self.spec.grid()[0] if self.spec.task(name).depth else None
                for locale in self.spec.locales:
                    # What fits a shorter length fits a longer one, and its pools are made sooner.
                    shorter = min(length, LOOKED_INTO + (self.spec.answer_budget or 0))
                    least = self._least(Cell(shorter, name, depth), locale, number)
                    if least > shorter or self._needs_all(name):
                        least = self._least(Cell(length, name, depth), locale, number)
                    if least > length:
                        message = (
                            f"{name} ({locale}) needs at least {least} tokens, answer included: {length} is too small"
                        )
                        problems.append(FieldProblem(pointer=f"/lengths/{number}", message=message))
        if problems:
            raise SpecError(problems)

    def _needs_all(self, name: str) -> bool:
        """Whether a task stands in a text of the user's, which may be too short."""
        task: Task = self.spec.task(name)
        return task.questions or (task.haystack and self.stock.source == "corpus")

    def _least(self, cell: Cell, locale: str, number: int) -> int:
        """The cell's own length if a probe can be laid out in it, else the least that can be found above."""
        length = cell.length
        for _ in range(TRIES):
            try:
                if length <= LOOKED_INTO:
                    for repeat in range(min(REPEATS, self.spec.repeats)):
                        self._fitted(Cell(length, cell.task, cell.depth), repeat, locale)
                else:
                    self._laid(Cell(length, cell.task, cell.depth), locale)
            except TooSmallError as error:
                draft, budget = self._draft(Cell(length, cell.task, cell.depth), 0, locale)[:2]
                behind = self.measure.count(draft.tail + draft.answer_prefix)
                length = max(length + 1, error.tokens + self.measure.count(draft.head) + behind + budget)
            except NoFitError:
                length += max(1, length // 50)
            except TooShortError as error:
                raise self._too_short(error, number) from error
            else:
                return length
        return length

    def _laid(self, cell: Cell, locale: str) -> None:
        draft, budget, _ = self._draft(cell, 0, locale)
        fixed = self.measure.count(draft.head) + self.measure.count(draft.tail + draft.answer_prefix)
        draft.lay(cell.length - budget - fixed)

    def probe(self, cell: Cell, repeat: int) -> Probe:
        """The probe of a cell; raises InputError where it cannot be fitted."""
        number = self.spec.lengths.index(cell.length)
        try:
            return self._fitted(cell, repeat, None)
        except TooShortError as error:
            raise self._too_short(error, number) from error
        except (TooSmallError, NoFitError) as error:
            message = (
                f"{cell.task} does not fit {cell.length} tokens with this tokenizer ({type(error).__name__}: {error})"
            )
            raise InputError(message, param=f"/lengths/{number}") from error

    def _fitted(self, cell: Cell, repeat: int, locale: str | None) -> Probe:
        draft, budget, chance = self._draft(cell, repeat, locale)
        spoken = locale or self._locale(cell, repeat)
        key = (cell.task, cell.length, spoken)
        known = self._adds_up.get(key)
        whole = known is None or not known or self._made % VERIFIED == 0
        fitted = fit(
            draft,
            length=cell.length,
            budget=budget,
            measure=self.measure,
            fillers=haystack.fillers(spoken, self.spec.split, self.measure),
            whole=whole,
        )
        self._made += 1
        if fitted.whole:
            if known and not fitted.adds_up:
                message = f"tokens of the pieces of {key} add up in one probe and not in another"
                raise AssertionError(message)
            self._adds_up[key] = fitted.adds_up
        return Probe(
            cell=cell, repeat=repeat, locale=spoken, draft=draft, fitted=fitted, budget=budget, seed=chance.seed
        )

    def _locale(self, cell: Cell, repeat: int) -> str:
        chance = self._chance(cell, repeat, "locale/")
        place = chance.number() * sum(self.spec.locales.values())
        for locale, weight in sorted(self.spec.locales.items()):
            place -= weight
            if place < 0:
                return locale
        return max(self.spec.locales)

    def _chance(self, cell: Cell, repeat: int, purpose: str = "") -> Chance:
        return Chance(
            self.spec.seed,
            split=self.spec.split,
            task=purpose + cell.task,
            length=cell.length,
            depth=cell.depth,
            repeat=repeat,
        )

    def _draft(self, cell: Cell, repeat: int, locale: str | None) -> tuple[Draft, int, Chance]:
        task: Task = self.spec.task(cell.task)
        chance = self._chance(cell, repeat)
        setting = Setting(
            locale=locale or self._locale(cell, repeat),
            split=self.spec.split,
            chance=chance,
            depth=None if cell.depth is None else cell.depth / 100,
            measure=self.measure,
            length=cell.length,
            tokens=pool_tokens(cell.length),
            haystack=lambda name, spoken: self.stock.units(name, spoken, cell.length),
            questions=self.stock.questions() if task.questions else {},
        )
        draft = task.draft(setting, Needles(keys=self.spec.keys, values=self.spec.values))
        budget = self.spec.answer_budget if self.spec.answer_budget is not None else task.budget
        return draft, budget, chance

    def _too_short(self, error: TooShortError, number: int) -> InputError:
        message = (
            f"the haystack has about {error.has} tokens, a probe of {self.spec.lengths[number]} takes {error.needs}: "
            "give more text, smaller lengths, or repeat: true"
        )
        pointer = self.stock.pointers.get("haystack", "/haystack")
        return InputError(message, param=pointer)
