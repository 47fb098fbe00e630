"""Loss on texts by sliding windows: what a model knows of short contexts, to be seen beside every long figure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from packing.dataset import manifest as manifests
from packing.dataset.errors import DatasetError
from packing.dataset.reader import file_digest, open_parquet, read_rows
from training.evaluation.generate import InStep, inference
from training.evaluation.prompts import Prompts
from training.model import output_head
from training.parallel import ALONE, Ranks
from training.source import LocalSource

SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
LONGEST_LINE = 64 * 1024 * 1024
"""Bytes of a line of JSON."""


class Texts:
    """Texts of a dataset of ours (column text), or of a directory's .txt, .md, .jsonl and .parquet files (field text),
    in the order of their names."""

    def __init__(self, folder: Path) -> None:
        """Find the files; raises DatasetError where there is no text."""
        self.folder = folder
        self._source = LocalSource(folder) if (folder / manifests.NAME).is_file() else None
        found = folder.rglob("*") if self._source is None and folder.is_dir() else []
        self._files = sorted(path for path in found if path.suffix in SUFFIXES and path.is_file())
        if next(iter(self), None) is None:
            message = (
                f"{folder} holds no text: evaluate.texts takes {', '.join(SUFFIXES)} files, or a dataset with text"
            )
            raise DatasetError(message, param="/evaluate/texts")

    def digest(self) -> str:
        """What tells these texts from others: of a dataset its manifest's sha256, else one over names and contents."""
        if self._source is not None:
            return self._source.digest
        whole = sha256()
        for path in self._files:
            with path.open("rb") as stream:
                content, _ = file_digest(stream)
            whole.update(f"{path.relative_to(self.folder)}\0{content}\0".encode())
        return whole.hexdigest()

    def __iter__(self) -> Iterator[str]:
        """The texts that are not empty; raises DatasetError naming the file, and the line or row, of what is none."""
        found = self._of_source() if self._source is not None else (t for path in self._files for t in _of_file(path))
        return (text for text in found if text.strip())

    def _of_source(self) -> Iterator[str]:
        assert self._source is not None
        for file in self._source.manifest.files:
            with self._source.open(file) as parquet:
                yield from _of_parquet(parquet, file.path)


def _of_file(path: Path) -> Iterator[str]:
    if path.suffix == ".parquet":
        with open_parquet(path, name=str(path)) as parquet:
            yield from _of_parquet(parquet, str(path))
        return
    try:
        if path.suffix == ".jsonl":
            with path.open("rb") as stream:
                for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b""), 1):
                    if line.strip():
                        yield _text(json.loads(line), f"{path}, line {number}")
        else:
            yield path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read as text ({error})"
        raise DatasetError(message, param=str(path)) from error


def _of_parquet(parquet: Any, name: str) -> Iterator[str]:
    if "text" not in parquet.schema_arrow.names:
        message = f"{name} has no column text: evaluate.texts cannot take a loss on it"
        raise DatasetError(message, param=name)
    for rows in read_rows(parquet, name=name):
        for number, text in enumerate(rows.column("text").to_pylist()):
            yield _text({"text": text}, f"{name}, row {number} of its row group")


def _text(value: Any, where: str) -> str:
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        message = f"{where} has no text in a field text"
        raise DatasetError(message, param=where)
    return text


def windows(count: int, *, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Windows over `count` tokens as (start, stop, first scored): every token but the first is scored once, with at
    least window − stride tokens before it where there are as many."""
    scored = 1
    start = 0
    while scored < count:
        stop = min(start + window, count)
        yield start, stop, scored
        scored = stop
        start += stride


def text_loss(
    model: PreTrainedModel,
    texts: Texts,
    prompts: Prompts,
    *,
    window: int,
    stride: int,
    most_tokens: int,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """The mean loss of the texts' tokens in nats, its perplexity, and the loss in bits a byte of UTF-8, which compares
    between tokenizers. The first `most_tokens` tokens count; a text is cut there. Every rank takes every `world`-th
    window and has the whole result.
    """
    read, size, documents = 0, 0, 0
    parts: list[tuple[NDArray[np.int32], int]] = []
    for text in texts:
        ids = prompts.encode(text)[: most_tokens - read]
        read += len(ids)
        documents += 1
        found = windows(len(ids), window=window, stride=stride)
        parts.extend((ids[start:stop], first - start) for start, stop, first in found)
        # Of the first token nothing is predicted, so its bytes are not counted.
        size += len(prompts.decode(ids[1:].tolist()).encode())
        if read >= most_tokens:
            break
    scored = sum(len(ids) - first for ids, first in parts)
    if not scored:
        message = f"the texts in {texts.folder} have no two tokens in a row: there is nothing to predict"
        raise DatasetError(message, param="/evaluate/texts")
    losses = np.zeros(len(parts))
    passes = InStep(model, ranks)
    with inference(model):
        for number in range(ranks.rank, len(parts), ranks.world):
            losses[number] = passes.call(partial(_window_loss, *parts[number]))
        passes.finish()
    total = math.fsum(ranks.totals(losses))
    return {
        "loss": total / scored,
        "perplexity": math.exp(min(total / scored, 700.0)),
        "bits_per_byte": total / math.log(2) / size if size else None,
        "tokens": scored,
        "documents": documents,
        "cut": read >= most_tokens,
        "window": window,
        "stride": stride,
    }


def _window_loss(ids: NDArray[np.int32], first: int, model: PreTrainedModel) -> float:
    """The summed loss of ids[first:] (first ≥ 1), each by all before it in the window."""
    tokens = torch.from_numpy(ids.astype(np.int64)).to(model.device)[None]
    hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[0, first - 1 : -1]
    head = output_head(model)
    parts = zip(hidden.split(1024), tokens[0, first:].split(1024), strict=True)
    return sum(float(cross_entropy(head(part).float(), target, reduction="sum")) for part, target in parts)
