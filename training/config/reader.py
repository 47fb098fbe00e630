"""Reading a config: YAML or plain mappings into sections, every offending field named at once."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from packing.dataset.errors import FieldProblem, SpecError
from training.config.rules import RefusedError
from training.config.sections import SECTIONS, Config


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
                kept[name] = _value(spec, given[name], f"{pointer}/{name}", problems)
            elif required and name not in SECTIONS:
                problems.append(FieldProblem(pointer=f"{pointer}/{name}", message="is missing"))
        except RefusedError as error:
            problems.append(FieldProblem(pointer=f"{pointer}/{name}", message=str(error)))
    return kept


def _value(spec: dataclasses.Field[Any], value: Any, pointer: str, problems: list[FieldProblem]) -> Any:
    """A field's value through its rule, or a section within a section."""
    inner: type | None = spec.metadata.get("section")
    if inner is None:
        return spec.metadata["rule"](value) if "rule" in spec.metadata else value
    if value is None:
        return None
    before = len(problems)
    fields = _fields(inner, value, pointer, problems)
    return inner(**fields) if len(problems) == before else None


def _impossible(config: Config) -> list[FieldProblem]:
    """What single fields cannot show: values that are impossible together."""
    problems: list[FieldProblem] = []

    def problem(pointer: str, message: str) -> None:
        problems.append(FieldProblem(pointer=pointer, message=message))

    if (config.model.path is None) == (config.model.preset is None):
        problem("/model", "must have exactly one of path and preset")
    if config.model.attention == "varlen" and config.model.dtype == "float32":
        problem("/model/attention", "must not be varlen with dtype float32: its kernel serves half precision alone")
    if config.model.offload and not config.model.checkpointing:
        problem(
            "/model/offload",
            "must go with checkpointing: what that keeps, a layer's input, is what is taken off the device",
        )
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
