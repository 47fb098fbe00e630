"""Recall of needle probes: every probe of a dataset asked, its answer kept, scored by its task's metric."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from transformers import PreTrainedModel

from packing.dataset.errors import DatasetError
from packing.dataset.reader import read_rows
from synth.needles import scoring
from training.evaluation.ask import ask_all, batched
from training.evaluation.prompts import Prompts
from training.parallel import ALONE, Ranks
from training.source import LocalSource

COLUMNS = ("id", "task", "length", "depth", "input", "answer_prefix", "answer_budget", "outputs", "distractors")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    key: scoring.Key
    prompt: NDArray[np.int32]
    budget: int

    @property
    def id(self) -> str:
        """The probe's id."""
        return self.key.id


class NeedleProbes:
    """The probes of a needle dataset, all its splits, in the order they stand in."""

    def __init__(self, folder: Path) -> None:
        """Read every shard's footer; raises DatasetError for a damaged dataset or one of another kind."""
        self._source = LocalSource(folder)
        self.name, self.digest = self._source.manifest.name, self._source.digest
        self.fingerprint = self._source.manifest.fingerprint
        self.count = self.longest = 0
        for file in self._source.manifest.files:
            footer = self._source.footer(file)
            missing = sorted(set(COLUMNS) - set(footer.schema.to_arrow_schema().names))
            if missing:
                message = f"{file.path} in {folder} holds no needle probes (no column {', '.join(missing)})"
                raise DatasetError(message, param="/evaluate/needles")
            self.count += footer.num_rows
            self.longest = max([self.longest, *_most_tokens(footer)])
        if not self.count:
            message = f"{folder} holds no probe: evaluate.needles has nothing to ask"
            raise DatasetError(message, param="/evaluate/needles")

    def batches(self, prompts: Prompts, batch_tokens: int) -> Iterator[list[_Probe]]:
        """Probes in batches of at most `batch_tokens` tokens, prompts padded and answers included (one at least).

        Every row group is sorted by length, so that little is padded; the batches are the same every time.
        """
        for file in self._source.manifest.files:
            with self._source.open(file) as parquet:
                for rows in read_rows(parquet, name=file.path):
                    found = [_probe(row, prompts) for row in rows.select(COLUMNS).to_pylist()]
                    yield from batched(sorted(found, key=lambda probe: len(probe.prompt)), batch_tokens)


def _most_tokens(footer: pq.FileMetaData) -> list[int]:
    """The largest n_tokens of every row group that tells it."""
    columns = [footer.row_group(g).column(c) for g in range(footer.num_row_groups) for c in range(footer.num_columns)]
    told = [column.statistics for column in columns if column.path_in_schema == "n_tokens"]
    return [int(statistics.max) for statistics in told if statistics is not None and statistics.has_min_max]


def _probe(row: dict[str, Any], prompts: Prompts) -> _Probe:
    key = scoring.Key(
        id=row["id"],
        task=row["task"],
        length=row["length"],
        depth=row["depth"],
        outputs=tuple(row["outputs"]),
        distractors=tuple(row["distractors"]),
    )
    return _Probe(key=key, prompt=prompts.prompt(row["input"], row["answer_prefix"]), budget=row["answer_budget"])


def ask(
    model: PreTrainedModel,
    probes: NeedleProbes,
    prompts: Prompts,
    answers: Path,
    *,
    batch_tokens: int,
    prefill: int,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Ask every probe and score the answers: synth.needles.scoring's report, with recall by length.

    `answers`: as training.evaluation.ask.ask_all has it. With several ranks every one of them scores all.
    """
    keys: list[scoring.Key] = []

    def asked() -> Iterator[list[_Probe]]:
        for batch in probes.batches(prompts, batch_tokens):
            keys.extend(probe.key for probe in batch)
            yield batch

    said = ask_all(model, asked(), prompts, answers, prefill=prefill, ranks=ranks)
    known = {key.id for key in keys}
    predictions = [scoring.Prediction(id=i, text=t, line=0) for i, t in said.items() if i in known]
    report = scoring.evaluate(keys, predictions)
    return report.to_json() | {"lengths": scoring.cells(report.scored, lambda key: ("all", key.length, None))}
