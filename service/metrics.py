"""What `/metrics` says, in Prometheus' text form: requests as this process has answered them, the rest as the database has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from service.jobs.catalog import Catalog
from service.jobs.leases import LeaseStore
from service.jobs.shard_times import BOUNDS
from service.jobs.store import JobStore

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMeter:
    """Requests by method, route and status. Labels take no value of a client's making, so there is an end to their number."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._count = Counter(
            "longweave_http_requests",
            "Requests answered by this process; the status is 0 where the connection ended before the answer.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "longweave_http_request_seconds",
            "From a request's arrival to the first byte of its answer.",
            ("method", "route"),
            buckets=BUCKETS,
            registry=self.registry,
        )

    def answered(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count a request. `route` is the pattern of its address; None where it has none."""
        where = (method if method in METHODS else "other", route or "none")
        self._count.labels(*where, str(status)).inc()
        self._seconds.labels(*where).observe(seconds)


class DatabaseCollector(Collector):
    """What is read from the database when they are asked for, so that any process of the API gives the same."""

    def __init__(self, jobs: JobStore, leases: LeaseStore, catalog: Catalog) -> None:
        self._jobs = jobs
        self._leases = leases
        self._catalog = catalog

    def collect(self) -> Iterable[Metric]:
        """Every metric; raises what SQLAlchemy raises where there is no database."""
        states = GaugeMetricFamily("longweave_jobs", "Jobs by state.", labels=["state"])
        for state, count in self._jobs.counts().items():
            states.add_metric([state], count)
        yield states
        yield _gauge(
            "queue_wait_seconds", "How long a job has waited that could be claimed.", self._jobs.longest_wait()
        )
        yield _gauge(
            "claim_age_seconds", "How long ago the first of the running jobs was begun.", self._leases.claim_age()
        )
        yield _gauge("runners", "Runners heard of lately.", self._leases.alive())
        age = self._leases.silence()
        if age is not None:
            yield _gauge("runner_heartbeat_age_seconds", "How long ago a runner was last heard of.", age)
        yield from (_gauge(name, f"How many {name} there are.", n) for name, n in self._catalog.counts().items())
        totals: Mapping[str, int] = self._catalog.totals()
        yield from (
            _gauge(f"dataset_{name}", f"The {name} of all datasets there are.", n) for name, n in totals.items()
        )
        yield from self._shards()

    def _shards(self) -> Iterable[Metric]:
        """Counters of all runners: they go on where runners or the API start again."""
        seconds = HistogramMetricFamily("longweave_shard_seconds", "What building a shard took.", labels=["kind"])
        tokens = CounterMetricFamily("longweave_shard_tokens", "Tokens in shards that were built.", labels=["kind"])
        for kind, times in self._leases.shard_times().items():
            bounds = [*(str(bound) for bound in BOUNDS), "+Inf"]
            buckets = list(zip(bounds, accumulate(times.shards), strict=True))
            seconds.add_metric([kind], buckets, times.seconds)
            tokens.add_metric([kind], times.tokens)
        yield seconds
        yield tokens


def exposition(meter: RequestMeter, database: DatabaseCollector) -> bytes:
    """All of it; the media type is MEDIA_TYPE."""
    registry = CollectorRegistry()
    registry.register(database)
    return generate_latest(registry) + generate_latest(meter.registry)


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"longweave_{name}", meaning, value=value)
