"""The report of a run, written into its folder after every evaluation and at its end, each time whole.

report.json   all of it, to compute with
report.md     the same to read, with report.png and needles.png in it, the first needles beside the last
report.png    loss by step, by skips and by distance, evaluations; report.vl.json where matplotlib is not installed
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from packing.dataset.manifest import Manifest
from training.config import Config
from training.flops import device_name
from training.model import describe
from training.parallel import Ranks
from training.report.figures import beside, changes, curve, evaluations, read_metrics, work
from training.report.markdown import to_markdown
from training.report.pictures import draw
from training.report.surroundings import describe_device, peak_memory, shown, versions, without_credentials

REPORT, READABLE, PICTURE = "report.json", "report.md", "report.png"


class RunReport:
    """What is said of a run, and where; every rank calls `write` at the same time."""

    def __init__(
        self, config: Config, folder: Path, *, manifest: Manifest, digest: str, run: str, rows: int, start: int
    ) -> None:
        """`digest`: the sha256 of the manifest; `run`: the digest of the run's identity; `rows` of the split; `start`:
        the step this process goes on from."""
        self._config, self._folder, self._run, self._start = config, folder, run, start
        self._data = {
            "source": without_credentials(config.data.source),
            "name": manifest.name,
            "kind": manifest.kind,
            "manifest_sha256": digest,
            "fingerprint": manifest.fingerprint,
            "tokenizer": dict(manifest.tokenizer),
            "split": config.data.split,
            "rows_in_split": rows,
        }

    def write(self, step: int, model: PreTrainedModel, ranks: Ranks, say: Callable[[str], None]) -> None:
        """Write the report of a run that stands at a step."""
        memory, counter = peak_memory(ranks.device)
        memory = int(ranks.largest(memory))
        if not ranks.speaks:
            return
        metrics = [m for m in read_metrics(self._folder / "metrics.jsonl") if m["step"] <= step]
        own = [m for m in metrics if m["step"] > self._start]
        session = {
            "steps": [self._start + 1, step] if own else None,
            "from_step": self._start,
            "device": describe_device(ranks.device),
            "processes": ranks.world,
            "peak_memory": {"bytes": memory, "counted_by": counter, "of": "the process that held most"},
            "versions": versions(),
        } | work(own, device=device_name(ranks.device), processes=ranks.world)
        measured = evaluations(self._folder / "evaluations")
        lines = [beside(evaluation) for evaluation in measured]
        report = {
            "step": step,
            "of": self._config.steps,
            "run": self._run,
            "data": self._data,
            "model": describe(model),
            "seeds": {"order of the rows": self._config.data.shuffle_seed, "dropout": "the step's number"},
            "tokens": sum(m["tokens"] for m in metrics),
            "targets": sum(m["targets"] for m in metrics),
            "sessions": [*self._earlier(say), session],
            "curve": curve(metrics),
            "evaluations": lines,
            "changes": changes(lines),
            "config": shown(self._config),
        }
        picture, why = draw(metrics, lines, self._folder / PICTURE)
        _replace(self._folder / REPORT, json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        pictures = [path.name for path in (picture, *self._folder.glob("needles.png")) if path is not None]
        _replace(self._folder / READABLE, to_markdown(report, pictures, heat_maps(self._folder, measured)))
        say(f"report {self._folder / READABLE}")
        if why:
            say(why)

    def _earlier(self, say: Callable[[str], None]) -> list[Mapping[str, Any]]:
        """What processes before this one did of the run, up to the step it goes on from."""
        path = self._folder / REPORT
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return []
        except ValueError as error:
            say(f"{path} is damaged ({error}): the new one leaves out what it said of earlier processes")
            return []
        if found["run"] != self._run:
            return []
        return [session for session in found["sessions"] if session["from_step"] < self._start]


def heat_maps(folder: Path, measured: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """The heat maps of a run's first and last evaluation by step, as places below its folder; those that are PNG."""
    steps = [measured[0]["step"], measured[-1]["step"]] if measured else []
    places = {step: f"evaluations/step-{step:08d}/needles.png" for step in steps}
    return {step: place for step, place in places.items() if (folder / place).is_file()}


def _replace(path: Path, text: str) -> None:
    work_file = path.with_name(f".{path.name}")
    work_file.write_text(text, encoding="utf-8")
    work_file.replace(path)
