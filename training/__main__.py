"""`python -m training CONFIG`: the bundled worker without the service; torch, pyarrow, transformers, numpy and pyyaml
are enough."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from packing.dataset.errors import LongweaveError, SpecError
from training.config import read_config, told_elsewhere
from training.start import run


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns 0, 1 where the work failed, 2 for a bad config (every offending field on a line of stderr)."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Train the bundled worker on a dataset.")
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a training config (YAML)")
    parser.add_argument("--json", action="store_true", help="print machine-readable JSON")
    arguments = parser.parse_args(argv)
    try:
        config = read_config(arguments.config)
        return run(config, as_json=arguments.json)
    except LongweaveError as error:
        if isinstance(error, SpecError) and told_elsewhere():
            return 2
        for line in _lines(error, as_json=arguments.json):
            print(line, file=sys.stderr)
        return 2 if isinstance(error, SpecError) else 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _lines(error: LongweaveError, *, as_json: bool) -> list[str]:
    problems = error.problems if isinstance(error, SpecError) else ()
    if as_json:
        body = {"code": error.code, "message": error.message, "param": error.param}
        named = {"code": error.code, "problems": [{"pointer": p.pointer, "message": p.message} for p in problems]}
        return [json.dumps({"error": named if problems else body})]
    if problems:
        return [f"error: {p.pointer or 'config'}: {p.message}" for p in problems]
    return [f"error: {' '.join(error.message.split())}"]


if __name__ == "__main__":
    raise SystemExit(main())
