"""From a spec to what it is built from: source records and the tokenizer, by id."""

from __future__ import annotations

from collections.abc import Mapping

from packing.dataset.errors import FieldProblem, SourceError, SpecError, TokenizerError
from packing.spec import CommonSpec
from service.engine.tokenizers import BUILTIN_NAME, TokenizerRecord, find_tokenizer
from service.jobs.catalog import Catalog
from service.jobs.registry import TokenizerEntry
from service.kinds import sources_of
from service.library import folder_of
from service.problems import NotFoundError
from service.settings import Settings
from service.storage.datasets import dataset_source
from service.storage.objects import Objects
from service.storage.source_record import SourceRecord


def resolve_sources(spec: CommonSpec, catalog: Catalog, objects: Objects) -> Mapping[str, SourceRecord]:
    """The record of every source the spec names, by its pointer; raises SpecError naming each one that is not there."""
    found: dict[str, SourceRecord] = {}
    problems: list[FieldProblem] = []
    for pointer, source in sources_of(spec).items():
        try:
            if source.upload is not None:
                found[pointer] = SourceRecord.from_json(catalog.upload(source.upload).record)
            elif source.dataset is not None:
                entry = catalog.dataset(source.dataset)
                found[pointer] = dataset_source(objects, folder_of(entry.id), name=entry.id, split=source.split)
            else:
                message = "a path means nothing to the service: upload the file first"
                problems.append(FieldProblem(pointer=f"{pointer}/path", message=message))
        except NotFoundError as error:
            field = "upload" if source.upload is not None else "dataset"
            problems.append(FieldProblem(pointer=f"{pointer}/{field}", message=error.message))
        except SourceError as error:
            problems.append(FieldProblem(pointer=f"{pointer}/split", message=error.message))
    if problems:
        raise SpecError(problems)
    return found


def resolve_tokenizer(
    name: str, *, owner: str, settings: Settings, catalog: Catalog, objects: Objects
) -> TokenizerRecord:
    """The tokenizer that an owner means by a name: the builtin one, one they uploaded, or the operator's, in this order.

    An operator who takes a name that a user had already changes none of that user's specs and waiting jobs.

    Raises TokenizerError where there is none. An uploaded one is not opened here.
    """
    registered = settings.registered_tokenizers()
    entry = None if name == BUILTIN_NAME else catalog.tokenizers.named(name, owner=owner)
    if entry is None:
        if name == BUILTIN_NAME or name in registered:
            return find_tokenizer(name, registered=registered)
        known = ", ".join([BUILTIN_NAME, *sorted(registered)])
        message = f"there is no tokenizer {name!r}; known: {known}, and those you upload (POST /v1/tokenizers)"
        raise TokenizerError(message, param="/tokenizer")
    return record_of(entry, objects)


def record_of(entry: TokenizerEntry, objects: Objects) -> TokenizerRecord:
    """An uploaded tokenizer as workers open it."""
    return TokenizerRecord(
        name=entry.name,
        folder="",
        digest=entry.digest,
        store=objects.url,
        prefix=entry.prefix,
        files=entry.files,
    )
