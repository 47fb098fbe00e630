"""The child of service.engine.bounded: one task from standard input, its result to standard output, under limits it sets itself."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

TRIALS = (
    "The quick brown fox reads 1,024 reports, doesn't it?\n\n  x = f(y)\t# ok\r\n",
    "\u57ce\u5e02\u7684\u9500\u552e\u989d\u662f 42. na\u00efve caf\u00e9 \u2615",
    "a" * 20_000,
    " " * 20_000,
    "1" * 20_000,
    "a1 " * 7_000,
    "\u5b57" * 10_000,
    "=-" * 10_000 + "\n" * 1_000,
    "\u0301\u200d\U0001f469" * 3_000,
)
"""Texts that a tokenizer is tried on: plain ones, and long runs, at which regular expressions that backtrack do not end."""

CONVERSATIONS = (
    [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Two."}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "Three."},
    ],
)


def limit(cpu_seconds: int, memory_bytes: int) -> None:
    """Bound this process: processor time, addresses, no file larger than a tokenizer, no core file."""
    try:
        import resource
    except ImportError:  # not on Windows: the parent's clock remains
        return
    for what, most in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 256 * 1024 * 1024),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def check(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Load the tokenizer in `folder`, encode and decode trial texts, render trial conversations; raises TokenizerError."""
    from packing.chat import ChatTemplate, TemplateRowError
    from packing.dataset.errors import TokenizerError
    from packing.tokenizers import Tokenizer

    tokenizer = Tokenizer.load(Path(payload["folder"]), name=payload["name"])
    encoded = tokenizer.encode(TRIALS)
    tokenizer.decode(encoded.ids[: encoded.offsets[1]].tolist())
    if tokenizer.chat_template:
        template = ChatTemplate(tokenizer.chat_template, tokenizer, today=date(2026, 1, 1))
        refusals: list[str] = []
        for conversation in CONVERSATIONS:
            try:
                tokenizer.encode([template.text(conversation)])
            except TemplateRowError as error:
                refusals.append(error.message)
        # One without system messages is a template all the same; one that renders neither is none.
        if len(refusals) == len(CONVERSATIONS):
            message = f"the chat template renders no conversation: {refusals[0]}"
            raise TokenizerError(message, param="/chat_template")
    return {
        "digest": tokenizer.digest,
        "sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "chat_template": bool(tokenizer.chat_template),
    }


def _parts(payload: Mapping[str, Any]) -> dict[str, Any]:
    from service.engine.tokenizers import TokenizerRecord
    from service.kinds import spec_of
    from service.storage.objects import Objects
    from service.storage.source_record import SourceRecord

    return {
        "spec": spec_of(payload["spec"]),
        "sources": {pointer: SourceRecord.from_json(record) for pointer, record in payload["sources"].items()},
        "tokenizer": TokenizerRecord(**payload["tokenizer"]),
        "objects": Objects.open(payload["store"]),
    }


def preview(payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first rows a spec would give."""
    from service.engine.preview import preview_rows

    return preview_rows(**_parts(payload), count=payload["count"])


def guess(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What a dataset will hold."""
    from service.engine.preview import estimate

    return estimate(**_parts(payload))


def admit(payload: Mapping[str, Any]) -> None:
    """Raise what is wrong with a spec before a job is made of it."""
    from service.engine.line import check_tokens
    from service.engine.preview import plan_ahead

    parts = _parts(payload)
    check_tokens(parts["spec"], parts["sources"], parts["tokenizer"])
    parts.pop("sources")
    plan_ahead(**parts)


TASKS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "check": check,
    "preview": preview,
    "estimate": guess,
    "admit": admit,
}


def main() -> int:
    """Do the one task; exit code 0 with a result or an error of the house, anything else without a word."""
    request = json.loads(sys.stdin.buffer.read())
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer of ours
    limit(request["cpu_seconds"], request["memory_bytes"])
    from packing.dataset.errors import InputError, LongweaveError, SpecError
    from service.engine.tokenizers import gave_up

    try:
        answer: dict[str, Any] = {"result": TASKS[request["task"]](request["payload"])}
    except LongweaveError as error:
        problems = error.problems if isinstance(error, SpecError) else ()
        told = {"code": error.code, "message": error.message, "param": error.param}
        told |= {"problems": [{"pointer": p.pointer, "message": p.message} for p in problems]}
        answer = {"error": told | {"input": isinstance(error, InputError)}}
    except BaseException as error:
        if not gave_up(error):
            raise
        told = {
            "code": "invalid_tokenizer",
            "message": f"the tokenizer's engine gives up: {error}",
            "param": "/tokenizer",
        }
        answer = {"error": told | {"problems": [], "input": True}}
    with os.fdopen(out, "wb") as sink:
        sink.write(json.dumps(answer).encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
