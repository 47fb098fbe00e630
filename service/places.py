"""Places on this machine as users write them at the command line."""

from __future__ import annotations

from pathlib import Path


def place_of(text: str) -> Path:
    """The path that a user means: `~` and `~user` at its beginning are home directories, where there are such."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)
