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


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("spec", type=Path, help="the spec, YAML or JSON")
    parser.add_argument("-n", "--rows", type=int, default=3, help="how many rows (default 3)")


def run(options: argparse.Namespace) -> int:
    """Show the first rows of shard 0."""
    spec = read_spec(options.spec)
    tokenizer = find_tokenizer(spec.tokenizer, paths=True)
    with tempfile.TemporaryDirectory(prefix="longweave-") as folder:
        objects = Objects.local(Path(folder))
        sources = take_in_sources(spec, objects, "pieces", first_only=True)
        rows = preview_rows(
            spec=spec, sources=sources, tokenizer=tokenizer, objects=objects, count=max(1, options.rows)
        )
    for number, row in enumerate(rows):
        print(json.dumps(row, ensure_ascii=False) if options.json else _text(number, row))
    return 0


def _text(number: int, row: dict[str, Any]) -> str:
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


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}… ({len(text)} characters)"
