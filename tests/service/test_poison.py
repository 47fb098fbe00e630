"""Tasks that kill what runs them: marks count over runners and Ray, the guilty one is named with its rows, its neighbours live."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pyarrow as pa
import pytest
from sqlalchemy import update

from packing.plan import Piece, Shard
from service.engine import poison
from service.engine.dispatch import results
from service.engine.executor import InlineExecutor, RayExecutor, WorkerLostError
from service.engine.line import build_dataset
from service.engine.poison import ShardPoisonedError
from service.engine.shard_task import TaskError, receipt_path
from service.jobs.database import jobs, now
from service.jobs.job import State
from service.jobs.runner import EngineBrokenError
from service.jobs.watch import StopAskedError
from service.storage.objects import Objects
from tests.service.support import make_runner
from tests.service.test_runner import queue


@pytest.fixture
def objects(tmp_path):
    return Objects.local(tmp_path)


def begin(objects, number, times=1, work="w"):
    for _ in range(times):
        poison.begin(objects, work, receipt_path(work, number), what=f"shard {number}", param=f"p{number}")


def test_a_task_begun_three_times_without_an_end_is_named(objects):
    begin(objects, 1, 2)
    begin(objects, 2, 2)
    assert poison.poisoned(objects, "w") is None
    begin(objects, 2)
    error = poison.poisoned(objects, "w")
    assert (error.code, error.param) == ("shard_poisoned", "p2")
    assert "shard 2 killed what ran it 3 times" in error.message


def test_a_receipt_or_an_orderly_stop_ends_the_suspicion(objects):
    begin(objects, 1, 3)
    begin(objects, 2, 3, work="w/parts/0/work")
    assert set(poison.unfinished(objects, "w")) == {receipt_path("w", 1), receipt_path("w/parts/0/work", 2)}
    objects.write(receipt_path("w", 1), b"{}")
    assert set(poison.unfinished(objects, "w")) == {receipt_path("w/parts/0/work", 2)}
    poison.forget(objects, poison.unfinished(objects, "w"))
    assert poison.poisoned(objects, "w") is None
    assert set(objects.list("w")) == {receipt_path("w", 1), poison.mark_path("w", receipt_path("w", 1))}


def test_what_the_next_attempt_has_begun_stays_marked(objects):
    begin(objects, 1)
    begin(objects, 2)
    ours = poison.unfinished(objects, "w")
    begin(objects, 2)
    poison.forget(objects, ours)
    assert {path: mark.tries for path, mark in poison.unfinished(objects, "w").items()} == {receipt_path("w", 2): 2}


def shard(work, table=None):
    return Shard(index=3, split="train", number=3, of=9, work=work, table=table)


@pytest.mark.parametrize(
    ("kind", "made", "said"),
    [
        ("synl", shard({"first": 20, "rows": 5}), "rows 21 to 25 of the dataset"),
        ("skipalign", shard({"first": 20, "rows": 5}), "rows 21 to 25 of the source"),
        ("skipalign", shard({"rows": [4, 9, 2]}), "3 rows of the source between 3 and 10"),
        (
            "cip",
            shard({"rows": 5}, pa.table({"id": ["a", "b", "b"]})),
            "5 rows of the dataset, made of the documents a, b",
        ),
        ("cip", shard({"rows": 5}, pa.table({"id": list("abcde")})), "made of the documents a, b, c and 2 more"),
        ("cip", shard({"rows": 5}, pa.table({"row": [1]})), "5 rows of the dataset"),
    ],
)
def test_a_shard_is_told_by_the_rows_it_covers(kind, made, said):
    sentence = poison.what_shard(kind, made)
    assert sentence.startswith("shard 3 (data/train-00003-of-00009.parquet: ")
    assert sentence.endswith(f"{said})")


def test_a_survey_is_told_by_its_piece_and_rows():
    fields = dict.fromkeys(Piece.__dataclass_fields__)
    piece = Piece(**{**fields, "name": "a.jsonl", "first_row": 101, "rows": 50})
    assert poison.what_survey(piece, 2) == "the survey of piece 2 (a.jsonl, rows 101 to 150)"


class Rounds:
    """An executor that notes what it was given together."""

    def __init__(self):
        self.given = []

    def run(self, payloads, check):
        self.given.append(list(payloads))
        for payload in payloads:
            yield json.dumps({"done": payload.decode()}).encode()


def test_what_was_in_flight_runs_first_and_alone(objects):
    tasks = {receipt_path("w", number): f"{number}".encode() for number in range(6)}
    begin(objects, 4)
    begin(objects, 2)
    rounds = Rounds()
    assert len(list(results(objects, "w", rounds, tasks, lambda: None))) == 6
    assert rounds.given == [[b"2"], [b"4"], [b"0", b"1", b"3", b"5"]]


def test_a_lost_worker_without_a_mark_stays_a_lost_worker(objects):
    class Loses:
        def run(self, payloads, check):
            raise WorkerLostError(payloads[0])
            yield

    with pytest.raises(WorkerLostError):
        list(results(objects, "w", Loses(), {receipt_path("w", 0): b"0"}, lambda: None))
    begin(objects, 0, poison.TRIES - 1)
    with pytest.raises(WorkerLostError):
        list(results(objects, "w", Loses(), {receipt_path("w", 0): b"0"}, lambda: None))
    begin(objects, 0)
    with pytest.raises(ShardPoisonedError, match="shard 0"):
        list(results(objects, "w", Loses(), {receipt_path("w", 0): b"0"}, lambda: None))


class Gone(BaseException):
    """The runner's process is no more."""


def dies_at(index):
    """A build whose process dies in the middle of one shard, with nothing said to anybody."""

    class Dies:
        def run(self, payloads, check):
            for payload in payloads:
                found = json.loads(payload).get("shard")
                if found is not None and found["index"] == index:
                    task = json.loads(payload)
                    path = receipt_path(task["work"], index)
                    made = Shard(**found)
                    poison.begin(
                        Objects.open(task["store"]),
                        task["work"],
                        path,
                        what=poison.what_shard("skipalign", made),
                        param=made.path,
                    )
                    raise Gone
                yield from InlineExecutor().run([payload], check)

    return lambda **given: build_dataset(**{**given, "executor": Dies()})


def lapse(services):
    with services.engine.begin() as connection:
        connection.execute(update(jobs).values(lease_expires_at=now() - 1))


def test_a_shard_that_kills_three_runners_ends_the_job_with_its_name(services):
    job = queue(services)
    for _ in range(3):
        with pytest.raises(Gone):
            make_runner(services, build=dies_at(2)).run_once()
        lapse(services)
    make_runner(services).tend()
    failed = services.jobs.get(job.id)
    assert (failed.state, failed.attempt, failed.error["code"]) == (State.FAILED, 3, "shard_poisoned")
    assert "shard 2 (data/train-00002-of-00004.parquet: " in failed.error["message"]
    assert "rows 11 to 15 of the source" in failed.error["message"]
    assert failed.error["param"] == "data/train-00002-of-00004.parquet"
    assert services.objects.list(f"work/{job.id}") == []


def test_runners_that_die_elsewhere_are_only_lost(services):
    job = queue(services)
    for index in (1, 2, 3):
        with pytest.raises(Gone):
            make_runner(services, build=dies_at(index)).run_once()
        lapse(services)
    make_runner(services).tend()
    assert services.jobs.get(job.id).error["code"] == "runner_lost"


def ray_error():
    kind = type("RaySystemError", (Exception,), {"__module__": "ray.exceptions"})
    return kind("the raylet is gone")


@pytest.mark.parametrize(
    ("raised", "ended", "code"), [(ray_error, EngineBrokenError, "shard_poisoned"), (OSError, None, "internal_error")]
)
def test_marks_outlive_ray_and_not_an_orderly_error(services, monkeypatch, raised, ended, code):
    def build(*, objects, work, **_):
        begin(objects, 7, work=f"{work}/0123")
        raise raised()

    job = queue(services)
    for _ in range(3):
        with pytest.raises(ended) if ended else nullcontext():
            make_runner(services, build=build).run_once()
        with services.engine.begin() as connection:
            connection.execute(update(jobs).values(not_before=0))
    failed = services.jobs.get(job.id)
    assert (failed.state, failed.attempt, failed.error["code"]) == (State.FAILED, 3, code)


def test_workers_that_die_outside_a_task_are_tried_again_and_clear_nobody(services):
    seen = []

    def build(*, objects, work, **_):
        seen.append([mark.tries for mark in poison.unfinished(objects, work).values()])
        begin(objects, 7, work=f"{work}/0123")
        raise WorkerLostError(b"7")

    job = queue(services)
    states = []
    for _ in range(3):
        make_runner(services, build=build).run_once()
        with services.engine.begin() as connection:
            connection.execute(update(jobs).values(not_before=0))
        states.append(services.jobs.get(job.id).state)
    assert states == [State.QUEUED, State.QUEUED, State.FAILED]
    assert seen == [[], [1], [2]]
    assert services.jobs.get(job.id).error["code"] == "shard_poisoned"  # it was begun in vain as often as it may be


@pytest.mark.parametrize("way", ["stop", "error"])
def test_a_runner_whose_job_is_somebody_elses_touches_no_mark(services, way):
    stopping = threading.Event()

    def build(*, objects, work, **_):
        begin(objects, 7, work=f"{work}/0123")
        lapse(services)
        assert services.leases.claim("another") is not None
        stopping.set()
        raise StopAskedError if way == "stop" else OSError

    job = queue(services)
    make_runner(services, build=build, stopping=stopping).run_once()
    assert services.jobs.get(job.id).attempt == 2
    assert len(poison.unfinished(services.objects, f"work/{job.id}")) == 1


@pytest.mark.parametrize("way", ["stop", "error"])
def test_a_job_handed_back_in_good_order_has_no_marks(services, way):
    def build(*, objects, work, **_):
        begin(objects, 7, work=f"{work}/0123")
        raise StopAskedError if way == "stop" else OSError

    job = queue(services)
    make_runner(services, build=build).run_once()
    assert services.jobs.get(job.id).state is State.QUEUED
    assert poison.unfinished(services.objects, f"work/{job.id}") == {}


class Innocent:
    """Ray as it looks to us: the worker of `guilty` dies each time, and what flies beside it dies with it."""

    def __init__(self, guilty):
        self.guilty, self.beside = guilty, []

    def install(self, executor, monkeypatch):
        from service.engine import executor as module

        flying = {}

        def remote(payload):
            reference = object()
            flying[reference] = payload
            return reference

        def wait(references, num_returns, timeout):
            return references, []

        def result_of(reference):
            payload = flying[reference]
            alone = len(flying) == 1
            doomed = payload == self.guilty or self.guilty in flying.values()
            self.beside.append((payload, alone))
            self.settle(flying, reference)
            return None if doomed else payload

        import ray

        monkeypatch.setattr(ray, "wait", wait)
        monkeypatch.setattr(ray, "cancel", lambda *_, **__: None)
        monkeypatch.setattr(module, "_result_of", result_of)
        executor._task = SimpleNamespace(remote=remote)

    def settle(self, flying, reference):
        # a round is forgotten when its last result has been asked for, as all of it died together
        self.asked = getattr(self, "asked", set()) | {reference}
        if self.asked >= set(flying):
            flying.clear()
            self.asked = set()


def test_neighbours_of_a_deadly_task_live(monkeypatch):
    executor = RayExecutor(workers=2)
    guilty = b"2"
    ray_like = Innocent(guilty)
    ray_like.install(executor, monkeypatch)
    done: list[bytes] = []
    with pytest.raises(WorkerLostError) as caught:
        done.extend(executor.run([b"0", b"1", b"2", b"3"], lambda: None))
    assert caught.value.payload == guilty
    assert b"2" not in done
    assert all(alone for payload, alone in ray_like.beside[-1:]), "the last try of a suspect has nothing beside it"


def test_an_error_of_a_task_is_no_poison(objects):
    class Says:
        def run(self, payloads, check):
            yield json.dumps({"error": {"code": "bad_row", "message": "m", "param": None}}).encode()

    with pytest.raises(TaskError, match="m"):
        list(results(objects, "w", Says(), {receipt_path("w", 0): b"0"}, lambda: None))
