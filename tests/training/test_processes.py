"""The worker as a process: in an environment of its own, through both commands, and after kill -9.

The clean environment holds torch, pyarrow, transformers, numpy, pyyaml and what those five require (safetensors,
tokenizers, huggingface_hub with its httpx2, …), linked one by one into a folder that is the process's only
site-packages. Left out is typer, which serves transformers' own command line alone and brings pydantic and rich. So
pydantic, fastapi, ray, sqlalchemy, obstore, orjson, rich and everything else of the service cannot be imported there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
GIVEN = ("torch", "pyarrow", "transformers", "numpy", "pyyaml")
LEFT_OUT = {"typer"}
Build = Callable[..., dict[str, Any]]


def required(names: tuple[str, ...]) -> dict[str, Any]:
    """The distributions named and all they require, extras and LEFT_OUT aside."""
    found: dict[str, Any] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or name in LEFT_OUT:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        for text in found[name].requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name.lower().replace("_", "-"))
    return found


@pytest.fixture(scope="module")
def clean_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site-packages folder with links to what the worker may use, and to nothing else."""
    folder = tmp_path_factory.mktemp("site")
    for found in required(GIVEN).values():
        tops = {file.parts[0] for file in found.files or [] if file.parts[0] not in {"..", "__pycache__"}}
        for top in tops:
            if not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
    return folder


def environment(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"} | more


def write(tmp_path: Path, value: dict[str, Any]) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


CLEAN = """
import importlib.util, runpy, sys
sys.path[:] = [p for p in sys.path if not p.endswith("site-packages")] + [{site!r}, {root!r}]
for name in ("pydantic", "fastapi", "ray", "sqlalchemy", "obstore", "orjson", "rich", "typer", "pytest", "datasets"):
    assert importlib.util.find_spec(name) is None, name
sys.argv = ["training", {config!r}, "--json"]
runpy.run_module("training", run_name="__main__")
"""


def test_five_packages_are_enough(config_of: Build, tmp_path: Path, clean_site: Path):
    path = write(tmp_path, config_of(steps=3))
    code = CLEAN.format(site=str(clean_site), root=str(ROOT), config=str(path))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["step"] for line in lines if "step" in line] == [1, 2, 3]
    assert (tmp_path / "run" / "step-00000003" / "model.safetensors").exists()


def start(path: Path, *, module: str = "training", words: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *words, str(path)],
        env=environment(PYTHONPATH=str(ROOT)),
        cwd=path.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(found["step"], found["loss"]) for found in map(json.loads, lines)]


def test_killed_in_the_middle_it_goes_on_bit_for_bit(config_of: Build, tmp_path: Path):
    """kill -9 between checkpoints, through `longweave train`; then the same command again; against a run never cut."""
    (tmp_path / "cut").mkdir()
    (tmp_path / "whole").mkdir()
    longer = {"steps": 60, "optimizer": {"lr": 1e-3, "warmup": 2}}
    cut = write(tmp_path / "cut", config_of(**longer, checkpoint={"dir": "runs/x", "every": 7}))
    whole = write(tmp_path / "whole", config_of(**longer, checkpoint={"dir": "runs/x", "every": 100}))
    first = start(cut, module="service.cli", words=("train",))
    metrics = tmp_path / "cut" / "runs" / "x" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 10:
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert 10 <= metrics.read_bytes().count(b"\n") < 60
    second, never_cut = start(cut, module="service.cli", words=("train",)), start(whole)
    for process in (second, never_cut):
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert "step 60/60  loss" in out
        assert ("going on from" in out) == (process is second)
    assert losses(metrics.parent) == losses(tmp_path / "whole" / "runs" / "x")
    assert len(losses(metrics.parent)) == 60


def test_a_config_of_errors_is_one_line_each_and_code_2(config_of: Build, tmp_path: Path):
    path = write(tmp_path, config_of(optimizer={"lr": -1}, evaluate={"every": 0}))
    processes = [start(path), start(path, module="service.cli", words=("train",))]
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 2
        assert out == ""
        assert sorted(line.split(": ")[1] for line in err.splitlines()) == ["/evaluate/every", "/optimizer/lr"]


def test_work_that_fails_is_one_line_and_code_1(config_of: Build, tmp_path: Path, dataset: Path):
    (dataset / "manifest.json").unlink()
    process = start(write(tmp_path, config_of()))
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "holds no manifest.json" in err
