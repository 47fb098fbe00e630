"""How a run is started: threads that sleep while they wait, unless the environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from training.start import PATIENCE, wait_asleep


def test_threads_sleep_while_they_wait(monkeypatch: pytest.MonkeyPatch):
    for name in PATIENCE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # so that it is taken back afterwards
    del os.environ["OMP_WAIT_POLICY"]
    wait_asleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("name", PATIENCE)
def test_what_the_environment_says_stands(name: str, monkeypatch: pytest.MonkeyPatch):
    for other in PATIENCE:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "7")
    wait_asleep()
    assert {other: os.environ.get(other) for other in PATIENCE} == dict.fromkeys(PATIENCE) | {name: "7"}


def test_it_is_said_before_torch_is_imported():
    """Later nobody reads it."""
    code = "import sys, training.__main__, service.commands.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
