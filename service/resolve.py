"""From a spec to what it is built from: source records and the tokenizer, by id."""

from __future__ import annotations

from collections.abc import Mapping

from packing.dataset.errors import FieldProblem, SpecError
from packing.spec import CommonSpec
from service.jobs.catalog import Catalog
from service.problems import NotFoundError
from service.storage.intake import SourceRecord


def resolve_sources(spec: CommonSpec, catalog: Catalog) -> Mapping[str, SourceRecord]:
    """The record of every source the spec names, by its pointer; raises SpecError naming each one that is not there."""
    found: dict[str, SourceRecord] = {}
    problems: list[FieldProblem] = []
    for pointer, source in spec.sources().items():
        try:
            if source.upload is not None:
                found[pointer] = SourceRecord.from_json(catalog.upload(source.upload).record)
            elif source.dataset is not None:
                catalog.dataset(source.dataset)
                message = f"a dataset is no source for {spec.kind} yet: upload a file"
                problems.append(FieldProblem(pointer=f"{pointer}/dataset", message=message))
            else:
                message = "a path means nothing to the service: upload the file first"
                problems.append(FieldProblem(pointer=f"{pointer}/path", message=message))
        except NotFoundError as error:
            field = "upload" if source.upload is not None else "dataset"
            problems.append(FieldProblem(pointer=f"{pointer}/{field}", message=error.message))
    if problems:
        raise SpecError(problems)
    return found
