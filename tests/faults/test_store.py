"""An S3 store that answers badly costs time, and nothing else."""

from __future__ import annotations

import pytest

from service.problems import UnavailableError
from service.storage import objects
from service.storage.objects import Objects
from tests.faults import store
from tests.faults.store_proxy import FAULTS, OPERATIONS, Order
from tests.service.object_store import object_store

__all__ = ["object_store"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def proxy(object_store):
    with store.proxied(object_store) as running:
        yield running


@pytest.fixture(scope="module")
def world(proxy, tmp_path_factory):
    made = store.StoreWorld(tmp_path_factory.mktemp("store") / "world", proxy)
    yield made
    made.close()


def test_every_operation_meets_bad_answers_and_every_bad_answer_is_met(world):
    figures = store.bad_answers(world, store.drawn(seed=1), seed=1)
    assert {operation for operation, _ in figures.delivered} == set(OPERATIONS)
    assert {fault for _, fault in figures.delivered} == set(FAULTS)
    assert figures.again > 0, "no attempt failed: only what the client mends by itself was tried"
    assert figures.manifests >= figures.jobs
    assert (figures.lost, figures.wrong, figures.early) == (0, 0, 0)


@pytest.mark.parametrize("fault", ["500 after", "cut after"])
def test_a_manifest_whose_answer_was_lost_is_known_to_be_ours(world, fault):
    figures = store.StoreFigures()
    world.meet(Order("create manifest", fault), figures)
    assert world.proxy.delivered["create manifest", fault] >= 1
    assert (figures.jobs, figures.again, figures.lost, figures.wrong) == (1, 0, 0, 0)


def test_a_store_that_takes_no_shards_ends_the_job_as_unavailable(world):
    figures = store.StoreFigures()
    world.meet(Order("put shard", "500", times=10**6), figures)
    assert (figures.jobs, figures.again, figures.lost) == (1, store.ATTEMPTS, 0)
    assert figures.failed == {"unavailable": 1}
    world.meet(Order("put shard", "500", times=0), figures)
    assert (figures.jobs, figures.again, figures.wrong) == (2, store.ATTEMPTS, 0)


@pytest.mark.parametrize("fault", ["409", "412"])
def test_a_creation_that_is_refused_where_nothing_stands_is_tried_again(proxy, monkeypatch, fault):
    monkeypatch.setattr(objects, "CONFLICT_SECONDS", 0.0)
    bucket = Objects.open(f"s3://bucket/refused-{fault}")
    path, body = "d/manifest.json", b'{"files": []}'
    proxy.order = Order("create manifest", fault, times=objects.CREATES - 1)
    assert bucket.create(path, body, staging="") is True
    assert proxy.order.seen == objects.CREATES
    assert bucket.create(path, b"{}", staging="") is False
    assert bucket.read(path) == body
    proxy.order = Order("create manifest", fault, times=objects.CREATES)
    with pytest.raises(UnavailableError, match="says that other/manifest"):
        bucket.create("other/manifest.json", body, staging="")
    proxy.order = None
    bucket.delete_prefix("d")
