"""The job store on SQLite and PostgreSQL: claims, leases and their fences, cancels, idempotency, paging."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text, update

from service.jobs.catalog import Catalog, DatasetEntry
from service.jobs.database import jobs, now, open_database
from service.jobs.job import Event, Lease, Progress, State, sources
from service.jobs.leases import LeaseLostError, LeaseStore
from service.jobs.shard_times import BOUNDS, Built
from service.jobs.store import JobStore, Request
from service.problems import ConflictError, IdempotencyError, NotFoundError, QueueFullError, UnavailableError


@pytest.fixture
def engine(url):
    opened = open_database(url)
    yield opened
    opened.dispose()


@pytest.fixture
def store(engine):
    return JobStore(engine, queue_limit=1000)


@pytest.fixture
def leases(engine):
    return LeaseStore(engine, lease_seconds=20, attempts=3)


def request(**fields):
    return Request(**{"kind": "skipalign", "name": "n", "spec": {"kind": "skipalign"}, "metadata": {}, **fields})


def submit(store, **fields):
    return store.submit(request(**fields))[0]


def let_lease_run_out(engine, job_id):
    with engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(lease_expires_at=now() - 0.01))


def dataset_of(job):
    return DatasetEntry(
        id=job.target,
        job_id=job.id,
        kind=job.kind,
        name=job.name,
        fingerprint="f",
        manifest_sha256="0" * 64,
        files=1,
        rows=2,
        tokens=3,
        bytes=4,
    )


def test_a_job_comes_back_as_it_was_put_in(store):
    job = submit(store, name="ünïcode 长", spec={"kind": "skipalign", "x": [1, {"y": None}]}, metadata={"a": "b"})
    assert store.get(job.id) == job
    assert (job.state, job.attempt, job.name, job.metadata) == (State.QUEUED, 0, "ünïcode 长", {"a": "b"})
    assert job.spec == {"kind": "skipalign", "x": [1, {"y": None}]}
    assert re.fullmatch(r"job_[0-9a-f]{29}", job.id)
    assert re.fullmatch(r"ds_[0-9a-f]{29}", job.target)


def test_twenty_claimers_never_share_a_job(url):
    count = 20
    seed = open_database(url)
    names = {submit(JobStore(seed, queue_limit=1000)).id for _ in range(count)}
    seed.dispose()
    gate = threading.Barrier(count)

    def claim(number):
        engine = open_database(url)  # as separate as processes are
        gate.wait()
        try:
            return LeaseStore(engine, lease_seconds=20, attempts=3).claim(f"runner{number}")
        finally:
            engine.dispose()

    with ThreadPoolExecutor(count) as pool:
        claims = list(pool.map(claim, range(count)))
    assert None not in claims
    assert {claim.job.id for claim in claims} == names
    assert {claim.job.attempt for claim in claims} == {1}


def test_one_job_goes_to_one_of_twenty(url):
    engine = open_database(url)
    submit(JobStore(engine, queue_limit=1000))
    leases = LeaseStore(engine, lease_seconds=20, attempts=3)
    with ThreadPoolExecutor(20) as pool:
        claims = list(pool.map(leases.claim, [f"r{n}" for n in range(20)]))
    engine.dispose()
    assert len([claim for claim in claims if claim is not None]) == 1


def test_the_oldest_job_is_claimed_first(store, leases):
    first, second = submit(store), submit(store)
    order = sorted([first.id, second.id])
    assert [leases.claim("a").job.id, leases.claim("b").job.id] == order
    assert leases.claim("c") is None


def test_the_highest_priority_is_claimed_first_and_of_equals_the_oldest(engine, store, leases):
    low, plain, high, later, lapsed = (submit(store, priority=p) for p in (-10, 0, 10, 10, 5))
    assert store.get(low.id).priority == -10
    claimed = [leases.claim("a").job.id, leases.claim("b").job.id]
    assert claimed == sorted([high.id, later.id])  # made in one millisecond they have no other order than their ids
    claim = leases.claim("c")
    assert claim.job.id == lapsed.id
    let_lease_run_out(engine, lapsed.id)  # taken over before what has waited for longer
    assert [leases.claim(owner).job.id for owner in "def"] == [lapsed.id, plain.id, low.id]
    assert leases.claim("g") is None


def test_a_silent_runners_job_is_taken_over_and_it_can_write_nothing_more(engine, store, leases):
    job = submit(store)
    old = leases.claim("old")
    let_lease_run_out(engine, job.id)
    new = leases.claim("new")
    assert (new.job.id, new.job.attempt) == (job.id, 2)
    before = store.get(job.id), store.events(job.id)
    for write in (
        lambda: leases.heartbeat(old.lease),
        lambda: leases.progress(old.lease, Progress(rows=9)),
        lambda: leases.succeed(old.lease, dataset_of(job)),
        lambda: leases.fail(old.lease, {"code": "x", "message": "x"}),
        lambda: leases.retry(old.lease, {"code": "x", "message": "x"}, delay=0),
        lambda: leases.release(old.lease),
        lambda: leases.stop(old.lease),
    ):
        with pytest.raises(LeaseLostError):
            write()
    assert (store.get(job.id), store.events(job.id)) == before
    assert Catalog(engine).datasets() == []
    assert leases.succeed(new.lease, dataset_of(job)).state is State.SUCCEEDED


def test_a_lease_that_has_run_out_is_no_lease_even_if_nobody_took_the_job(engine, store, leases):
    job = submit(store)
    claim = leases.claim("a")
    let_lease_run_out(engine, job.id)
    with pytest.raises(LeaseLostError):
        leases.heartbeat(claim.lease)
    with pytest.raises(LeaseLostError):
        leases.succeed(claim.lease, dataset_of(job))
    assert store.get(job.id).state is State.RUNNING


@pytest.mark.parametrize("change", [{"owner": "b"}, {"attempt": 2}, {"job_id": "job_0"}])
def test_every_part_of_the_lease_counts(store, leases, change):
    submit(store)
    lease = leases.claim("a").lease
    other = Lease(**{"job_id": lease.job_id, "owner": lease.owner, "attempt": lease.attempt, **change})
    with pytest.raises(LeaseLostError):
        leases.heartbeat(other)
    assert leases.heartbeat(lease) is False


def test_a_heartbeat_renews_the_lease(engine, store, leases):
    job = submit(store)
    lease = leases.claim("a").lease
    with engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(lease_expires_at=now() + 0.5))
    leases.heartbeat(lease)
    with engine.begin() as connection:
        left = connection.execute(jobs.select().with_only_columns(jobs.c.lease_expires_at - now())).scalar_one()
    assert 19 < left <= 20


def test_attempts_are_used_up_by_runners_that_die(engine, store, leases):
    job = submit(store)
    for attempt in (1, 2, 3):
        assert leases.claim("r").job.attempt == attempt
        assert leases.sweep() == []
        let_lease_run_out(engine, job.id)
    assert leases.claim("r") is None
    assert [swept.id for swept in leases.sweep()] == [job.id]
    failed = store.get(job.id)
    assert (failed.state, failed.error["code"]) == (State.FAILED, "runner_lost")
    assert failed.finished_at is not None
    assert leases.sweep() == []


def test_a_released_job_is_queued_at_once_and_charged_nothing(store, leases):
    job = submit(store)
    claim = leases.claim("a")
    assert claim.job.attempt == 1
    released = leases.release(claim.lease)
    assert (released.state, released.attempt) == (State.QUEUED, 0)
    assert leases.claim("b").job.attempt == 1
    assert store.get(job.id).error is None


def test_a_retried_job_waits(store, leases):
    submit(store)
    job = leases.retry(leases.claim("a").lease, {"code": "x", "message": "m", "param": None}, delay=60)
    assert (job.state, job.attempt, job.error["message"]) == (State.QUEUED, 1, "m")
    assert leases.claim("b") is None
    submit(store)
    leases.retry(leases.claim("c").lease, {"code": "x", "message": "m", "param": None}, delay=0)
    again = leases.claim("d")
    assert (again.job.attempt, again.job.error) == (2, None)


def test_cancelling_what_waits_runs_and_has_ended(engine, store, leases):
    waiting = submit(store)
    assert store.cancel(waiting.id).state is State.CANCELLED
    assert store.cancel(waiting.id).state is State.CANCELLED
    assert leases.claim("a") is None

    running = submit(store)
    claim = leases.claim("a")
    assert leases.heartbeat(claim.lease) is False
    assert store.cancel(running.id).state is State.CANCELLING
    assert leases.heartbeat(claim.lease) is True
    with pytest.raises(LeaseLostError):
        leases.succeed(claim.lease, dataset_of(running))
    assert Catalog(engine).datasets() == []
    assert leases.stop(claim.lease).state is State.CANCELLED

    done = submit(store)
    leases.succeed(leases.claim("b").lease, dataset_of(done))
    with pytest.raises(ConflictError, match="succeeded"):
        store.cancel(done.id)
    assert store.get(done.id).state is State.SUCCEEDED


def test_a_cancelled_job_whose_runner_died_is_not_claimed_but_ended(engine, store, leases):
    job = submit(store)
    leases.claim("a")
    store.cancel(job.id)
    let_lease_run_out(engine, job.id)
    assert leases.claim("b") is None
    assert [swept.state for swept in leases.sweep()] == [State.CANCELLED]


@pytest.mark.parametrize("event", [Event.FAIL, Event.RETRY, Event.RELEASE, Event.STOP])
def test_whatever_a_runner_reports_a_cancel_wins(store, leases, event):
    job = submit(store)
    lease = leases.claim("a").lease
    store.cancel(job.id)
    error = {"code": "x", "message": "m", "param": None}
    writes = {
        Event.FAIL: lambda: leases.fail(lease, error),
        Event.RETRY: lambda: leases.retry(lease, error, delay=0),
        Event.RELEASE: lambda: leases.release(lease),
        Event.STOP: lambda: leases.stop(lease),
    }
    assert writes[event]().state is State.CANCELLED is sources(event)[State.CANCELLING]
    assert store.get(job.id).finished_at is not None


def test_a_dataset_appears_with_its_jobs_success(engine, store, leases):
    job = submit(store, name="d")
    claim = leases.claim("a")
    catalog = Catalog(engine)
    assert catalog.datasets() == []
    done = leases.succeed(claim.lease, dataset_of(job))
    assert done.dataset_id == job.target == catalog.dataset(job.target).id
    assert catalog.dataset(job.target).name == "d"


def test_progress_and_events_tell_the_story_in_order(store, leases):
    job = submit(store)
    claim = leases.claim("a")
    leases.progress(claim.lease, Progress(shards_done=1, shards_total=2, rows=10, tokens=20, bytes=30, eta_seconds=1.5))
    assert store.get(job.id).progress.rows == 10
    leases.succeed(claim.lease, dataset_of(job))
    told = store.events(job.id)
    assert [entry.type for entry in told] == ["state", "state", "progress", "state"]
    assert [entry.data.get("state") for entry in told] == ["queued", "running", None, "succeeded"]
    assert told[2].data["shards_total"] == 2
    assert told[3].data["dataset_id"] == job.target
    ids = [entry.id for entry in told]
    assert ids == sorted(set(ids))
    assert [entry.id for entry in store.events(job.id, after=ids[1])] == ids[2:]
    assert [entry.id for entry in store.events(job.id, limit=1)] == ids[:1]


def built(*seconds):
    return [Built(seconds=each, tokens=10) for each in seconds]


def test_shards_are_counted_over_jobs_runners_and_processes(url, store, leases):
    assert leases.shard_times() == {}
    for number in range(2):
        submit(store)
        lease = leases.claim(f"r{number}").lease
        leases.progress(lease, Progress(shards_done=3), built(0.01, 0.1, 0.2))
        leases.progress(lease, Progress(shards_done=4), built(2000))
        leases.progress(lease, Progress(shards_done=4))
    another = open_database(url)
    found = LeaseStore(another, lease_seconds=20, attempts=3).shard_times()
    another.dispose()
    times = found["skipalign"]
    assert list(found) == ["skipalign"]
    assert times.shards == (4, 2, *[0] * 7, 2)
    assert len(times.shards) == len(BOUNDS) + 1
    assert times.seconds == pytest.approx(2 * 2000.31)
    assert times.tokens == 80


def test_a_runner_that_has_lost_its_job_counts_nothing(engine, store, leases):
    submit(store)
    lease = leases.claim("a").lease
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET lease_expires_at = 0"))
    with pytest.raises(LeaseLostError):
        leases.progress(lease, Progress(shards_done=1), built(1))
    assert leases.shard_times() == {}


def test_many_runners_count_at_once_and_nothing_is_lost(store, leases):
    count, rounds = 6, 10
    held = []
    for _ in range(count):
        submit(store)
        held.append(leases.claim("r").lease)
    gate = threading.Barrier(count)

    def one(lease):
        gate.wait()
        for number in range(rounds):
            order = (0.05, 5.0, 500.0) if number % 2 else (500.0, 5.0, 0.05)
            leases.progress(lease, Progress(shards_done=number), built(*order))

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(one, held))
    assert leases.shard_times()["skipalign"].shards == (60, 0, 0, 0, 60, 0, 0, 0, 60, 0)


def test_the_same_key_gives_the_same_job(store):
    first, found = store.submit(request(key="k", body_sha256="a"))
    again, found_again = store.submit(request(key="k", body_sha256="a"))
    assert (found, found_again, again.id) == (False, True, first.id)
    with pytest.raises(IdempotencyError):
        store.submit(request(key="k", body_sha256="b"))
    assert store.submit(request(key="l", body_sha256="b"))[0].id != first.id


def test_a_hundred_posts_with_ten_keys_make_ten_jobs(url):
    engine = open_database(url)
    store = JobStore(engine, queue_limit=1000)
    with ThreadPoolExecutor(12) as pool:
        made = list(pool.map(lambda n: store.submit(request(key=f"k{n % 10}", body_sha256="a"))[0].id, range(100)))
    assert len(set(made)) == 10
    assert len(store.list(limit=100)) == 10
    engine.dispose()


def test_a_full_queue_refuses(engine):
    store = JobStore(engine, queue_limit=2)
    submit(store)
    kept = submit(store, key="k")
    with pytest.raises(QueueFullError):
        submit(store)
    assert submit(store, key="k").id == kept.id
    store.cancel(kept.id)
    submit(store)


def test_pages_are_complete_while_jobs_come_and_go(store):
    made = [submit(store, kind="a" if n % 2 else "b").id for n in range(7)]
    newest_first = sorted(made, reverse=True)
    assert [job.id for job in store.list(limit=3)] == newest_first[:3]
    cursor = newest_first[2]
    store.cancel(cursor)
    store.delete(cursor)
    submit(store)
    assert [job.id for job in store.list(after=cursor, limit=10)] == newest_first[3:]
    assert {job.kind for job in store.list(kind="a", limit=10)} == {"a"}
    assert len(store.list(state=State.QUEUED, limit=10)) == 7
    assert store.list(state=State.FAILED, limit=10) == []


def test_only_ended_jobs_are_deleted_and_their_keys_with_them(store, leases):
    job = submit(store, key="k", body_sha256="a")
    with pytest.raises(ConflictError, match="cancel it first"):
        store.delete(job.id)
    store.cancel(job.id)
    store.delete(job.id)
    with pytest.raises(NotFoundError):
        store.get(job.id)
    with pytest.raises(NotFoundError):
        store.events(job.id)
    assert submit(store, key="k", body_sha256="other").id != job.id


def test_an_upload_in_use_is_known_to_be(store):
    job = submit(store, spec={"source": {"upload": "up_123"}})
    assert store.active_mention("up_123") == job.id
    assert store.active_mention("up_12") is None
    store.cancel(job.id)
    assert store.active_mention("up_123") is None


def test_counts_and_waits(store, leases):
    assert store.longest_wait() == 0
    submit(store)
    submit(store)
    leases.claim("a")
    counts = store.counts()
    assert (counts[State.QUEUED], counts[State.RUNNING], counts[State.FAILED]) == (1, 1, 0)
    assert 0 <= store.longest_wait() < 5


def test_runners_are_counted_while_they_are_heard_of(engine, leases):
    assert leases.alive() == 0
    leases.seen("a")
    leases.seen("a")
    leases.seen("b")
    assert leases.alive() == 2
    leases.gone("a")
    assert leases.alive() == 1


def test_a_database_that_cannot_be_opened_is_one_error_without_its_password(tmp_path):
    for url in (
        f"sqlite:///{tmp_path}/no/such/dir/x.db",
        "nonsense://u:secret@h/x",
        "postgresql+nodriver://u:secret@h",
    ):
        with pytest.raises(UnavailableError) as caught:
            open_database(url)
        assert "secret" not in caught.value.message
