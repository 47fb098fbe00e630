"""The messages of a record: the usual shapes of instruction data, told apart row by row.

`messages` (or the column the spec names), ShareGPT's `conversations`, `prompt`/`completion`, `instruction`/`input`/`output`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from packing.bare_rows import MAX_MESSAGES, ROLES
from packing.spec import Columns

SHAREGPT = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "function_response": "tool",
    "observation": "tool",
}


class Reason(Exception):  # noqa: N818 (not an error of the program: the reason why a row is rejected)
    """Why a row cannot be used."""


def names_of(record: Mapping[str, Any]) -> str:
    """The columns of a record, for a sentence."""
    return ", ".join(sorted(record)) or "no columns"


def conversation_of(record: Mapping[str, Any], columns: Columns) -> list[dict[str, Any]]:
    """The messages of a record; raises Reason with a sentence where there are none or they cannot be used."""
    if columns.messages:
        if columns.messages not in record:
            raise Reason(f"no column {columns.messages!r}; it has {names_of(record)}")
        return messages_of(record[columns.messages])
    if "messages" in record:
        return messages_of(record["messages"])
    if "conversations" in record:
        return messages_of(record["conversations"])
    if "prompt" in record and "completion" in record:
        return messages_of([*_side(record["prompt"], "user"), *_side(record["completion"], "assistant")])
    if "instruction" in record and "output" in record:
        return messages_of(_instruction(record))
    raise Reason(
        f"no messages, conversations, prompt/completion or instruction/output; it has {names_of(record)} (columns: says which)"
    )


def _side(value: Any, role: str) -> list[Any]:
    return (
        [{"role": role, "content": value}] if isinstance(value, str) else value if isinstance(value, list) else [value]
    )


def _instruction(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    question, context = record["instruction"], record.get("input")
    if isinstance(context, str) and context.strip() and isinstance(question, str):
        question = f"{question}\n\n{context}"
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": record["output"]}]
    system = record.get("system")
    return [{"role": "system", "content": system}, *messages] if isinstance(system, str) and system else messages


def messages_of(value: Any) -> list[dict[str, Any]]:
    """A list of messages, each checked and with the roles of the field; raises Reason."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise Reason("messages is no list")
    if not value:
        raise Reason("messages is empty")
    if len(value) > MAX_MESSAGES:
        raise Reason(f"{len(value)} messages, more than {MAX_MESSAGES}")
    value = [_message(item, number) for number, item in enumerate(value, 1)]
    if "assistant" not in [message["role"] for message in value]:
        raise Reason("no assistant message: nothing to train on")
    return value


def _message(value: Any, number: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Reason(f"message {number} is no object with role and content")
    if "role" not in value and "from" in value:
        value = {"role": SHAREGPT.get(str(value["from"]), value["from"]), "content": value.get("value")}
    role, content = value.get("role"), value.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise Reason(f"message {number} has role {role!r}; roles are {', '.join(sorted(ROLES))}")
    if isinstance(content, list | dict):
        raise Reason(
            f"message {number} is multi-modal (its content is a {type(content).__name__}): only text is served"
        )
    calls = _tool_calls(value, number)
    if not isinstance(content, str) and not (content is None and role == "assistant" and calls):
        raise Reason(f"message {number} has no content")
    if not isinstance(value.get("train", True), bool):
        raise Reason(f"message {number}: train is true or false")
    return value if calls is value.get("tool_calls") else {**value, "tool_calls": calls}


def _tool_calls(message: Mapping[str, Any], number: int) -> list[dict[str, Any]] | None:
    """A message's tool calls, as a list or as JSON: columns of one type cannot hold calls of every shape."""
    calls = _from_json(message.get("tool_calls"), f"message {number}: tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise Reason(f"message {number}: tool_calls is no list of objects")
    return calls


def tools_of(value: Any) -> list[dict[str, Any]] | None:
    """The tools a conversation may call, as a list or as JSON; None where there are none (a template may tell [] from none)."""
    tools = _from_json(value, "tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise Reason("tools is no list of objects")
    return tools or None


def _from_json(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value) if value.strip() else None
    except orjson.JSONDecodeError as error:
        raise Reason(f"{name} is no JSON ({error})") from None
