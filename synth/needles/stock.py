"""What a build draws its probes from: haystacks and pools as large as a length needs, and the user's texts and questions.

A pool's size depends on the length alone, so that a probe is the same whatever else the spec asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from packing.plan import Inputs, Piece
from packing.records import Rejected
from packing.spec import CommonSpec
from synth.needles import haystack, pools
from synth.needles.setting import Question
from synth.needles.sources import Asked, asked, corpus
from synth.needles.units import Measure, Units

SMALLEST = 32768
CHARACTERS = 12
"""Characters of a user's text that are read for each token wanted: more than any of the known tokenizers takes on average."""


def pool_tokens(length: int) -> int:
    """Tokens that pools for a length have: a power of two and a quarter more."""
    size = SMALLEST
    while size < length:
        size *= 2
    return size + size // 4


@dataclass(slots=True)
class Stock:
    """Everything a build may draw from. `source` is the spec's haystack: `builtin`, `noise`, `needles/…` or `corpus`."""

    spec: CommonSpec
    inputs: Inputs
    split: str
    source: str
    repeat: bool
    pointers: Mapping[str, str]
    measure: Measure
    rejected: list[Rejected] = field(default_factory=list[Rejected])

    def units(self, name: str, locale: str, length: int) -> Units:
        """Units of a haystack by name ("" for the spec's own), enough for a length; or documents that questions are about."""
        name, tokens = name or self.source, pool_tokens(length)
        kind, _, rest = name.partition("/")
        if kind == "builtin":
            return haystack.builtin(locale, self.split, tokens, self.measure)
        if kind == "noise":
            return haystack.noise(locale, tokens, self.measure)
        if kind == "needles":
            keys, values = rest.split("/")
            return pools.needle_lines(keys, values, locale, self.split, tokens, self.measure)
        if kind == "documents":
            return self._documents(rest, length)
        return self._corpus(length)

    def questions(self) -> Mapping[str, Sequence[Question]]:
        """The questions of every source that has some."""
        return {name: self._ask(name).questions for name in ("qa_1", "qa_2") if name in self.pointers}

    def _corpus(self, length: int) -> Units:
        """The user's texts, repeated where the spec says so and they are short."""
        pieces, tokens = self._pieces("haystack"), pool_tokens(length)
        about = (self.spec.columns.model_dump_json(), self.spec.on_bad_row, *(p.digest for p in pieces), pieces[0].rows)
        read = self.measure.keep(
            ("corpus", tokens, about),
            lambda: corpus(self.spec, self.inputs, pieces, characters=tokens * CHARACTERS),
        )
        self.rejected = read.rejected
        units = self.measure.keep(
            ("units", tokens, about), lambda: Units.of(self.measure.joined(read.texts), self.measure)
        )
        return units.repeated(tokens, self.measure) if self.repeat and read.texts else units

    def _documents(self, name: str, length: int) -> Units:
        about = [piece.digest for piece in self._pieces(name)]
        units = self.measure.keep(("documents", *about), lambda: Units.of(self._ask(name).documents, self.measure))
        return units.repeated(pool_tokens(length), self.measure) if self.repeat else units

    def _ask(self, name: str) -> Asked:
        pieces = self._pieces(name)
        about = [piece.digest for piece in pieces]
        return self.measure.keep(("asked", *about), lambda: asked(self.inputs, pieces, pointer=self.pointers[name]))

    def _pieces(self, name: str) -> list[Piece]:
        return [piece for piece in self.inputs.pieces if piece.field == self.pointers[name]]
