"""The training config: YAML in, frozen dataclasses out, every offending field named.

Paths are taken relative to the working directory, as the command line's are. A field whose feature this version does
not serve is refused unless it holds the value that asks for nothing.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from packing.dataset.errors import FieldProblem, SpecError

Rule = Callable[[Any], Any]
"""Takes a field's raw value and returns the one to keep; raises _RefusedError with a sentence."""

LARGEST_SEED = 2**64 - 1


class _RefusedError(ValueError):
    """A value that a rule does not take, with the sentence that says so."""


def _whole(least: int, largest: int | None = None) -> Rule:
    def rule(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            message = f"must be a whole number, not {value!r}"
            raise _RefusedError(message)
        if value < least or (largest is not None and value > largest):
            message = f"must be {f'at least {least}' if value < least else f'at most {largest}'}, not {value}"
            raise _RefusedError(message)
        return value

    return rule


def _number(*, above: float | None = None, least: float | None = None) -> Rule:
    def rule(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            message = f"must be a number, not {value!r}"
            raise _RefusedError(message)
        if (above is not None and value <= above) or (least is not None and value < least):
            message = f"must be {f'above {above:g}' if above is not None else f'at least {least:g}'}, not {value:g}"
            raise _RefusedError(message)
        return float(value)

    return rule


def _one_of(*names: str) -> Rule:
    def rule(value: Any) -> str:
        if value not in names:
            message = f"must be {' or '.join(names)}, not {value!r}"
            raise _RefusedError(message)
        return cast("str", value)

    return rule


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        message = f"must be a text that is not empty, not {value!r}"
        raise _RefusedError(message)
    return value


def _list_of(rule: Rule) -> Rule:
    def each(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            message = f"must be a list, not {value!r}"
            raise _RefusedError(message)
        return tuple(rule(item) for item in cast("list[Any]", value))

    return each


def _optional(rule: Rule) -> Rule:
    return lambda value: None if value is None else rule(value)


def _only(default: Any, sentence: str) -> Rule:
    def rule(value: Any) -> Any:
        if value != default:
            raise _RefusedError(sentence)
        return value

    return rule


def _rope_base(value: Any) -> str | float:
    if value == "auto":
        return "auto"
    try:
        return _number(above=1.0)(value)
    except _RefusedError as error:
        message = f"must be auto or a number above 1, not {value!r}"
        raise _RefusedError(message) from error


def _source(value: Any) -> str:
    text = _text(value)
    scheme = text.partition("://")[0] if "://" in text else ""
    if scheme not in {"", "http", "https", "s3"}:
        message = f"must be a directory, the http(s) URL of a dataset, or s3://bucket/prefix; {scheme}:// is not served"
        raise _RefusedError(message)
    return text


def _directory(value: Any) -> str:
    text = _text(value)
    if "://" in text:
        message = f"must be a directory on this machine, not {text!r}"
        raise _RefusedError(message)
    return text


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        message = f"must be true or false, not {value!r}"
        raise _RefusedError(message)
    return value


def _field(rule: Rule, default: Any = dataclasses.MISSING) -> Any:
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model: exactly one of `path` (a directory of Hugging Face's layout) and `preset`; `tokenizer`, a directory,
    is what messages are tokenised with instead of the model's own."""

    path: str | None = _field(_optional(_text), None)
    preset: str | None = _field(_optional(_one_of("tiny")), None)
    tokenizer: str | None = _field(_optional(_text), None)
    rope_base: str | float = _field(_rope_base, "auto")
    attention: str = _field(
        _only("auto", "must be auto: the worker has one attention, the one that follows the rows' boundaries"), "auto"
    )
    lora: None = _field(_only(None, "LoRA is not served by this version: leave lora out, or null"), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Where the rows come from: a dataset's directory, its URL at a service (…/v1/datasets/ID) and an API key,
    or s3://bucket/prefix.

    `too_long`: what becomes of a row that no packed row can hold."""

    source: str = _field(_source)
    key: str | None = field(default=None, repr=False, metadata={"rule": _optional(_text)})
    shuffle_seed: int = _field(_whole(0, LARGEST_SEED), 0)
    split: str = _field(_text, "train")
    too_long: str = _field(_one_of("refuse", "drop"), "refuse")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """Tokens of an optimizer step and of one packed row; a step is tokens_per_step / row_tokens packed rows."""

    tokens_per_step: int = _field(_whole(1), 32768)
    row_tokens: int = _field(_whole(2), 4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW; `warmup` in steps, `clip` the largest norm of the gradient."""

    lr: float = _field(_number(above=0.0), 2.0e-5)
    warmup: int = _field(_whole(0), 20)
    schedule: str = _field(_one_of("constant", "cosine", "wsd"), "cosine")
    weight_decay: float = _field(_number(least=0.0), 0.0)
    clip: float = _field(_number(above=0.0), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """Where checkpoints and metrics.jsonl go, every how many steps, and how many checkpoints stay."""

    dir: str = _field(_text)
    every: int = _field(_whole(1), 50)
    keep: int = _field(_whole(1), 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """`tokens`: every target weighs the same. `sequences`: every sequence does (LongAlign)."""

    normalize: str = _field(_one_of("tokens", "sequences"), "tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """What is measured before the first step, every `every` steps and after the last: answers to `needles` and
    `longbench`, and the loss on `texts`. Nothing of it changes the training."""

    needles: str | None = _field(_optional(_directory), None)
    texts: str | None = _field(_optional(_directory), None)
    longbench: str | None = _field(_optional(_directory), None)
    longbench_window: int | None = _field(_optional(_whole(1024)), None)
    every: int | None = _field(_optional(_whole(1)), None)
    before: bool = _field(_flag, default=True)
    chat: str = _field(_one_of("auto", "none"), "auto")
    batch_tokens: int = _field(_whole(1), 65536)
    prefill: int = _field(_whole(1), 2048)
    window: int = _field(_whole(2), 1024)
    stride: int = _field(_whole(1), 512)
    longer_windows: tuple[int, ...] = _field(_list_of(_whole(2)), ())
    most_tokens: int = _field(_whole(1), 262144)

    @property
    def asked(self) -> bool:
        """Whether there is anything to measure."""
        return any(place is not None for place in (self.needles, self.texts, self.longbench))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelConfig:
    """How torchrun's processes share the work. `shard`: weights, gradients and optimizer states are spread over all of
    them; else each holds all."""

    shard: bool = _field(_flag, default=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole training run."""

    model: ModelConfig
    data: DataConfig
    checkpoint: CheckpointConfig
    batch: BatchConfig = field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    steps: int = _field(_whole(1), 200)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


SECTIONS: Mapping[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "batch": BatchConfig,
    "optimizer": OptimizerConfig,
    "checkpoint": CheckpointConfig,
    "loss": LossConfig,
    "evaluate": EvaluateConfig,
    "parallel": ParallelConfig,
}


class _Loader(yaml.SafeLoader):
    """YAML with the two things a config needs: `2e-5` is a number (as in YAML 1.2), a field given twice is an error."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} given twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def told_elsewhere() -> bool:
    """Whether another process that torchrun started on this machine reads the same config and tells its problems."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def read_config(path: Path) -> Config:
    """The config in a YAML file; raises SpecError, naming every offending field."""
    try:
        value: Any = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        message = f"{path} cannot be read as YAML ({' '.join(str(error).split())})"
        raise SpecError([FieldProblem(pointer="", message=message)]) from error
    return parse_config(value)


def parse_config(value: Any) -> Config:
    """Check a config of plain mappings; raises SpecError, naming every offending field."""
    problems: list[FieldProblem] = []
    whole = _fields(Config, value, "", problems)
    if not isinstance(value, Mapping):
        raise SpecError(problems)
    if whole.get("evaluate", ()) is None:
        del whole["evaluate"]
    sections = {name: _fields(cls, whole.get(name, {}), f"/{name}", problems) for name, cls in SECTIONS.items()}
    if problems:
        raise SpecError(problems)
    config = Config(**{**whole, **{name: cls(**sections[name]) for name, cls in SECTIONS.items()}})
    if problems := _impossible(config):
        raise SpecError(problems)
    return config


def _fields(cls: type, value: Any, pointer: str, problems: list[FieldProblem]) -> dict[str, Any]:
    """The known fields of one mapping, each through its rule."""
    if not isinstance(value, Mapping):
        problems.append(FieldProblem(pointer=pointer, message=f"must be a mapping of fields, not {value!r}"))
        return {}
    given = cast("Mapping[Any, Any]", value)
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name in given:
        if name not in known:
            message = f"is no field of {pointer or 'the config'}; known are {', '.join(known)}"
            problems.append(FieldProblem(pointer=f"{pointer}/{name}", message=message))
    kept: dict[str, Any] = {}
    for name, spec in known.items():
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        try:
            if name in given:
                kept[name] = spec.metadata["rule"](given[name]) if "rule" in spec.metadata else given[name]
            elif required and name not in SECTIONS:
                problems.append(FieldProblem(pointer=f"{pointer}/{name}", message="is missing"))
        except _RefusedError as error:
            problems.append(FieldProblem(pointer=f"{pointer}/{name}", message=str(error)))
    return kept


def _impossible(config: Config) -> list[FieldProblem]:
    """What single fields cannot show: values that are impossible together."""
    problems: list[FieldProblem] = []

    def problem(pointer: str, message: str) -> None:
        problems.append(FieldProblem(pointer=pointer, message=message))

    if (config.model.path is None) == (config.model.preset is None):
        problem("/model", "must have exactly one of path and preset")
    batch = config.batch
    if batch.tokens_per_step % batch.row_tokens:
        message = f"must be a multiple of row_tokens ({batch.row_tokens}): a step is a whole number of packed rows"
        problem("/batch/tokens_per_step", message)
    if config.optimizer.warmup >= config.steps:
        problem("/optimizer/warmup", f"must be below steps ({config.steps}), not {config.optimizer.warmup}")
    evaluate = config.evaluate
    if evaluate.every is not None and not evaluate.asked:
        problem("/evaluate", "names nothing to evaluate: it must have needles, texts or longbench")
    if evaluate.stride >= evaluate.window:
        problem("/evaluate/stride", f"must be below window ({evaluate.window}), not {evaluate.stride}")
    windows = (evaluate.window, *evaluate.longer_windows)
    if list(windows) != sorted(set(windows)):
        problem("/evaluate/longer_windows", f"must rise from window ({evaluate.window}), not {list(windows[1:])}")
    return problems
