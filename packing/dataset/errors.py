"""The errors of the house, drawn as the tree they form.

LongweaveError                 a sentence for the user; `code` for programs, `param` for the field or file it is about
├── SpecError                  the spec cannot be meant: every offending field is named (exit 2, HTTP 422)
├── InputError                 the spec is fine, what it points at is not (exit 1, job failed)
│   ├── SourceError            a source that is missing, empty or cannot be decoded as a container
│   ├── BadRowError            one row of a source cannot be used
│   └── TokenizerError         a tokenizer that is missing, unreadable or cannot serve the spec
└── DatasetError               a dataset that is not whole: damaged, unfinished, or not what its manifest says
    └── CommitConflictError    another dataset stands where this one should go

They live in `packing.dataset` because it is the room at the bottom: training may import it, and it needs the standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class LongweaveError(Exception):
    """Base of all: `message` says what is wrong, where, and what would be right."""

    code = "error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldProblem:
    """One offending field: a JSON pointer into the spec and a sentence."""

    pointer: str
    message: str


class SpecError(LongweaveError):
    """A spec that cannot be meant; carries a problem for each offending field."""

    code = "invalid_spec"

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0].pointer if self.problems else None
        super().__init__("; ".join(f"{p.pointer or '/'}: {p.message}" for p in self.problems), param=first)


class InputError(LongweaveError):
    """What the spec points at cannot be used."""

    code = "invalid_input"


class SourceError(InputError):
    """A source that is missing, empty, or cannot be decoded as a container."""

    code = "invalid_source"


class BadRowError(InputError):
    """One row of a source cannot be used; `row` counts from 1, as lines of a file do."""

    code = "bad_row"

    def __init__(self, source: str, row: int, reason: str) -> None:
        super().__init__(
            f"{source}, row {row}: {reason}; mend it, or say on_bad_row: skip to leave such rows out and count them",
            param=f"{source}:{row}",
        )
        self.row = row


class TokenizerError(InputError):
    """A tokenizer that is missing, unreadable, or lacks what the spec needs of it."""

    code = "invalid_tokenizer"


class DatasetError(LongweaveError):
    """A dataset that is damaged, unfinished, or not what its manifest says."""

    code = "invalid_dataset"


class CommitConflictError(DatasetError):
    """Another dataset already stands where this one should be committed."""

    code = "commit_conflict"
