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
from pathlib import Path

import demo_conversations

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


def skipalign(url: str) -> Path:
    """One dataset of the kind skipalign: upload, job, download, verify, preview."""
    source = FOLDER / "conversations.jsonl"
    count = demo_conversations.write(source)
    say(f"{count} conversations from the docstrings of this Python's standard library: {source}")
    upload = json.loads(run("upload", str(source), "--url", url, "--json"))
    spec = {
        "kind": "skipalign",
        "name": "standard library, SkipAlign",
        "source": {"upload": upload["id"]},
        "strategy": "outer",
        "max_position": 131072,
        "max_length": 2048,
        "license": "PSF-2.0",
    }
    path = FOLDER / "skipalign.json"
    path.write_text(json.dumps(spec, indent=1))
    dataset = FOLDER / "skipalign"
    run("submit", str(path), "--out", str(dataset), "--url", url)
    run("verify", str(dataset))
    say("the first row, as a reader sees it")
    path.write_text(json.dumps({**spec, "source": {"path": str(source)}}, indent=1))
    print("\n".join(run_quietly("preview", str(path), "-n", "1").splitlines()[:12]) + "\n  …")
    return dataset


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
        dataset = skipalign(url)
        run_folder = train(dataset)
        say("where everything is")
        print(f"  service   {url}   (API: {url}/docs, log: {FOLDER / 'service.log'})")
        print(f"  dataset   {dataset}/   manifest.json, data/*.parquet, README.md")
        print(f"  training  {run_folder}/   metrics.jsonl and a checkpoint")
        if not options.once:
            print(f"\nThe service stays open at {url} until Ctrl-C.", flush=True)
            service.wait()
    except KeyboardInterrupt:
        print("\nstopping")
    finally:
        stop(service)


if __name__ == "__main__":
    main()
