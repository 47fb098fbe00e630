"""The tasks by name: how a probe is drafted, what is kept free for its answer, whether it stands at a depth of the grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from synth.needles.body import Draft
from synth.needles.setting import Setting
from synth.needles.tasks import dictionary, documents, hidden, infinitebench, niah, rounds, variables, walks, words
from synth.needles.tasks.niah import Needles


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task. `budget` is the answer's default in tokens; `haystack` says whether the spec's haystack is used."""

    draft: Callable[[Setting, Needles], Draft]
    budget: int
    depth: bool
    haystack: bool = True
    questions: bool = False


def _plain(draft: Callable[[Setting], Draft]) -> Callable[[Setting, Needles], Draft]:
    return lambda setting, _needles: draft(setting)


def _niah(draft: Callable[[Setting, Needles], Draft], fixed: Needles | None = None, *, depth: bool = True) -> Task:
    if fixed is None:
        return Task(draft=draft, budget=128, depth=depth)
    return Task(
        draft=lambda setting, _needles: draft(setting, fixed), budget=128, depth=depth, haystack=not fixed.haystack
    )


TASKS: dict[str, Task] = {
    "passkey": Task(draft=_plain(infinitebench.passkey), budget=6, depth=True),
    "number": Task(draft=_plain(infinitebench.number), budget=12, depth=True),
    "kv": Task(draft=_plain(infinitebench.kv), budget=50, depth=True, haystack=False),
    "niah_single": _niah(niah.single),
    "niah_multikey": _niah(niah.multikey),
    "niah_multivalue": _niah(niah.multivalue, depth=False),
    "niah_multiquery": _niah(niah.multiquery, depth=False),
    "variable_tracking": Task(draft=_plain(variables.draft), budget=30, depth=False),
    "common_words": Task(draft=_plain(words.common), budget=120, depth=False, haystack=False),
    "frequent_words": Task(draft=_plain(words.frequent), budget=50, depth=False, haystack=False),
    "dictionary": Task(draft=_plain(dictionary.draft), budget=32, depth=True, haystack=False),
    "graph_walks": Task(draft=_plain(walks.draft), budget=64, depth=False, haystack=False),
    "coreference": Task(draft=_plain(rounds.draft), budget=160, depth=False, haystack=False),
    "hidden_fact": Task(draft=_plain(hidden.draft), budget=16, depth=True),
}
DEFAULT = (
    "passkey", "number", "kv", "niah_single", "niah_multikey", "niah_multivalue", "niah_multiquery", "variable_tracking",
    "common_words", "frequent_words", "dictionary",
)  # fmt: skip

RULER: dict[str, Task] = {
    "niah_single_1": _niah(niah.single, Needles(haystack="noise")),
    "niah_single_2": _niah(niah.single, Needles()),
    "niah_single_3": _niah(niah.single, Needles(values="uuids")),
    "niah_multikey_1": _niah(niah.multikey, Needles()),
    "niah_multikey_2": _niah(niah.multikey, Needles(haystack="needles")),
    "niah_multikey_3": _niah(niah.multikey, Needles(keys="uuids", values="uuids", haystack="needles")),
    "niah_multivalue": _niah(niah.multivalue, Needles(), depth=False),
    "niah_multiquery": _niah(niah.multiquery, Needles(), depth=False),
    "vt": Task(draft=_plain(partial(variables.draft, haystack="noise")), budget=30, depth=False, haystack=False),
    "cwe": TASKS["common_words"],
    "fwe": TASKS["frequent_words"],
    "qa_1": Task(
        draft=_plain(partial(documents.draft, name="qa_1")), budget=32, depth=True, haystack=False, questions=True
    ),
    "qa_2": Task(
        draft=_plain(partial(documents.draft, name="qa_2")), budget=32, depth=False, haystack=False, questions=True
    ),
}
"""RULER's thirteen configurations (scripts/synthetic.yaml at commit c3f5e3b). Essays are the builtin text or the spec's corpus here."""


def task_of(name: str, preset: str | None) -> Task:
    """A task by its name; names that RULER has too mean RULER's configuration under its preset."""
    return (RULER if preset == "ruler" else TASKS)[name]
