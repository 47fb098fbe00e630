"""`longweave preview SPEC`: the first rows, readable, at once."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from service.commands.specs import read_spec, take_in_sources
from service.engine.preview import preview_rows
from service.engine.tokenizers import find_tokenizer
from service.storage.objects import Objects

MOST_CHARACTERS = 400
MOST_ROWS = 1000


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("spec", type=Path, help="the spec, YAML or JSON")
    parser.add_argument("-n", "--rows", type=_count, default=3, help="how many rows, 1 to 1000 (default 3)")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_ROWS:
        message = f"{text!r} is no number of rows: 1 to {MOST_ROWS}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Show the first rows of shard 0."""
    spec = read_spec(options.spec)
    tokenizer = find_tokenizer(spec.tokenizer, paths=True)
    with tempfile.TemporaryDirectory(prefix="longweave-") as folder:
        objects = Objects.local(Path(folder))
        sources = take_in_sources(spec, objects, "pieces", first_only=True)
        rows = preview_rows(spec=spec, sources=sources, tokenizer=tokenizer, objects=objects, count=options.rows)
    for number, row in enumerate(rows):
        print(json.dumps(row, ensure_ascii=False) if options.json else _text(number, row))
    return 0


def _text(number: int, row: dict[str, Any]) -> str:
    if "messages" in row:
        return _conversation(number, row)
    if "reading" not in row:
        return f"row {number}\n" + "\n".join(f"  {name}: {_short(value)}" for name, value in row.items()) + "\n"
    named = f" · source {', '.join(row['source_ids'])}" if "source_ids" in row else ""
    reasons = "".join(f" · {', '.join(reason or 'skipped' for reason in row['reasons'])}" if "reasons" in row else "")
    lines = [f"row {number}{named} · {row['n_tokens']} tokens{reasons}"]
    for part in row["reading"]:
        first, last = part["positions"]
        label = part["role"] if "role" in part else f"{part['document']} [{part['chunk']}]"
        lines.append(f"  {label:<9} positions {first}..{last}, {part['trained']} trained")
        lines += [f"    | {line}" for line in _short(part["text"]).splitlines() or [""]]
    return "\n".join(lines) + "\n"


def _conversation(number: int, row: dict[str, Any]) -> str:
    """A row of messages: what it is, then turn by turn, the middle of a long message left out."""
    about = {name: value for name, value in row.items() if not isinstance(value, list)}
    lines = [f"row {number} · " + " · ".join(f"{name} {value}" for name, value in about.items())]
    for message in row["messages"]:
        lines.append(f"  {message['role']}")
        lines += [f"    | {line}" for line in _ends(message["content"]).splitlines() or [""]]
    return "\n".join(lines) + "\n"


def _ends(text: str) -> str:
    if len(text) <= 2 * MOST_CHARACTERS:
        return text
    return f"{text[:MOST_CHARACTERS]}… ({len(text)} characters) …{text[-MOST_CHARACTERS:]}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}… ({len(text)} characters)"
