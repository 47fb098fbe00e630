"""Putting probes to an OpenAI-compatible server: several at once, tried again where that may help, each answer written as it comes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

import httpx2

from packing.dataset.errors import InputError, LongweaveError

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
PAUSED_FOR = frozenset({408, 409, 425, 429})
"""Statuses that may be better in a while, as all from 500 on may."""
REFUSED = frozenset({400, 413, 422})
"""Statuses that speak of one probe: too long for the model, say. Others speak of the key, the model or the address."""
LONGEST_ANSWER = 2 * 1024 * 1024


class ServerError(LongweaveError):
    """The server cannot be used: no answer after all tries, or a refusal that all probes would meet."""

    code = "server_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where to ask and how. The key stays out of `repr`, messages and files."""

    url: str
    model: str
    api: str = "chat"
    key: str = field(default="", repr=False)
    max_tokens: int | None = None
    temperature: float = 0.0
    tries: int = 6
    timeout: float = 600.0
    answer_prefix: bool = True


@dataclass(slots=True)
class Asked:
    """How it went: answers written, and the probes that the server refused, with its reason."""

    answers: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


BEGINNING = b'{"id": "'
"""How every line that is written begins: what is torn off begins so too, or is not ours to cut."""


def answered(path: Path) -> set[str]:
    """The ids that a file of predictions has an answer for; a last line that was torn off by a crash is cut away.

    Raises InputError for a file that holds something else, and leaves that as it is.
    """
    if not path.exists():
        return set()
    found: set[str] = set()
    whole, open_line = 0, False
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            open_line = not line.endswith(b"\n")
            try:
                if line.strip():
                    found.add(_predicted(line))
            except (ValueError, KeyError, TypeError) as error:
                begun = line.startswith(BEGINNING) or BEGINNING.startswith(line)
                if open_line and begun and isinstance(error, ValueError):
                    open_line = False
                    break
                message = f"{path}, line {number} is no prediction of ours: name a new file"
                raise InputError(message, param="--out") from error
            whole += len(line)
    with path.open("rb+") as stream:
        stream.truncate(whole)
        if open_line:
            stream.seek(whole)
            stream.write(b"\n")
    return found


def _predicted(line: bytes) -> str:
    """The id of a prediction; raises ValueError for what is no JSON, KeyError or TypeError for what is none of ours."""
    value = json.loads(line)
    if not (isinstance(value["prediction"], str) and isinstance(value["id"], str)):
        raise TypeError(line)
    return value["id"]


class Asker:
    """A server's client. `pause` waits between tries, so that tests need not."""

    def __init__(
        self,
        server: Server,
        *,
        transport: httpx2.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._server = server
        self._pause = pause
        headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
        _check_address(server.url)
        self._http = httpx2.Client(
            base_url=server.url.rstrip("/"),
            headers=headers,
            timeout=httpx2.Timeout(server.timeout, connect=10.0),
            transport=transport,
            limits=httpx2.Limits(max_connections=None),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(self, rows: Iterable[Mapping[str, Any]], sink: IO[str], *, concurrency: int, limit: int | None) -> Asked:
        """Ask all rows (id, input, answer_prefix, answer_budget), `concurrency` at a time, and write answers as they come.

        Raises ServerError as soon as one request shows that the others will fail too; what has been answered stays written.
        """
        made = Asked()
        waiting = iter(rows) if limit is None else islice(rows, limit)
        with ThreadPoolExecutor(max_workers=concurrency) as pool:
            running: dict[Future[tuple[str, str]], str] = {}
            try:
                self._start(pool, running, waiting, concurrency)
                while running:
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        name = running.pop(future)
                        text, refusal = future.result()
                        _write(sink, name, text, refusal)
                        made.answers += 1
                        if refusal:
                            made.refused.append((name, refusal))
                    self._start(pool, running, waiting, concurrency)
            finally:
                for future in running:
                    future.cancel()
        return made

    def _start(
        self,
        pool: ThreadPoolExecutor,
        running: dict[Future[tuple[str, str]], str],
        waiting: Iterator[Mapping[str, Any]],
        concurrency: int,
    ) -> None:
        for row in islice(waiting, concurrency - len(running)):
            running[pool.submit(self.answer, row)] = row["id"]

    def answer(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """One probe's answer, or "" and why the server refuses it; raises ServerError."""
        prompt = row["input"] + (row["answer_prefix"] if self._server.answer_prefix else "")
        body: dict[str, Any] = {
            "model": self._server.model,
            "max_tokens": self._server.max_tokens or row["answer_budget"],
            "temperature": self._server.temperature,
        }
        chat = self._server.api == "chat"
        body |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
        response = self._patiently("/chat/completions" if chat else "/completions", body)
        if response.status_code in REFUSED:
            return "", _reason(response)
        if response.status_code >= 400:
            raise ServerError(f"the server says {response.status_code}: {_reason(response)}", param="--url")
        return _text_of(response, chat=chat), ""

    def _patiently(self, path: str, body: Mapping[str, Any]) -> httpx2.Response:
        """Send a request until it is answered, with pauses that double; raises ServerError after the last try."""
        pause, why = FIRST_PAUSE, ""
        for number in range(self._server.tries):
            if number:
                self._pause(min(pause, LONGEST_PAUSE))
                pause *= 2
            try:
                response = self._http.post(path, json=body)
            except httpx2.HTTPError as error:
                why = f"{type(error).__name__}: {error}"
                continue
            if response.status_code < 500 and response.status_code not in PAUSED_FOR:
                return response
            why = f"{response.status_code}: {_reason(response)}"
            asked_for = response.headers.get("retry-after", "")
            if asked_for.isdecimal():
                pause = max(pause, float(asked_for))
        raise ServerError(f"no answer from {self._server.url} in {self._server.tries} tries ({why})", param="--url")


def _check_address(url: str) -> None:
    """Raise ServerError for what is no http or https URL with a host."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        message = f"{url!r} is no URL of a server; one looks like http://127.0.0.1:8001/v1"
        raise ServerError(message, param="--url")


def _write(sink: IO[str], name: str, text: str, refusal: str) -> None:
    record = {"id": name, "prediction": text, **({"error": refusal} if refusal else {})}
    sink.write(json.dumps(record, ensure_ascii=False) + "\n")
    sink.flush()


def _text_of(response: httpx2.Response, *, chat: bool) -> str:
    """The answer's text; raises ServerError where the server says something else than the API has."""
    try:
        choice = response.json()["choices"][0]
        text = choice["message"].get("content") if chat else choice["text"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ServerError(
            "the server's answer is not the API's: it has no choices with a text", param="--url"
        ) from error
    return text[:LONGEST_ANSWER] if isinstance(text, str) else ""


def _reason(response: httpx2.Response) -> str:
    """What the server says is wrong, on one line."""
    try:
        value: Any = response.json()
        error = value.get("error", value.get("detail", value.get("message", "")))
        text = error.get("message", "") if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(text.split())[:300]
