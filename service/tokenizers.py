"""Taking a tokenizer in: form → files → tried in a bounded process → objects → a row in the registry. It is data, never code."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from packing.dataset.errors import TokenizerError
from service.engine.bounded import run_bounded
from service.engine.tokenizers import BUILTIN_NAME
from service.jobs.registry import TokenizerEntry, tokenizer_folder
from service.problems import ConflictError, MalformedError, TooLargeError
from service.routes.body import counted_request
from service.services import Services

MIB = 1024 * 1024
LARGEST = {"tokenizer.json": 64 * MIB, "tokenizer_config.json": 4 * MIB, "chat_template.jinja": MIB}
"""What each file may have in bytes: the largest tokenizers of open models stay under half of it."""
FIELDS = {
    "tokenizer": "tokenizer.json",
    "tokenizer_config": "tokenizer_config.json",
    "config": "tokenizer_config.json",
    "chat_template": "chat_template.jinja",
}
"""Names of form fields that mean a file, whatever the file is called."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


async def receive_tokenizer(request: Request, services: Services, name: str | None) -> TokenizerEntry:
    """Take in the tokenizer of a multipart body, under `name` or the form's own field of that name.

    Raises MalformedError, TooLargeError, ConflictError, or TokenizerError with what is wrong with it, and then leaves nothing.
    """
    limit = sum(LARGEST.values()) + MIB
    try:
        async with counted_request(request, limit).form(
            max_files=len(LARGEST), max_fields=8, max_part_size=MIB
        ) as form:
            given: dict[str, bytes] = {}
            for field, value in form.multi_items():
                if isinstance(value, UploadFile):
                    await _keep(given, field, value)
                elif field == "name":
                    name = name if name is not None else value
                elif field in FIELDS:
                    _put(given, FIELDS[field], value.encode())
    except (HTTPException, MultiPartException) as error:
        detail = error.detail if isinstance(error, HTTPException) else error.message
        message = f"the multipart body cannot be read: {detail}"
        raise MalformedError(message, param="") from error
    return await run_in_threadpool(_take_in, services, _checked_name(name, services), given)


async def _keep(given: dict[str, bytes], field: str, value: UploadFile) -> None:
    name = value.filename if value.filename in LARGEST else FIELDS.get(field, field)
    if name not in LARGEST:
        message = f"{value.filename or field!r} is none of a tokenizer's files, which are {', '.join(LARGEST)}"
        raise MalformedError(message, param=f"/{field}")
    _put(given, name, await value.read(LARGEST[name] + 1))


def _put(given: dict[str, bytes], name: str, data: bytes) -> None:
    if name in given:
        message = f"{name} stands in the form twice"
        raise MalformedError(message, param=f"/{name}")
    if len(data) > LARGEST[name]:
        message = f"{name} has more than {LARGEST[name]} bytes, the most it may have"
        raise TooLargeError(message, param=f"/{name}")
    given[name] = data


def _checked_name(name: str | None, services: Services) -> str:
    if name is None or NAME.fullmatch(name) is None or name.startswith("tok_"):
        message = (
            "a tokenizer's name is 1 to 64 letters, digits, dots, dashes and underscores, not tok_…; send it as `name`"
        )
        raise MalformedError(message, param="/name")
    if name == BUILTIN_NAME or name in services.settings.registered_tokenizers():
        message = f"{name!r} is a tokenizer of this service: take another name"
        raise ConflictError(message, param="name")
    if services.catalog.tokenizers.named(name, owner=services.caller.owner) is not None:
        message = f"there is a tokenizer {name!r} of yours already: delete it first, or take another name"
        raise ConflictError(message, param="name")
    return name


def _take_in(services: Services, name: str, given: Mapping[str, bytes]) -> TokenizerEntry:
    if "tokenizer.json" not in given:
        message = (
            "a tokenizer is a tokenizer.json, with a tokenizer_config.json and a chat_template.jinja where it has them"
        )
        raise MalformedError(message, param="/tokenizer.json")
    with tempfile.TemporaryDirectory(dir=services.settings.incoming, prefix="tokenizer-") as folder:
        for file, data in given.items():
            (Path(folder) / file).write_bytes(data)
        try:
            told = run_bounded("check", {"folder": folder, "name": name})
        except TokenizerError as error:
            # Where it lay while it was looked at is nobody's business.
            error.message = error.message.replace(f"{folder}/", "").replace(folder, name)
            raise
    tokenizer_id = services.catalog.tokenizers.new_id()
    files = {file: hashlib.sha256(data).hexdigest() for file, data in given.items()}
    prefix = tokenizer_folder(tokenizer_id)
    try:
        for file, data in given.items():
            services.objects.write(f"{prefix}/{files[file]}", data)
        record = {**told, "files": files, "bytes": sum(map(len, given.values()))}
        return services.catalog.tokenizers.add(tokenizer_id, name, record)
    except BaseException:
        services.objects.delete_prefix(prefix)
        raise
