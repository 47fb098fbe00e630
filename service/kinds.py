"""The kinds of dataset there are, and how a spec finds its own."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, cast

import yaml

from packing import cip, mixture, skipalign
from packing.dataset.errors import FieldProblem, SpecError
from packing.plan import Kind
from packing.spec import CommonSpec, Source, validate
from synth import needle, synl

KINDS: dict[str, Kind] = {
    "cip": cip,
    "mixture": mixture,
    "needle": needle,
    "skipalign": skipalign,
    "synl": synl,
}

LARGEST_SPEC = 1024 * 1024
INHERITED = ("tokenizer", "chat_template", "eos_token", "seed")
"""What a part's spec takes over from the spec around it where it says nothing itself."""


class _PlainLoader(yaml.SafeLoader):
    """YAML as JSON would say it: dates stay strings, for every field decides about its own type."""

    yaml_implicit_resolvers = {  # pyright: ignore[reportIncompatibleVariableOverride]  # noqa: RUF012 (yaml looks for it here)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: a few lines of them can stand for gigabytes."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"line {mark.line + 1}: aliases (*name) have no place in a spec")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 (yaml's own form)
        """Refuse a field that stands twice: yaml would silently take the last."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _twice(key.value, f"line {key.start_mark.line + 1}: ")
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _refuse(message: str, pointer: str = "") -> SpecError:
    return SpecError([FieldProblem(pointer=pointer, message=message)])


def _twice(name: str, where: str = "") -> SpecError:
    return _refuse(f"{where}the field {name!r} stands there twice")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _twice(name)
        found[name] = value
    return found


def read_object(text: bytes) -> dict[str, Any]:
    """One JSON or YAML object; raises SpecError, with the line where the text cannot be read."""
    if len(text) > LARGEST_SPEC:
        raise _refuse(f"a spec has at most {LARGEST_SPEC} bytes, this one has {len(text)}")
    try:
        decoded = text.decode("utf-8")
        try:
            value = json.loads(decoded, object_pairs_hook=_unique)
        except ValueError:
            value = yaml.load(decoded, Loader=_PlainLoader)  # noqa: S506 (a SafeLoader, less its dates)
    except UnicodeDecodeError as error:
        raise _refuse(f"not UTF-8 (byte {error.start})") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        # a ValueError is what yaml lets through of a number with thousands of digits
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise _refuse(f"{where}neither JSON nor YAML ({getattr(error, 'problem', None) or error})") from None
    if not isinstance(value, dict):
        raise _refuse("a spec is one object with named fields, such as `kind: skipalign`")
    return value


def parse_spec(text: bytes) -> CommonSpec:
    """The spec in `text` (JSON or YAML); raises SpecError naming every offending field."""
    return spec_of(read_object(text))


def spec_of(value: dict[str, Any]) -> CommonSpec:
    """The spec of a plain object, its parts' specs included; raises SpecError naming every offending field."""
    name = value.get("kind")
    if not isinstance(name, str) or name not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise _refuse(
            f"there is no kind {name!r}; the kinds are {known}" if name else f"needed: one of {known}", "/kind"
        )
    try:
        data = json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        pointer = _not_finite(value)
        raise _refuse(
            "infinity and NaN are no numbers of a spec" if pointer else f"not plain data ({error})", pointer
        ) from None
    spec = validate(KINDS[name].Spec, data)
    return spec.with_part_specs(_understood(spec)) if spec.part_specs() else spec


def _not_finite(value: Any, pointer: str = "") -> str:
    """The pointer of the first number that is infinite or none (YAML can write those); empty where there is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return pointer
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inner = cast("dict[Any, Any]", value).items()
    elif isinstance(value, list):
        inner = enumerate(cast("list[Any]", value))
    return next(filter(None, (_not_finite(item, f"{pointer}/{name}") for name, item in inner)), "")


def _understood(spec: CommonSpec) -> dict[str, dict[str, Any]]:
    """The specs of the parts, checked, with everything they inherit or leave to defaults written out."""
    given = spec.to_json()
    found: dict[str, dict[str, Any]] = {}
    problems: list[FieldProblem] = []
    for pointer, raw in spec.part_specs().items():
        if isinstance(raw.get("kind"), str) and KINDS.get(raw["kind"]) is KINDS[spec.kind]:
            problems.append(
                FieldProblem(pointer=f"{pointer}/kind", message=f"a part of a {spec.kind} is no {spec.kind}")
            )
            continue
        try:
            part = spec_of({name: given[name] for name in INHERITED} | dict(raw))
        except SpecError as error:
            problems += [FieldProblem(pointer=f"{pointer}{p.pointer}", message=p.message) for p in error.problems]
            continue
        if part.tokenizer != spec.tokenizer:
            message = f"a part is built with the tokenizer of the whole, which is {spec.tokenizer!r}: leave it out here"
            problems.append(FieldProblem(pointer=f"{pointer}/tokenizer", message=message))
        found[pointer] = part.to_json()
    if problems:
        raise SpecError(problems)
    return found


def parts_of(spec: CommonSpec) -> dict[str, CommonSpec]:
    """The specs of the datasets that a dataset is made of, by their pointers."""
    return {pointer: spec_of(dict(raw)) for pointer, raw in spec.part_specs().items()}


def sources_of(spec: CommonSpec) -> dict[str, Source]:
    """Every source that a spec or one of its parts names, by its pointer."""
    found = dict(spec.sources())
    for pointer, part in parts_of(spec).items():
        found |= {f"{pointer}{inner}": source for inner, source in sources_of(part).items()}
    return found


def refuse_paths(spec: CommonSpec) -> None:
    """Raise SpecError when any field names a place on the machine: over REST, clients name uploads, datasets and tokenizers only."""
    problems = [
        FieldProblem(
            pointer=f"{pointer}/path",
            message="a path means nothing to the service: upload the file and say {upload: id}, or name a dataset",
        )
        for pointer, source in sources_of(spec).items()
        if source.path is not None
    ]
    if any(sign in spec.tokenizer for sign in "/\\") or spec.tokenizer.startswith((".", "~")):
        problems.append(
            FieldProblem(
                pointer="/tokenizer", message="a path means nothing to the service: name a registered tokenizer"
            )
        )
    if problems:
        raise SpecError(problems)
