"""Evaluations at their steps: before the first, every so many and after the last, each whole or not there.

<checkpoint.dir>/
  needles.json, needles.png      the newest evaluation's
  evaluations/step-00000100/     settings.json, answers.jsonl, needles.json, needles.png, …, done.json
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from packing.dataset.errors import DatasetError, TokenizerError
from packing.dataset.manifest import Manifest, canonical_json
from synth.needles.pictures import write_heat_map
from training.config import Config
from training.evaluation.longbench import LongBench, ask_longbench
from training.evaluation.needles import NeedleProbes, ask
from training.evaluation.prompts import Prompts
from training.evaluation.texts import Texts, text_loss
from training.messages import tokenizer_folder
from training.parallel import ALONE, Ranks

FOLDER, DONE, SETTINGS = "evaluations", "done.json", "settings.json"
Say = Callable[[str], None]


class Evaluations:
    """What a config asks to be measured, opened and checked before the first step."""

    def __init__(
        self, config: Config, folder: Path, manifest: Manifest, say: Say, *, after: int, drop: bool = True
    ) -> None:
        """Open everything; evaluations of steps beyond `after` are dropped (with `drop`: one rank does it), for those
        steps are taken again.

        Raises DatasetError and TokenizerError for what cannot be evaluated on.
        """
        self._config, self._folder, self._say = config, folder, say
        asked = config.evaluate
        self._prompts: Prompts | None = None
        self._needles = NeedleProbes(Path(asked.needles)) if asked.needles else None
        self._texts = Texts(Path(asked.texts)) if asked.texts else None
        self._longbench = LongBench(Path(asked.longbench)) if asked.longbench else None
        if asked.asked:
            tokenizer = tokenizer_folder(config.model, manifest)
            if tokenizer is None:
                message = (
                    f"the data were made with the tokenizer {manifest.tokenizer.get('name')!r}, and a preset has none of its "
                    "own: evaluate needs model.tokenizer, or data of the builtin tokenizer"
                )
                raise TokenizerError(message)
            self._prompts = Prompts(tokenizer, chat=asked.chat)
        self._settings = self._identity()
        for old in (folder / FOLDER).glob("step-*"):
            if drop and int(old.name.removeprefix("step-")) > after:
                shutil.rmtree(old)

    def due(self, step: int, ranks: Ranks = ALONE) -> bool:
        """Whether the evaluation of a step is asked for and not there: what rank 0 sees, so that ranks agree."""
        return ranks.anywhere(ranks.speaks and self._due(step)) if self._config.evaluate.asked else False

    def _due(self, step: int) -> bool:
        asked = self._config.evaluate
        if self._read(self._place(step) / DONE) == self._settings:
            return False
        if step == 0:
            return asked.before
        return step == self._config.steps or (asked.every is not None and step % asked.every == 0)

    def at(self, step: int, model: PreTrainedModel, ranks: Ranks = ALONE) -> bool:
        """Evaluate where it is due, by all ranks, and say whether it was. Weights, optimizer and random numbers are left
        as they were."""
        if not self.due(step, ranks):
            return False
        place = self._place(step)
        if ranks.speaks and self._read(place / SETTINGS) != self._settings:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            _write(place / SETTINGS, self._settings)
        ranks.wait()
        if self._prompts is not None:
            self._check(model, self._prompts)
            if self._needles is not None:
                self._ask(step, model, self._needles, self._prompts, ranks)
            if self._texts is not None:
                self._read_texts(step, model, self._texts, self._prompts, ranks)
            if self._longbench is not None:
                self._ask_longbench(step, model, self._longbench, self._prompts, ranks)
        if ranks.speaks:
            _write(place / DONE, self._settings)
        return True

    def _ask(self, step: int, model: PreTrainedModel, needles: NeedleProbes, prompts: Prompts, ranks: Ranks) -> None:
        window: int | None = getattr(model.config, "max_position_embeddings", None)
        if window is not None and needles.longest > window:
            self._say(f"the longest probe has {needles.longest:,} tokens, the model is set for {window:,} positions")
        asked, place = self._config.evaluate, self._place(step)
        measured = ask(
            model,
            needles,
            prompts,
            place / "answers.jsonl",
            batch_tokens=asked.batch_tokens,
            prefill=asked.prefill,
            ranks=ranks,
        )
        if not ranks.speaks:
            return
        about = {"step": step, "dataset": needles.name, "fingerprint": needles.fingerprint, "chat": prompts.chat}
        _write(place / "needles.json", about | measured)
        picture, why = write_heat_map(measured["cells"], place / "needles.png")
        for path in (place / "needles.json", picture):
            shutil.copyfile(path, self._folder / path.name)
        lengths = ", ".join(f"{cell['length']:,}: {cell['recall']:.3f}" for cell in measured["lengths"])
        self._say(f"step {step} needles: recall at {lengths} ({needles.count} probes), heat map {picture}")
        if why:
            self._say(why)

    def _read_texts(self, step: int, model: PreTrainedModel, texts: Texts, prompts: Prompts, ranks: Ranks) -> None:
        asked = self._config.evaluate
        sizes = [(asked.window, asked.stride), *((window, window // 2) for window in asked.longer_windows)]
        found = [
            text_loss(model, texts, prompts, window=window, stride=stride, most_tokens=asked.most_tokens, ranks=ranks)
            for window, stride in sizes
        ]
        if not ranks.speaks:
            return
        _write(self._place(step) / "texts.json", {"step": step} | found[0] | {"longer_windows": found[1:]})
        for measured in found:
            self._say(
                f"step {step} texts: loss {measured['loss']:.4f}, perplexity {measured['perplexity']:.2f} "
                f"({measured['tokens']:,} tokens, windows of {measured['window']:,})"
            )

    def _ask_longbench(
        self, step: int, model: PreTrainedModel, bench: LongBench, prompts: Prompts, ranks: Ranks
    ) -> None:
        asked, place = self._config.evaluate, self._place(step)
        set_for: int | None = getattr(model.config, "max_position_embeddings", None)
        if asked.longbench_window and set_for and asked.longbench_window > set_for:
            self._say(
                f"evaluate.longbench_window is {asked.longbench_window:,}, the model is set for {set_for:,} positions"
            )
        measured = ask_longbench(
            model,
            bench,
            prompts,
            place / "longbench.jsonl",
            window=asked.longbench_window or set_for,
            batch_tokens=asked.batch_tokens,
            prefill=asked.prefill,
            ranks=ranks,
        )
        if not ranks.speaks:
            return
        _write(place / "longbench.json", {"step": step, "chat": prompts.chat} | measured)
        scores = ", ".join(f"{name}: {task['score']:.2f}" for name, task in measured["tasks"].items())
        self._say(f"step {step} LongBench: {measured['score']:.2f} ({scores})")

    @staticmethod
    def _check(model: PreTrainedModel, prompts: Prompts) -> None:
        config: Any = model.config
        if prompts.vocabulary > config.vocab_size:
            message = (
                f"the tokenizer in {prompts.folder} has {prompts.vocabulary} tokens, the model {config.vocab_size}: "
                "it is not the model's"
            )
            raise DatasetError(message, param="/evaluate")

    def _identity(self) -> dict[str, Any]:
        """What makes two evaluations of the same weights comparable: the data and every setting."""
        asked = asdict(self._config.evaluate)
        kept = {name: asked[name] for name in asked if name not in {"every", "before"}}
        digests = {
            "needles": self._needles.digest if self._needles else None,
            "texts": self._texts.digest() if self._texts else None,
            "longbench": self._longbench.digest() if self._longbench else None,
        }
        return {"settings": sha256(canonical_json(kept | digests)).hexdigest()}

    def _place(self, step: int) -> Path:
        return self._folder / FOLDER / f"step-{step:08d}"

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None


def _write(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write JSON aside and rename it, so that a file that is there is whole."""
    work = path.with_name(f".{path.name}")
    work.write_text(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    work.replace(path)
