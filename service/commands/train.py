"""`longweave train CONFIG`: the bundled worker, which lives in a room of its own and needs nothing of the service."""

from __future__ import annotations

import argparse
from pathlib import Path

from packing.dataset.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a training config (YAML)")


def run(arguments: argparse.Namespace) -> int:
    """Train; raises SpecError for a bad config and other LongweaveErrors where the work fails."""
    try:
        from training.loop import run_file
    except ModuleNotFoundError as error:
        message = f"the training worker needs {error.name}: pip install 'longweave[train]'"
        raise InputError(message) from error
    return run_file(arguments.config, as_json=arguments.json)
