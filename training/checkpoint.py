"""Checkpoints: whole or absent, loadable by from_pretrained, enough to go on bit for bit. Nothing in them is ever
unpickled.

<checkpoint.dir>/ run.json                the config fields and the data that make the run what it is metrics.jsonl
one object a step step-00000050/          model (config.json, *.safetensors), optimizer.safetensors, state.json A
checkpoint is written under a temporary name, flushed to disk and renamed; state.json names every file and its size, so
that a folder copied in part is known for what it is.

Several ranks write the optimizer's states as optimizer/*.safetensors, each its own part; all else is the same, written
by rank 0. Either form is read by any number of ranks.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import distributed as dist
from torch import nn
from transformers import PreTrainedModel

from packing.dataset.manifest import canonical_json
from training.config import Config
from training.errors import CheckpointError
from training.gathered import read_optimizer, weights, write_parts
from training.lora import ADAPTER, adapted, merged, write_adapter
from training.parallel import Ranks
from training.positions import check_saved_positions
from training.stream import DataState

RUN, METRICS, STATE, OPTIMIZER = "run.json", "metrics.jsonl", "state.json", "optimizer.safetensors"
PARTS = "optimizer"
"""The folder of the optimizer's states as several ranks write them."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""What goes along from the model's directory, so that a checkpoint is a model to run."""


NO_PART = frozenset({"data", "checkpoint", "evaluate", "parallel"})
"""Sections that are no part of what a run is."""
SAME_BITS = frozenset({"/model/checkpointing", "/model/offload"})
"""Fields of the others that change no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A whole checkpoint: its folder, the steps taken, and where the data stand after them."""

    folder: Path
    step: int
    data: DataState


def identity(config: Config, data_digest: str) -> dict[str, Any]:
    """What makes a run the run it is, by pointer: all that changes its numbers.

    The data count by their manifest's digest, not by the place they are read from; keys, the checkpoints' number and
    spacing, evaluations, and how the work is shared among processes do not count.
    """
    sections = {name: value for name, value in asdict(config).items() if name not in NO_PART}
    flat = {f"/{name}": value for name, value in sections.items() if not isinstance(value, dict)}
    for name, value in sections.items():
        if isinstance(value, dict):
            flat |= {f"/{name}/{field}": item for field, item in value.items()}
    flat = {name: value for name, value in flat.items() if name not in SAME_BITS}
    order = {f"/data/{name}": getattr(config.data, name) for name in ("shuffle_seed", "split", "too_long")}
    # As run.json gives it back, lists for tuples among it.
    return json.loads(canonical_json(flat | order | {"/data (sha256 of its manifest)": data_digest}))


def digest(run: Mapping[str, Any]) -> str:
    """The sha256 of a run's identity."""
    return sha256(canonical_json(run)).hexdigest()


@contextmanager
def claimed(folder: Path, run: Mapping[str, Any]) -> Generator[None]:
    """Hold a checkpoint folder for one run and one process; leftovers of a killed save are removed.

    Raises CheckpointError where another process is at work in it, or where it belongs to another run: every differing
    field is named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            message = f"another run is at work in {folder}: wait for it, or set another checkpoint.dir"
            raise CheckpointError(message, param=str(folder)) from error
        _claim(folder, run)
        for leftover in folder.glob(".step-*"):
            shutil.rmtree(leftover)
        yield


def _claim(folder: Path, run: Mapping[str, Any]) -> None:
    path = folder / RUN
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        _replace(path, json.dumps(run, indent=1).encode())
        return
    except ValueError as error:
        message = f"{path} is damaged ({error}): set another checkpoint.dir"
        raise CheckpointError(message, param=str(folder)) from error
    differing = [name for name in sorted({*found, *run}) if found.get(name) != run.get(name)]
    if differing and not _lines(folder / METRICS) and not _checkpoints(folder):
        # Nothing was trained yet: most likely the config was mended after a first refusal.
        _replace(path, json.dumps(run, indent=1).encode())
    elif differing:
        changes = ", ".join(f"{name} was {found.get(name)!r} and is {run.get(name)!r}" for name in differing)
        message = f"{folder} belongs to another run ({changes}): set them back, or set another checkpoint.dir"
        raise CheckpointError(message, param=str(folder))


def newest(folder: Path, run: Mapping[str, Any], say: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint; one that is not whole is passed over with a line. Raises CheckpointError for another
    run's."""
    for path in sorted(_checkpoints(folder), reverse=True):
        try:
            state: dict[str, Any] = json.loads((path / STATE).read_bytes())
            sizes: dict[str, int] = state["files"]
            broken = [name for name, size in sizes.items() if (path / name).stat().st_size != size]
        except (OSError, ValueError, KeyError) as error:
            say(f"{path.name} is not whole ({error}): passed over")
            continue
        if broken:
            say(f"{path.name} is not whole ({broken[0]} has another size than it was written with): passed over")
            continue
        if state["run"] != digest(run):
            message = f"{path} was written by another run: set another checkpoint.dir"
            raise CheckpointError(message, param=str(path))
        return Checkpoint(folder=path, step=state["step"], data=DataState(**state["data"]))
    return None


def begin(
    folder: Path,
    *,
    step: int,
    data: DataState,
    run: Mapping[str, Any],
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    tokenizer_from: Path | None,
    keep: int,
    ranks: Ranks,
    group: dist.ProcessGroup | None = None,
    copy: bool = False,
) -> Callable[[], Path]:
    """Begin a checkpoint (tensors as safetensors, the rest as JSON), by every rank; what is returned ends it, lets all but
    the newest `keep` go and returns its folder.

    With `copy` model and optimizer may change before that, since all of it that is to be written is in the CPU's memory;
    several ranks then need a `group` for it (training.gathered.write_parts).
    """
    target = folder / f"step-{step:08d}"
    work = folder / f".{target.name}.part"
    if ranks.speaks:
        work.mkdir()
    ranks.wait()
    tensors = optimizer_entries(model, optimizer)
    parts = write_parts(tensors, work / PARTS, group if copy else None) if ranks.grouped and tensors else None
    whole = weights(model, ranks) if ranks.grouped or copy else None
    own = {} if ranks.grouped else {name: _on_cpu(tensor, copy=copy) for name, tensor in tensors.items()}

    def end() -> Path:
        if parts is not None:
            parts()
        if ranks.speaks:
            _write_model(work, model, whole, tokenizer_from)
            if not ranks.grouped:
                save_file(own, work / OPTIMIZER)
            _complete(work, target, {"step": step, "data": data.to_json(), "run": digest(run)})
            for old in sorted(_checkpoints(folder))[:-keep]:
                shutil.rmtree(old)
        return target

    return end


def _on_cpu(tensor: torch.Tensor, *, copy: bool) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=copy).contiguous()


def _write_model(
    work: Path, model: PreTrainedModel, whole: dict[str, torch.Tensor] | None, tokenizer_from: Path | None
) -> None:
    if adapted(model):
        state = model.state_dict() if whole is None else whole
        write_adapter(model, state, work / ADAPTER)
        whole = merged(model, state)
    model.save_pretrained(work, state_dict=whole)
    check_saved_positions(work, model)
    for name in TOKENIZER_FILES:
        if tokenizer_from is not None and (tokenizer_from / name).is_file():
            shutil.copyfile(tokenizer_from / name, work / name)


def _complete(work: Path, target: Path, state: dict[str, Any]) -> None:
    """Name every file in state.json, flush all to disk, and give the folder its name."""
    found = sorted(work.rglob("*"))
    files = {str(path.relative_to(work)): path.stat().st_size for path in found if path.is_file()}
    (work / STATE).write_text(json.dumps(state | {"files": files}, indent=1), encoding="utf-8")
    for path in (*found, work / STATE, work):
        _flush(path)
    if target.exists():  # one that was passed over as not whole
        shutil.rmtree(target)
    work.rename(target)
    _flush(target.parent)


def optimizer_entries(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimizer's state as `parameter|entry` to tensor, as it is held."""
    return {
        f"{name}|{entry}": tensor
        for name, parameter in model.named_parameters()
        for entry, tensor in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
    """Give an optimizer the state saved in a checkpoint, in whichever form; raises CheckpointError where it cannot be
    read or does not fit."""
    parts = checkpoint.folder / PARTS
    parameters = dict(model.named_parameters())
    for key, tensor in read_optimizer(parts if parts.is_dir() else checkpoint.folder, model, ranks).items():
        name, _, entry = key.rpartition("|")
        optimizer.state[parameters[name]][entry] = tensor


class Metrics:
    """metrics.jsonl: one JSON object a step, in order and none twice, through any number of restarts."""

    def __init__(self, folder: Path, *, after: int) -> None:
        """Keep the whole lines of steps up to `after`: what a killed run did beyond its checkpoint is done again."""
        path = folder / METRICS
        kept = [line for line in _lines(path) if (step := _step(line)) is not None and step <= after]
        _replace(path, b"".join(kept))
        self._stream = path.open("ab")

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Append one step's object; it is with the operating system when this returns."""
        self._stream.write(json.dumps(metrics, allow_nan=False).encode() + b"\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def _step(line: bytes) -> int | None:
    try:
        return int(json.loads(line)["step"]) if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if re.fullmatch(r"step-\d{8}", path.name)]


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    _flush(temporary)
    temporary.replace(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
