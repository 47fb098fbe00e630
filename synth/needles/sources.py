"""What users bring: texts for haystacks, and questions on documents in SQuAD's or HotpotQA's format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from packing.dataset.errors import BadRowError, SourceError
from packing.plan import Inputs, Piece
from packing.records import Rejected, documents
from packing.spec import CommonSpec
from synth.needles.haystack import sentences_of
from synth.needles.setting import Question

ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Corpus:
    """A user's texts as units, with the rows that could not be used."""

    texts: list[str]
    rejected: list[Rejected]
    whole: bool


@dataclass(slots=True)
class Asked:
    """A user's documents, each once, and the questions on them."""

    documents: list[str] = field(default_factory=list[str])
    questions: list[Question] = field(default_factory=list[Question])
    numbers: dict[str, int] = field(default_factory=dict[str, int])

    def number(self, text: str) -> int:
        """The number of a document, which is taken in if it is new."""
        clean = " ".join(text.split()) + "\n"
        if clean not in self.numbers:
            self.numbers[clean] = len(self.documents)
            self.documents.append(clean)
        return self.numbers[clean]


def corpus(spec: CommonSpec, inputs: Inputs, pieces: Sequence[Piece], *, characters: int) -> Corpus:
    """The first texts of a source, as many as make so many characters; raises BadRowError where the spec wants it."""
    special = sorted(inputs.tokenizer.special)
    texts: list[str] = []
    rejected: list[Rejected] = []
    total = 0
    for piece in pieces:
        table = inputs.read(piece)
        for first in range(0, piece.rows, ROWS_AT_ONCE):
            part = table.slice(first, ROWS_AT_ONCE)
            numbers = range(piece.first_row + first, piece.first_row + first + part.num_rows)
            places = range(piece.first_index + first, piece.first_index + first + part.num_rows)
            found = documents(
                part, container=piece.container, name=piece.name, row=numbers, index=places, columns=spec.columns
            )
            for item in found:
                reason = (
                    item.reason if isinstance(item, Rejected) else "" if item.text else "it holds tokens and no text"
                )
                if reason:
                    rejected.append(Rejected(row=item.row, name=item.name, reason=reason))
                    if spec.on_bad_row == "fail":
                        raise BadRowError(item.name, item.row, reason)
                elif not isinstance(item, Rejected):
                    made = sentences_of(item.text, special)
                    texts += made
                    total += sum(map(len, made))
            if total >= characters:
                return Corpus(texts, rejected, whole=False)
    return Corpus(texts, rejected, whole=True)


def asked(inputs: Inputs, pieces: Sequence[Piece], *, pointer: str) -> Asked:
    """Every document and question of a source in SQuAD's format (the file itself as one line, an article, or a row with context,
    question and answers) or HotpotQA's; raises BadRowError for a row that is neither, SourceError where there is no question."""
    made = Asked()
    for piece in pieces:
        for number, value in enumerate(_values(inputs, piece), piece.first_row):
            try:
                _take(value, made)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                reason = f"neither SQuAD's nor HotpotQA's format ({type(error).__name__}: {error})"
                raise BadRowError(piece.name, number, reason) from error
    if not made.questions:
        message = "the source holds no question that has an answer"
        raise SourceError(message, param=pointer)
    return made


def _values(inputs: Inputs, piece: Piece) -> Iterator[Any]:
    table = inputs.read(piece)
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        for record in batch.to_pylist():
            if piece.container == "columns":
                yield record
                continue
            line = record["line"] if piece.container == "lines" else record["data"]
            if line.strip():
                yield orjson.loads(line)


def _take(value: Any, made: Asked) -> None:
    """One value of a file: SQuAD's whole, an article of it, a list of rows, or a row."""
    if isinstance(value, list):
        for item in value:
            _take(item, made)
    elif "data" in value and "question" not in value:
        _take(value["data"], made)
    elif "paragraphs" in value:
        for paragraph in value["paragraphs"]:
            for question in paragraph["qas"]:
                _question(question["question"], paragraph["context"], question["answers"], made)
    elif isinstance(value["context"], str):
        _question(value["question"], value["context"], value["answers"], made)
    else:
        _many(value, made)


def _question(text: str, context: str, answers: Any, made: Asked) -> None:
    number = made.number(context)
    texts = answers["text"] if isinstance(answers, dict) else [answer["text"] for answer in answers]
    if texts:
        made.questions.append(Question(text=text, answers=tuple(dict.fromkeys(texts)), documents=(number,)))


def _many(value: Any, made: Asked) -> None:
    """HotpotQA: ten titled documents a question, of which two or so hold the facts."""
    context, facts = value["context"], value["supporting_facts"]
    if isinstance(context, dict):
        context = list(zip(context["title"], context["sentences"], strict=True))
    titles = facts["title"] if isinstance(facts, dict) else [fact[0] for fact in facts]
    numbers = {title: made.number(f"{title} {''.join(sentences)}") for title, sentences in context}
    gold = tuple(dict.fromkeys(numbers[title] for title in titles))
    made.questions.append(Question(text=value["question"], answers=(value["answer"],), documents=gold))
