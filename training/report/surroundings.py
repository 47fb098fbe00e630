"""Where a run ran: versions, device, memory; and its config as it may be shown."""

from __future__ import annotations

import json
import os
import platform
import urllib.parse
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from training.config import Config
from training.flops import device_name

PACKAGES = ("longweave", "torch", "transformers", "numpy", "pyarrow")
STATUS = Path("/proc/self/status")


def versions() -> dict[str, str]:
    """Versions of Python, CUDA and the packages whose code takes part; those that are not installed as packages are
    left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    cuda: str | None = torch.version.cuda
    return found | ({"cuda": cuda} if torch.cuda.is_available() and cuda else {})


def describe_device(device: torch.device) -> str:
    """The device's name; of a CPU its architecture, cores and torch's threads."""
    if device.type == "cuda":
        return device_name(device)
    return f"{device.type} ({platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads)"


def peak_memory(device: torch.device) -> tuple[int, str]:
    """The most bytes this process has held, and what counts them; 0 where nothing does."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "torch.cuda.max_memory_allocated"
    if not STATUS.is_file():
        return 0, "not counted on this system"
    line = next((text for text in STATUS.read_text().splitlines() if text.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024, "VmHWM"


def shown(config: Config) -> dict[str, Any]:
    """A config as plain JSON without its secrets: the data's key, and what stands before the @ of a URL."""
    whole: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    del whole["data"]["key"]
    whole["data"]["source"] = without_credentials(config.data.source)
    return whole


def without_credentials(source: str) -> str:
    """A place without the user and password that a URL may carry."""
    if "://" not in source:
        return source
    parts = urllib.parse.urlsplit(source)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
