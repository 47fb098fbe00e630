"""Questions asked in batches, by one process or by many, and their answers kept, so that an evaluation that was cut goes
on. Every rank asks its share and writes a file of its own in the folder that all ranks see; rank 0 joins them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from training.evaluation.generate import InStep, greedy, inference
from training.evaluation.prompts import Prompts
from training.parallel import Ranks


class Question(Protocol):
    """What is asked: an id, its prompt's tokens int32 [n], and the most tokens an answer may have."""

    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> NDArray[np.int32]: ...
    @property
    def budget(self) -> int: ...


Asked = TypeVar("Asked", bound=Question)


def batched(questions: Sequence[Asked], batch_tokens: int) -> Iterator[list[Asked]]:
    """Questions in order, in batches of at most `batch_tokens` tokens, padding and answers included; one at least."""
    held: list[Asked] = []
    size = 0
    for question in questions:
        wide = max(size, len(question.prompt) + question.budget)
        if held and wide * (len(held) + 1) > batch_tokens:
            yield held
            held, wide = [], len(question.prompt) + question.budget
        held.append(question)
        size = wide
    if held:
        yield held


def ask_all(
    model: PreTrainedModel,
    batches: Iterable[Sequence[Question]],
    prompts: Prompts,
    answers: Path,
    *,
    prefill: int,
    ranks: Ranks,
) -> dict[str, str]:
    """The answers by id, those of all ranks. Every rank is given the same batches and asks every `world`-th.

    `answers` holds JSON lines {id, prediction}, as `longweave score` takes them; what stands there is not asked again. They
    must be of the same model, questions and settings.
    """
    said = _joined(answers, ranks)
    own = answers if ranks.speaks else _part(answers, ranks.rank)
    with own.open("ab") as stream, inference(model):
        for batch in islice(batches, ranks.rank, None, ranks.world):
            if all(question.id in said for question in batch):
                continue
            new = {i: text for i, text in _answers(model, batch, prompts, prefill, ranks) if i not in said}
            lines = [json.dumps({"id": name, "prediction": text}, ensure_ascii=False) for name, text in new.items()]
            stream.write("".join(f"{line}\n" for line in lines).encode())
            stream.flush()
        InStep(model, ranks).finish()
    return _joined(answers, ranks)


def _answers(
    model: PreTrainedModel, batch: Sequence[Question], prompts: Prompts, prefill: int, ranks: Ranks
) -> Iterator[tuple[str, str]]:
    ids = greedy(
        model,
        [question.prompt for question in batch],
        budgets=[question.budget for question in batch],
        stops=prompts.stops,
        prefill=prefill,
        ranks=ranks,
    )
    return zip((question.id for question in batch), map(prompts.decode, ids), strict=True)


def _part(answers: Path, rank: int) -> Path:
    """Where a rank beside rank 0 writes."""
    return answers.with_name(f"{answers.stem}-{rank:05d}{answers.suffix}")


def _joined(answers: Path, ranks: Ranks) -> dict[str, str]:
    """Every rank's whole lines by id, in one file from here on. No rank writes while another reads."""
    ranks.wait()
    if ranks.speaks:
        _join(answers)
    ranks.wait()
    found = _read(answers)
    ranks.wait()
    return found


def _join(answers: Path) -> None:
    """Add what the other ranks' files have to `answers`, each id once."""
    for part in sorted(answers.parent.glob(f"{answers.stem}-*{answers.suffix}")):
        known = _read(answers)
        lines = _whole_lines(part).splitlines(keepends=True)
        with answers.open("ab") as stream:
            stream.write(b"".join(line for line in lines if json.loads(line)["id"] not in known))
        part.unlink()
    _whole_lines(answers)


def _read(answers: Path) -> dict[str, str]:
    found = [json.loads(line) for line in _whole_lines(answers).splitlines()]
    return {line["id"]: line["prediction"] for line in found}


def _whole_lines(path: Path) -> bytes:
    """The whole lines of a file, if there is one; what a kill left of a last one is cut off."""
    if not path.exists():
        return b""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return whole
