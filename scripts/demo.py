"""`make demo`: the whole line once, on real text, through the service's own command line.

Starts the service, uploads a source, builds a dataset of every kind there is, downloads and verifies it, previews a row, trains the
bundled worker a few steps on it, and leaves the service's URL open until Ctrl-C (`--once`: ends by itself).
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import demo_texts

FOLDER = Path("demo")
LONGWEAVE = [sys.executable, "-m", "service.cli"]
START_SECONDS = 60
PORT = 8000


def say(text: str) -> None:
    """A line between the commands' own output."""
    print(f"\n== {text}", flush=True)


def run(*words: str) -> str:
    """Run one command of the command line as a user would, showing it; ends the demo where it fails."""
    print("$ longweave " + " ".join(words), flush=True)
    done = subprocess.run([*LONGWEAVE, *words], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise SystemExit(f"the demo stops: `longweave {words[0]}` exited with {done.returncode}")
    return done.stdout


def free_port() -> int:
    """The usual port, or any other where that one is taken."""
    for port in (PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise SystemExit("no port can be had on 127.0.0.1")


def start_service() -> tuple[subprocess.Popen[bytes], str]:
    """Start `longweave serve` with the demo's own data directory and wait until it is ready."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    words = ["serve", "--port", str(port), "--data-dir", str(FOLDER / "service")]
    print("$ longweave " + " ".join(words), flush=True)
    with (FOLDER / "service.log").open("ab") as log:
        process = subprocess.Popen([*LONGWEAVE, *words], stdout=log, stderr=log)  # noqa: S603
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):  # noqa: S310
                return process, url
        except OSError:
            time.sleep(0.2)
    stop(process)
    raise SystemExit(f"the service did not come up; its log is {FOLDER / 'service.log'}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the service as Ctrl-C would."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)


def upload(url: str, name: str, records: Iterator[dict[str, Any]]) -> str:
    """Write records to a file and send it; returns the upload's id."""
    source = FOLDER / name
    count = demo_texts.write(source, records)
    print(f"{count} rows from the docstrings of this Python's standard library: {source}", flush=True)
    return json.loads(run("upload", str(source), "--url", url, "--json"))["id"]


def dataset(url: str, spec: dict[str, Any]) -> Path:
    """One dataset through REST: job, download, verification."""
    kind = str(spec["kind"])
    say(f"a dataset of kind {kind}")
    path = FOLDER / f"{kind}.json"
    path.write_text(json.dumps({"name": f"standard library, {kind}", "license": "PSF-2.0", **spec}, indent=1))
    folder = FOLDER / kind
    run("submit", str(path), "--out", str(folder), "--url", url)
    run("verify", str(folder), *(["--answers"] if kind == "synl" else []))
    return folder


def specs(talk: str, corpus: str) -> list[dict[str, Any]]:
    """One spec of every kind, from two uploads."""
    skipalign = {"kind": "skipalign", "source": {"upload": talk}, "max_position": 131072, "max_length": 2048}
    cip = {"kind": "cip", "source": {"upload": corpus}, "sequence_length": 8192}
    parts = [
        {"name": "sft", "source": {"upload": talk}, "weight": 0.2},
        {"name": "skipping", "spec": skipalign, "weight": 0.3},
        {"name": "tables", "spec": {"kind": "synl", "samples": 32, "length": [2000]}, "weight": 0.1},
        {"name": "long", "spec": cip | {"sequence_length": 2048}, "weight": 0.4},
    ]
    return [
        skipalign,
        cip,
        {"kind": "synl", "name": "long tables", "license": None, "samples": 64, "length": {"min": 2000, "max": 8000}},
        {"kind": "needle", "license": None, "lengths": [4096], "depths": 3, "repeats": 1},
        {"kind": "mixture", "parts": parts, "total": 200_000, "max_length": 2048, "truncate": "right"},
    ]


def show_first(spec: dict[str, Any], source: Path) -> None:
    """The first row of a dataset, as a reader sees it."""
    say(f"the first row of kind {spec['kind']}, as a reader sees it")
    path = FOLDER / "preview.json"
    path.write_text(json.dumps({**spec, "source": {"path": str(source)}}, indent=1))
    print("\n".join(run_quietly("preview", str(path), "-n", "1").splitlines()[:12]) + "\n  …")


def run_quietly(*words: str) -> str:
    """Run a command and return what it prints."""
    return subprocess.run([*LONGWEAVE, *words], stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603


def train(dataset: Path) -> Path:
    """A few steps of the bundled worker on the dataset."""
    run_folder = FOLDER / "run"
    config = FOLDER / "train.yaml"
    config.write_text(
        "model: {preset: tiny}\n"
        f"data: {{source: {dataset}}}\n"
        "batch: {tokens_per_step: 4096, row_tokens: 2048}\n"
        "optimizer: {lr: 3.0e-3, warmup: 2}\n"
        "steps: 12\n"
        f"checkpoint: {{dir: {run_folder}, every: 6, keep: 1}}\n"
    )
    say("the bundled worker trains on it")
    run("train", str(config))
    return run_folder


def main() -> None:
    """The demo from end to end."""
    parser = argparse.ArgumentParser(description="the whole line once")
    parser.add_argument("--once", action="store_true", help="end by itself instead of leaving the service open")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    service, url = start_service()
    try:
        say("real text")
        talk = upload(url, "conversations.jsonl", demo_texts.conversations())
        corpus = upload(url, "documents.jsonl", demo_texts.documents())
        wanted = specs(talk, corpus)
        folders = [dataset(url, spec) for spec in wanted]
        show_first(wanted[0], FOLDER / "conversations.jsonl")
        show_first(wanted[1], FOLDER / "documents.jsonl")
        run_folder = train(folders[-1])
        say("where everything is")
        print(f"  service   {url}   (API: {url}/docs, log: {FOLDER / 'service.log'})")
        for folder in folders:
            print(f"  dataset   {folder}/   manifest.json, data/*.parquet, README.md, charts/")
        print(f"  training  {run_folder}/   report.md, metrics.jsonl and checkpoints")
        if not options.once:
            print(f"\nThe service stays open at {url} until Ctrl-C.", flush=True)
            service.wait()
    except KeyboardInterrupt:
        print("\nstopping")
    finally:
        stop(service)


if __name__ == "__main__":
    main()
