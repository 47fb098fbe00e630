"""schemathesis against a running API: requests drawn from its own OpenAPI document, right and wrong ones.

`python -m tests.service.fuzz [CASES]` is the long form: a round of edges and one of operations in sequence, then rounds of draws with
new seeds until so many requests were made.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service.serving import ApiThread, listen, url_of
from tests.service.support import conversations, make_runner, open_api, settings_in, spec_for, upload

CASES = 10_000
EXAMPLES = {"coverage": 20, "stateful": 50, "fuzzing": 20}
"""Draws for each operation; of sequences, where those are drawn."""
MEDIA = Path(__file__).with_name("fuzz_media.py")
NOT_HELD = "positive_data_acceptance"
"""Not checked: a body of the right form may still be refused, for its source is not there or holds no rows."""


@dataclass
class Found:
    """Requests made, and what was wrong with answers: how often, by schemathesis' name for it."""

    cases: int = 0
    operations: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    told: str = ""


@contextmanager
def standing(folder: Path) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """An API without keys on a free port, with ids of what is there: a few of each kind, and others that may be deleted."""
    settings = settings_in(folder)
    services, api = open_api(settings)
    ids: dict[str, list[str]] = {name: [] for name in ("upload_id", "job_id", "dataset_id", "arriving_id")}
    with api:
        for number in range(4):
            ids["upload_id"].append(upload(api, conversations(4 + number))["id"])
            ids["job_id"].append(api.post("/v1/jobs", json=spec_for(ids["upload_id"][-1])).json()["id"])
            assert make_runner(services).run_once()
        for _ in range(3):
            begun = api.post("/v1/uploads", headers={"Upload-Complete": "?0"})
            ids["arriving_id"].append(begun.json()["id"])
        ids["dataset_id"] = [dataset["id"] for dataset in api.get("/v1/datasets").json()["data"]]
    services.close()
    thread = ApiThread(settings, sock := listen("127.0.0.1", 0, keys_exist=lambda: False))
    try:
        assert thread.start()
        yield url_of(sock), ids
    finally:
        thread.stop()
        thread.join()


def configuration(ids: dict[str, list[str]]) -> str:
    """schemathesis.toml: most ids in addresses are of things that are there; DELETE gets the second half of them."""
    lines = [f'hooks = "{MEDIA}"', ""]
    for name, found in ids.items():
        for half, values in (("kept", found[:2]), ("spare", found[2:])):
            lines += [f"[dictionaries.{name}_{half}]", f"values = {json.dumps(values)}", ""]
    known = "\n".join(f'"path.{name}" = {{ dictionary = "{name}_kept", probability = 0.8 }}' for name in ids)
    lines += ["[[operations]]", 'include-name = "PATCH /v1/uploads/{upload_id}"', "[operations.parameters]"]
    lines += ['"path.upload_id" = { dictionary = "arriving_id_kept", probability = 0.8 }', ""]
    # Its specs are those of POST /v1/jobs, which has all the edges; here each that is sound would be built, for hours.
    lines += ["[[operations]]", 'include-name = "POST /v1/previews"', "phases.coverage.enabled = false", ""]
    lines += ["[parameters]", known, '"path.path" = { dictionary = "files", probability = 0.8 }', ""]
    lines += [
        "[dictionaries.files]",
        'values = ["README.md", "manifest.json", "data/train-00000-of-00001.parquet"]',
        "",
    ]
    for name, address in (("upload_id", "uploads"), ("job_id", "jobs"), ("dataset_id", "datasets")):
        lines += ["[[operations]]", f'include-name = "DELETE /v1/{address}/{{{name}}}"', "[operations.parameters]"]
        lines += [f'"path.{name}" = {{ dictionary = "{name}_spare", probability = 0.8 }}', ""]
    return "\n".join(lines)


def fuzz(folder: Path, *, seed: int, examples: int, phases: str) -> Found:
    """One round in an empty folder: about `examples` requests, and as many wrong ones, to every operation."""
    with standing(folder / "data") as (url, ids):
        (folder / "schemathesis.toml").write_text(configuration(ids))
        report = folder / "report.json"
        options = ["--phases", phases, "--max-examples", str(examples), "--seed", str(seed)]
        options += [
            "--checks",
            "all",
            "--exclude-checks",
            NOT_HELD,
            "--continue-on-failure",
            "--no-color",
            "--no-shrink",
        ]
        options += ["--generation-database", "none", "--suppress-health-check", "all", "--request-timeout", "60"]
        options += ["--warnings", "off", "--report", "json", "--report-json-path", str(report)]
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml")]
        done = subprocess.run(
            [*command, "run", f"{url}/openapi.json", *options], cwd=folder, capture_output=True, text=True, check=False
        )
    assert report.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    read = json.loads(report.read_text())
    wrong = [(found["title"], found["count"]) for found in (*read["failures"], *read["errors"])]
    return Found(read["test_cases"]["generated"], read["operations"]["tested"], dict(wrong), done.stdout)


def main(cases: int) -> int:
    """Rounds until `cases` requests were made; the exit code is 1 where an answer was wrong."""
    total, seed = Found(), 0
    phases = iter(["coverage", "stateful"])
    while total.cases < cases:
        seed += 1
        phase = next(phases, "fuzzing")
        with tempfile.TemporaryDirectory(prefix="longweave-fuzz-") as folder:
            found = fuzz(Path(folder), seed=seed, examples=EXAMPLES[phase], phases=phase)
        total.cases += found.cases
        for name, count in found.failures.items():
            total.failures[name] = total.failures.get(name, 0) + count
            print(found.told)
        told = f"{found.cases} requests to {found.operations} operations, wrong: {found.failures or 'none'}"
        print(f"seed {seed}, {phase}: {told}", flush=True)
    print(f"{total.cases} requests in {seed} rounds, wrong answers: {total.failures or 'none'}")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else CASES))
