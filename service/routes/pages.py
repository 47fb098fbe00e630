"""Two small pages for people: what this is, and every operation of the API. They load nothing from anywhere."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "code{background:#f2f2f2;padding:.1em .3em;border-radius:3px}td{padding:.2rem .8rem .2rem 0;vertical-align:top}"
    "h2{font-size:1.1rem;margin-top:2rem}.m{font-weight:600;font-family:monospace}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}code{background:#2a2a2a}a{color:#8bf}}"
)


@router.get("/")
def index(request: Request) -> HTMLResponse:
    """What this is and where to go."""
    base = escape(str(request.base_url).rstrip("/"))
    return _page(
        "Longweave",
        "<p>This service builds the data that teaches language models to use long context.</p>"
        '<ul><li><a href="/docs">The API</a>, <a href="/openapi.json">as OpenAPI</a></li>'
        '<li><a href="/v1/jobs">Jobs</a>, <a href="/v1/datasets">datasets</a></li>'
        '<li><a href="/readyz">Readiness</a>, <a href="/metrics">metrics</a></li></ul>'
        f"<p>A first job: <code>longweave submit SPEC.yaml --wait --out DIR --url {base}</code></p>",
    )


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """Every operation, from the OpenAPI document."""
    document: dict[str, Any] = request.app.openapi()
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            group = (operation.get("tags") or ["other"])[0]
            groups.setdefault(group, []).append(_operation(method, path, operation))
    tables = "".join(f"<h2>{escape(name)}</h2><table>{''.join(rows)}</table>" for name, rows in groups.items())
    lead = (
        '<p>The whole of it, with every model: <a href="/openapi.json">/openapi.json</a>. '
        "Every error is a problem (RFC 9457) with <code>code</code> and <code>errors: [{pointer, message}]</code>.</p>"
    )
    return _page("Longweave: the API", lead + tables)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    names = [str(p["name"]) for p in operation.get("parameters", []) if p["in"] != "path"]
    extra = f"<br><small>takes {escape(', '.join(names))}</small>" if names else ""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(str(operation.get("description", "")).strip()))
    return f'<tr><td class="m">{method.upper()}</td><td><code>{escape(path)}</code></td><td>{text}{extra}</td></tr>'


def _page(title: str, body: str) -> HTMLResponse:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    html = f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>'
    return HTMLResponse(f"{html}{body}</body></html>", headers=POLICY)
