"""The command line: one table of commands, each a module that is imported only when it is asked for.

Exit codes: 0 done, 1 the work failed (one clear line on stderr), 2 bad usage or a bad spec (every offending field named).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Protocol

from packing.dataset.errors import LongweaveError, SpecError
from service.secret_files import take_secrets

COMMANDS = {
    "serve": ("service.commands.serve", "API, runner and local Ray in one go"),
    "api": ("service.commands.api", "the API alone"),
    "runner": ("service.commands.runner", "the runner alone"),
    "worker": ("service.commands.worker", "a node that builds for a runner on another machine"),
    "build": ("service.commands.build", "build a dataset without a server"),
    "preview": ("service.commands.preview", "the first rows of a spec, readable, at once"),
    "submit": ("service.commands.submit", "send a spec to a service"),
    "jobs": ("service.commands.jobs", "list the jobs of a service"),
    "watch": ("service.commands.watch", "follow a job until it ends"),
    "cancel": ("service.commands.cancel", "cancel a job"),
    "upload": ("service.commands.upload", "upload a source file"),
    "download": ("service.commands.download", "download a dataset"),
    "keys": ("service.commands.keys", "create, list and revoke API keys"),
    "collect": ("service.commands.collect", "find or remove what killed jobs and uploads left behind"),
    "tokenizers": ("service.commands.tokenizers", "add, list and remove tokenizers"),
    "verify": ("service.commands.verify", "check a dataset: manifest, checksums, invariants of every row"),
    "export": ("service.commands.export", "write needle probes or conversations in the peers' formats"),
    "ask": ("service.commands.ask", "put needle probes to an OpenAI-compatible server and score its answers"),
    "score": ("service.commands.score", "score predictions for needle probes: recall by task, length and depth"),
    "train": ("service.commands.train", "train the bundled worker on a dataset"),
}


class MachineError(LongweaveError):
    """What the machine refuses (a file that may not be read, a full disk) and no command has a sentence of its own for."""

    code = "machine"


class Command(Protocol):
    """What a module of service.commands offers."""

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, arguments: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _overview()
    if not words or words[0] not in COMMANDS:
        parser.parse_args(words)
        parser.print_help()
        return 0 if not words else 2
    module: Command = importlib.import_module(COMMANDS[words[0]][0])  # type: ignore[assignment]
    command = argparse.ArgumentParser(prog=f"longweave {words[0]}", description=COMMANDS[words[0]][1])
    command.add_argument("--json", action="store_true", help="print machine-readable JSON")
    module.arguments(command)
    arguments = command.parse_args(words[1:])
    try:
        take_secrets(os.environ)
        return module.run(arguments)
    except LongweaveError as error:
        return report(error, as_json=arguments.json)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader of our output has gone (`longweave jobs | head`): nothing is left to tell anybody.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        return report(MachineError(_of_machine(error)), as_json=arguments.json)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _of_machine(error: OSError) -> str:
    """What the machine refuses, in a sentence: which file, and why."""
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error or type(error).__name__}"


def report(error: LongweaveError, *, as_json: bool) -> int:
    """Say what went wrong on stderr; the exit code is 2 for a bad spec and 1 for everything else."""
    if isinstance(error, SpecError):
        if as_json:
            problems = [{"pointer": p.pointer, "message": p.message} for p in error.problems]
            print(json.dumps({"error": {"code": error.code, "problems": problems}}), file=sys.stderr)
        else:
            for problem in error.problems:
                print(f"error: {problem.pointer or 'spec'}: {problem.message}", file=sys.stderr)
        return 2
    if as_json:
        body = {"error": {"code": error.code, "message": error.message, "param": error.param}}
        print(json.dumps(body), file=sys.stderr)
    else:
        print(f"error: {' '.join(error.message.split())}", file=sys.stderr)
    return 1


def _overview() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:<10} {purpose}" for name, (_, purpose) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="longweave",
        description="Data that teaches language models to use long context.",
        epilog=f"commands:\n{lines}\n\n`longweave COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", nargs="?")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
