"""Tokenizers: those of the service, and those that users send as data."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from service.engine.tokenizers import BUILTIN_NAME
from service.jobs.registry import TokenizerEntry
from service.problems import NotFoundError
from service.routes.bodies import TokenizerBody, TokenizerPage, tokenizer_body
from service.routes.body import known_cursor, known_id
from service.services import Services, Wired
from service.tokenizers import NAME, receive_tokenizer

router = APIRouter(prefix="/v1", tags=["tokenizers"])

FILE = {"type": "string", "format": "binary"}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["tokenizer.json"],
                    "properties": {
                        "name": {"type": "string"},
                        "tokenizer.json": FILE,
                        "tokenizer_config.json": FILE,
                        "chat_template.jinja": FILE,
                    },
                }
            }
        },
    }
}


@router.post("/tokenizers", status_code=201, response_model=TokenizerBody, openapi_extra=BODY)
async def create_tokenizer(
    request: Request, services: Wired, name: Annotated[str | None, Query(max_length=64)] = None
) -> Response:
    """Send a tokenizer: tokenizer.json, tokenizer_config.json and chat_template.jinja as a form.

    It is loaded and tried in a process with bounded time and memory. From then on its name stands for it in the owner's specs.
    """
    entry = await receive_tokenizer(request, services, name)
    headers = {"Location": f"/v1/tokenizers/{entry.id}"}
    return JSONResponse(tokenizer_body(entry).model_dump(), 201, headers=headers)


@router.get("/tokenizers")
def list_tokenizers(
    services: Wired, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 100
) -> TokenizerPage:
    """The service's own tokenizers, then those uploaded, newest first."""
    own = [] if after is not None else [_own(name) for name in _names(services)]
    found = services.catalog.tokenizers.list(after=known_cursor("tok", after), limit=limit + 1)
    return TokenizerPage(data=own + [tokenizer_body(entry) for entry in found[:limit]], has_more=len(found) > limit)


@router.get("/tokenizers/{tokenizer}")
def get_tokenizer(tokenizer: str, services: Wired) -> TokenizerBody:
    """One tokenizer, by its id, or the one that the caller's specs mean by a name."""
    mine = services.catalog.tokenizers.named(tokenizer, owner=services.caller.owner)
    if mine is None and tokenizer in _names(services):
        return _own(tokenizer)
    return tokenizer_body(_find(services, tokenizer))


@router.delete("/tokenizers/{tokenizer}", status_code=204)
async def delete_tokenizer(tokenizer: str, services: Wired) -> Response:
    """Remove an uploaded tokenizer that no waiting or running job needs, by its name or id."""

    def remove() -> None:
        entry = _find(services, tokenizer)
        services.catalog.tokenizers.delete(entry)
        services.objects.delete_prefix(entry.prefix)

    await run_in_threadpool(remove)
    return Response(status_code=204)


def _names(services: Services) -> list[str]:
    return [BUILTIN_NAME, *services.settings.registered_tokenizers()]


def _own(name: str) -> TokenizerBody:
    origin = "builtin" if name == BUILTIN_NAME else "operator"
    # The operator's are read from disk when a job needs them, not to be listed.
    return TokenizerBody(
        id=None,
        name=name,
        origin=origin,
        digest=None,
        vocab_size=None,
        chat_template=None,
        bytes=None,
        created_at=None,
    )


def _find(services: Services, reference: str) -> TokenizerEntry:
    if reference.startswith("tok_"):
        return services.catalog.tokenizers.get(known_id("tok", reference))
    if NAME.fullmatch(reference) is None:
        message = "there is no tokenizer of this name"
        raise NotFoundError(message, param="id")
    return services.catalog.tokenizers.get(reference)
