"""`longweave train CONFIG`: the bundled worker, which lives in a room of its own and needs nothing of the service."""

from __future__ import annotations

import argparse
from pathlib import Path

from packing.dataset.errors import InputError, SpecError
from training import start
from training.config import read_config, told_elsewhere


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a training config (YAML)")


def run(arguments: argparse.Namespace) -> int:
    """Train; raises SpecError for a bad config and other LongweaveErrors where the work fails."""
    try:
        config = read_config(arguments.config)
    except SpecError:
        if told_elsewhere():
            return 2
        raise
    try:
        return start.run(config, as_json=arguments.json)
    except ModuleNotFoundError as error:
        message = f"the training worker needs {error.name}: pip install 'longweave[train]'"
        raise InputError(message) from error
