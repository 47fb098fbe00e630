"""docker-compose.yml as the tests read it."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
COMPOSE = ROOT / "docker-compose.yml"


def compose():
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))


def services():
    return compose()["services"]


def named_volumes(service):
    return [volume.partition(":")[0] for volume in service.get("volumes", [])]
