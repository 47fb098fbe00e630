"""Specs and their sources at the command line, where a path means something."""

from __future__ import annotations

from pathlib import Path

from packing.dataset.errors import FieldProblem, SourceError, SpecError
from packing.spec import CommonSpec
from service.kinds import parse_spec, sources_of
from service.places import place_of
from service.storage.intake import first_piece, take_in_path
from service.storage.objects import Objects
from service.storage.source_record import SourceRecord


def read_spec(path: Path) -> CommonSpec:
    """The spec in a file; raises SpecError naming every offending field, SourceError where there is no such file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        message = f"the spec {path} cannot be read ({error.strerror})"
        raise SourceError(message, param=str(path)) from error
    return parse_spec(text)


def take_in_sources(
    spec: CommonSpec, objects: Objects, prefix: str, *, first_only: bool = False
) -> dict[str, SourceRecord]:
    """Cut every source of the spec into pieces below `prefix`; uploads and datasets of a service are no business of this machine."""
    problems = [
        FieldProblem(
            pointer=pointer,
            message="without a service a source is {path: file or folder}; `longweave submit` takes others",
        )
        for pointer, source in sources_of(spec).items()
        if source.path is None
    ]
    if problems:
        raise SpecError(problems)
    take = first_piece if first_only else take_in_path
    return {
        pointer: take(place_of(source.path), objects=objects, prefix=prefix, split=source.split)
        for pointer, source in sources_of(spec).items()
        if source.path is not None
    }
