"""What every spec has in common, and how a spec becomes the value a dataset is a function of.

Strict models: an unknown field, a wrong type or an impossible value is refused with the JSON pointer of the field.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from packing.dataset.errors import FieldProblem, SpecError

MAX_METADATA = 16
Name = Annotated[str, StringConstraints(max_length=200)]
Short = Annotated[str, StringConstraints(min_length=1, max_length=256)]
SpecModel = TypeVar("SpecModel", bound="CommonSpec")


class StrictModel(BaseModel):
    """No coercion, no unknown fields, no change after validation."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Source(StrictModel):
    """Where rows come from: an upload, a dataset of the service, or (at the command line) a local path. Exactly one of them.

    Of a dataset the rows of one split are read: `split`, else train, else the only one there is.
    """

    upload: Short | None = None
    dataset: Short | None = None
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    split: Short | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.upload, self.dataset, self.path)) != 1:
            message = "a source is one of {upload: id}, {dataset: id} or {path: file or folder}"
            raise ValueError(message)
        if self.upload is not None and self.split is not None:
            message = "an upload has no splits: split goes with a dataset"
            raise ValueError(message)
        return self

    def label(self) -> str:
        """The source as a user would name it."""
        return str(self.upload or self.dataset or self.path)


class Columns(StrictModel):
    """Names of the source's columns, where they are not the usual ones."""

    text: Short | None = None
    messages: Short | None = None
    id: Short | None = None
    domain: Short | None = None


class CommonSpec(StrictModel):
    """The fields of every kind (contract, "Spec"). `name` and `metadata` describe a dataset and do not change a byte of it."""

    kind: str
    name: Name = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    metadata: Annotated[
        dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
        Field(max_length=MAX_METADATA),
    ] = {}
    license: Name | None = None
    shard_rows: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    shard_tokens: Annotated[int, Field(ge=1, le=10**12)] | None = None
    on_bad_row: Literal["fail", "skip"] = "fail"
    columns: Columns = Columns()
    tokenizer: Annotated[str, StringConstraints(min_length=1, max_length=4096)] = "builtin"
    chat_template: Annotated[str, StringConstraints(max_length=65536)] | None = None
    eos_token: Short | None = None

    @model_validator(mode="after")
    def _one_measure_of_shards(self) -> Self:
        if self.shard_rows is not None and self.shard_tokens is not None:
            message = "shard_rows and shard_tokens both say how large a shard is: give one of them"
            raise ValueError(message)
        return self

    def sources(self) -> Mapping[str, Source]:
        """Every source the spec names, by its JSON pointer."""
        return {}

    def part_specs(self) -> Mapping[str, Mapping[str, Any]]:
        """Specs of datasets that this one is made of and that are built with it, as plain objects, by their JSON pointers."""
        return {}

    def with_part_specs(self, specs: Mapping[str, Mapping[str, Any]]) -> Self:  # noqa: ARG002 (for kinds that have parts)
        """The same spec with its parts in the form they were understood."""
        return self

    def wanted(self) -> tuple[Literal["rows", "tokens"], int] | None:
        """How many rows or tokens the spec itself asks for; None where that is for its sources to say."""
        return None

    def expected_tokens(self) -> int | None:
        """About how many tokens the dataset will have, where the spec itself says so and a sample would mislead."""
        return None

    def for_sample(self) -> Self:
        """The spec as it is for a sample of the sources."""
        return self

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON, defaults written out."""
        return self.model_dump(mode="json")


def field_error(field: str, message: str, given: Any) -> ValidationError:
    """What a validator of a whole spec raises where one field is to blame, so that it is the one that is named."""
    detail = InitErrorDetails(
        type=PydanticCustomError("spec", "{message}", {"message": message}), loc=(field,), input=given
    )
    return ValidationError.from_exception_data("spec", [detail])


def problems_of(error: ValidationError, given: Any, fields: Collection[str] = ()) -> list[FieldProblem]:
    """Pydantic's findings about `given` as pointers and sentences, a field that fits none of several forms as one of them; `fields` are
    the model's, one of which may have been meant."""
    found: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False):
        steps = [str(step).replace("~", "~0").replace("/", "~1") for step in _in_spec(item, given)]
        pointer = "".join(f"/{step}" for step in steps)
        near = (
            get_close_matches(steps[0], fields, 1, cutoff=0.8)
            if item["type"] == "extra_forbidden" and len(steps) == 1
            else []
        )
        message = _sentence(item) + "".join(f"; did you mean {name}?" for name in near)
        found[pointer] = f"{found[pointer]}; or: {message}" if pointer in found else message
    return [FieldProblem(pointer=pointer, message=message) for pointer, message in found.items()]


def _in_spec(item: Mapping[str, Any], given: Any) -> list[str | int]:
    """Where a finding lies in what was given: pydantic names the forms of a field that has several as if they were fields too."""
    steps: list[str | int] = []
    last = len(item["loc"]) - 1
    for number, step in enumerate(item["loc"]):
        try:
            given = given[step]
        except (TypeError, LookupError):
            # a field of the spec itself is always one; below it only what is said to be missing need not be there
            if number and (number < last or item["type"] not in ("missing", "spec")):
                continue
            given = None
        steps.append(step)
    return steps


def _sentence(item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        return "no such field"
    if item["type"] == "missing":
        return "this field is needed"
    message = str(item["msg"]).removeprefix("Value error, ")
    given = item.get("input")
    return (
        f"{message} (got {given!r})"
        if isinstance(given, str | int | float | bool) and len(repr(given)) < 80
        else message
    )


def validate(model: type[SpecModel], data: bytes) -> SpecModel:
    """Validate JSON bytes; raises SpecError naming every offending field. JSON, so that a date may be a string and nothing else may."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise SpecError(problems_of(error, _plain(data), model.model_fields)) from None


def _plain(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
