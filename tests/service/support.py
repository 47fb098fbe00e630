"""What the service's tests share: settings in a directory, small sources, the API in this process, a runner driven by hand."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from service.app import create_app
from service.engine.executor import InlineExecutor
from service.jobs.runner import Parts, Runner
from service.services import Services
from service.settings import Settings

BASE = "http://127.0.0.1:8000"


def settings_in(folder: Path, **environ: str) -> Settings:
    return Settings.from_environment({f"LONGWEAVE_{name}": value for name, value in environ.items()}, data_dir=folder)


def conversations(count: int, *, turns: int = 2) -> bytes:
    """JSONL of small conversations, all different."""
    lines = []
    for number in range(count):
        messages = []
        for turn in range(turns):
            messages.append({"role": "user", "content": f"What is {number} plus {turn}? " * 3})
            messages.append({"role": "assistant", "content": f"It is {number + turn}."})
        lines.append(json.dumps({"id": f"c{number}", "messages": messages}))
    return ("\n".join(lines) + "\n").encode()


def make_runner(services: Services, *, stopping: threading.Event | None = None, **options: Any) -> Runner:
    parts = Parts(
        settings=services.settings,
        store=services.leases,
        catalog=services.catalog,
        objects=services.objects,
        executor=InlineExecutor(),
    )
    return Runner(parts, stopping=stopping or threading.Event(), **options)


def open_api(settings: Settings) -> tuple[Services, TestClient]:
    services = Services.open(settings)
    app = create_app(settings, services)
    return services, TestClient(app, base_url=BASE, raise_server_exceptions=False)


def upload(api: TestClient, data: bytes, **options: Any) -> dict[str, Any]:
    response = api.post("/v1/uploads", content=data, headers={"Content-Type": "application/jsonl"}, **options)
    assert response.status_code == 201, response.text
    return response.json()


def spec_for(upload_id: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "skipalign", "source": {"upload": upload_id}, "strategy": "outer", **fields}


def assert_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The response is a problem (RFC 9457) of this kind, and holds no traceback."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["detail"]
    assert isinstance(body["errors"], list)
    assert "Traceback" not in response.text
    return body
