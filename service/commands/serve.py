"""`longweave serve`: API, runner and local Ray in one go."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace

from service.logs import configure_logs
from service.settings import Settings

HOST, PORT = "127.0.0.1", 8000
EVERYWHERE = frozenset({"0.0.0.0", "::", ""})  # noqa: S104
"""Hosts that name no machine: which names clients use then is for LONGWEAVE_HOSTS to say."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `longweave serve` and `longweave api`."""
    parser.add_argument(
        "--host", default=HOST, help=f"address to listen on (default {HOST}); any but loopback needs a key to exist"
    )
    parser.add_argument("--port", type=_port, default=PORT, help=f"port to listen on (default {PORT}; 0: any free one)")
    parser.add_argument("--data-dir", help="where database, uploads and datasets are kept (LONGWEAVE_DATA_DIR)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    return serve_from(arguments, with_runner=True)


def serve_from(arguments: argparse.Namespace, *, with_runner: bool) -> int:
    """Serve as the command line says."""
    settings = Settings.from_environment(os.environ, data_dir=arguments.data_dir)
    configure_logs(settings.log)
    if arguments.host not in EVERYWHERE:
        settings = replace(settings, hosts=settings.hosts | {arguments.host.lower()})
    # FastAPI is imported late, so that `--help` and bad settings are quick.
    from service.jobs.keys import keys_exist
    from service.serving import listen, serve

    def announce(url: str) -> None:
        line = json.dumps({"url": url, "data_dir": str(settings.data_dir), "pid": os.getpid()})
        print(
            line if arguments.json else f"Longweave is at {url}  (data in {settings.data_dir}; Ctrl-C stops it)",
            flush=True,
        )

    sock = listen(arguments.host, arguments.port, keys_exist=lambda: keys_exist(settings.database_url))
    return serve(settings, sock, announce=announce, with_runner=with_runner)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        message = f"{text!r} is no port: 0 to 65535"
        raise argparse.ArgumentTypeError(message)
    return int(text)
