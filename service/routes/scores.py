"""Scores: predictions in, recall out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from service.datasets import KEY_COLUMNS, key_of
from service.jobs.catalog import DatasetEntry
from service.problems import MalformedError
from service.routes.body import chunks
from service.routes.datasets import find
from service.services import Services, Wired
from synth.needles.heatmap import heat_map
from synth.needles.scoring import LONGEST_LINE, Prediction, PredictionError, Report, evaluate, read_predictions

router = APIRouter(prefix="/v1", tags=["scores"])

LARGEST_BODY = 64 * 1024 * 1024
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/jsonl": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/datasets/{dataset_id}/scores", response_model=dict[str, Any], openapi_extra=BODY)
async def create_scores(
    dataset_id: str,
    request: Request,
    services: Wired,
    without_thinking: Annotated[bool, Query()] = False,  # noqa: FBT002 (a query parameter)
) -> Response:
    """Score predictions for a dataset of needle probes: JSON lines `{id, prediction}`, or RULER's prediction files.

    Answers with recall by task, length and depth (95% intervals), errors by class, ids that are missing or stand there
    twice, and the heat map as Vega-Lite. Nothing is kept.
    """
    entry = find(services, dataset_id)
    if entry.kind != "needle":
        message = f"dataset {entry.id} is of kind {entry.kind}: only needle probes have scores"
        raise MalformedError(message, param="/id")
    body = b"".join([part async for part in _bounded(request)])
    report = await run_in_threadpool(_report, services, entry, body, without_thinking=without_thinking)
    value = report.to_json()
    return JSONResponse({**value, "heat_map": heat_map(value["cells"])})


async def _bounded(request: Request) -> AsyncIterator[bytes]:
    """The body, refused as soon as a line of it is too long."""
    line, length = 1, 0
    async for part in chunks(request, LARGEST_BODY):
        first, *rest = part.split(b"\n")
        for number, piece in enumerate([first, *rest]):
            line, length = (line, length + len(piece)) if number == 0 else (line + 1, len(piece))
            if length > LONGEST_LINE:
                raise _problem(
                    PredictionError(line, f"it has more than {LONGEST_LINE:,} bytes, the most that are read")
                )
        yield part


def _report(services: Services, entry: DatasetEntry, body: bytes, *, without_thinking: bool) -> Report:
    try:
        predictions = read_predictions(body.split(b"\n"))
        if not predictions:
            raise PredictionError(0, "there is no prediction in the body")
        keys = [key_of(row) for row in services.library.columns(entry, KEY_COLUMNS)]
        by_input = _ids_by_input(services, entry, predictions)
        return evaluate(keys, predictions, by_input=by_input, without_thinking=without_thinking)
    except PredictionError as error:
        raise _problem(error) from error


def _ids_by_input(services: Services, entry: DatasetEntry, predictions: list[Prediction]) -> dict[str, str]:
    """The ids of inputs, where a prediction is known by its input only."""
    wanted = {prediction.input for prediction in predictions if not prediction.id}
    if not wanted:
        return {}
    return {r["input"]: r["id"] for r in services.library.columns(entry, ("id", "input")) if r["input"] in wanted}


def _problem(error: PredictionError) -> MalformedError:
    return MalformedError(str(error), param=f"/{error.line}" if error.line else "")
