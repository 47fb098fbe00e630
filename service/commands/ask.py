"""`longweave ask DATASET --url …/v1 --model M --out P.jsonl`: puts the probes to an OpenAI-compatible server and scores the answers."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from packing.dataset.errors import InputError
from service.asking import Asker, Server, answered
from service.commands.score import score_file, show
from service.datasets import dataset_rows, open_dataset

COLUMNS = ("id", "input", "answer_prefix", "answer_budget")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("dataset", type=Path, help="the dataset's directory")
    parser.add_argument("--url", required=True, help="the server, up to /v1")
    parser.add_argument("--model", required=True, help="the model's name there")
    parser.add_argument(
        "--out", type=Path, required=True, help="predictions; a file that is there already is gone on with"
    )
    parser.add_argument(
        "--api", choices=["chat", "completions"], default="chat", help="which of the two (default chat)"
    )
    parser.add_argument("--concurrency", type=_positive, default=8, help="requests in flight (default 8)")
    parser.add_argument("--max-tokens", type=_positive, help="tokens of an answer (default: the probe's answer budget)")
    parser.add_argument("--temperature", type=float, default=0.0, help="(default 0)")
    parser.add_argument("--tries", type=_positive, default=6, help="times a request is sent (default 6)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one answer (default 600)")
    parser.add_argument("--limit", type=_positive, help="ask only so many probes that have no answer yet")
    parser.add_argument("--no-answer-prefix", action="store_true", help="leave out how the answer begins")
    parser.add_argument("--key-env", default="OPENAI_API_KEY", help="the variable that holds the key (OPENAI_API_KEY)")
    parser.add_argument("--plot", type=Path, help="draw the heat map here")
    parser.add_argument("--without-thinking", action="store_true", help="score what stands behind </think> only")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        message = f"{text!r} is no count: 1 or more"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Ask what has no answer yet, then score all answers."""
    manifest = open_dataset(options.dataset, kinds=["needle"])
    server = Server(
        url=options.url,
        model=options.model,
        api=options.api,
        key=os.environ.get(options.key_env, ""),
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        tries=options.tries,
        timeout=options.timeout,
        answer_prefix=not options.no_answer_prefix,
    )
    known = answered(options.out)
    waiting = (r for r in dataset_rows(options.dataset, manifest, COLUMNS) if r["id"] not in known)
    with Asker(server) as asker, options.out.open("a", encoding="utf-8") as sink:
        asked = asker.ask(waiting, sink, concurrency=options.concurrency, limit=options.limit)
    total = sum(file.rows for file in manifest.files)
    print(f"{asked.answers:,} answers, {len(known):,} were there, {total:,} probes in all", file=sys.stderr)
    if asked.refused:
        first = "; ".join(f"{name}: {why}" for name, why in asked.refused[:3])
        print(f"{len(asked.refused):,} probes were refused and count as empty ({first})", file=sys.stderr)
    if not known and not asked.answers:
        message = "no probe was answered"
        raise InputError(message, param="--url")
    report = score_file(options.dataset, options.out, without_thinking=options.without_thinking)
    show(report, as_json=options.json, plot=options.plot)
    return 0
