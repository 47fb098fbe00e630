"""Real text that every machine has: conversations and documents about Python's standard library, out of its own docstrings.

Nothing is downloaded and nothing is kept in the repository; the words are those of the Python that runs this.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

SKIPPED = {
    "antigravity",
    "this",
    "idlelib",
    "lib2to3",
    "turtle",
    "turtledemo",
    "tkinter",
    "msilib",
    "winreg",
    "winsound",
}
LEAST_WORDS = 8
TURNS = 12


def _module(name: str) -> ModuleType | None:
    """Import a module of the standard library, quietly; some do not exist on every system."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        return importlib.import_module(name)
    return None


def _documented(module: ModuleType) -> Iterator[tuple[str, str]]:
    """(name, docstring) of the module's own functions and classes that say something of themselves."""
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or not (inspect.isroutine(value) or inspect.isclass(value)):
            continue
        if getattr(value, "__module__", None) != module.__name__:
            continue
        text = inspect.cleandoc(value.__doc__) if isinstance(value.__doc__, str) else ""
        if len(text.split()) >= LEAST_WORDS:
            yield name, text


def conversations() -> Iterator[dict[str, Any]]:
    """Conversations of several turns: what a module is for, then what its members do."""
    for module_name in sorted(set(sys.stdlib_module_names) - SKIPPED):
        module = None if module_name.startswith("_") else _module(module_name)
        if module is None or not module.__doc__:
            continue
        turns = [(f"What is Python's module `{module_name}` for?", inspect.cleandoc(module.__doc__))]
        turns += [(f"And what does `{module_name}.{name}` do?", text) for name, text in _documented(module)]
        for part, first in enumerate(range(0, len(turns), TURNS)):
            messages = [
                {"role": role, "content": text}
                for turn in turns[first : first + TURNS]
                for role, text in zip(("user", "assistant"), turn, strict=True)
            ]
            yield {"id": f"{module_name}/{part}", "messages": messages}


def documents() -> Iterator[dict[str, Any]]:
    """A document for every module: all that its docstrings say, one after the other."""
    for module_name in sorted(set(sys.stdlib_module_names) - SKIPPED):
        module = None if module_name.startswith("_") else _module(module_name)
        if module is None or not module.__doc__:
            continue
        parts = [f"{module_name}\n\n{inspect.cleandoc(module.__doc__)}"]
        parts += [f"{module_name}.{name}\n\n{text}" for name, text in _documented(module)]
        yield {"id": module_name, "text": "\n\n".join(parts)}


def write(path: Path, records: Iterator[dict[str, Any]]) -> int:
    """Write records as JSONL; returns how many."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)
